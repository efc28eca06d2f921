//! Where debug information lies that is not in the file itself.
//!
//! Three kinds of links lead to other files, each with its proof that the file is the right one: the build-id (the same
//! in both files), `.gnu_debuglink` (a name and the CRC of the file), `.gnu_debugaltlink` (a path and the build-id of what
//! dwz moved out). Paths are those of the target's file system first, since its files came with it, then of ours; what
//! the user named with `--debug-dir` is ours and goes before all else.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use super::{
    dwarf::SplitUnit,
    image::{Elf, Image, Sections, build_id},
    target_root::{TargetRoot, open_here},
};

/// Build-ids shorter than that of xxhash are none.
const SHORTEST_ID: usize = 8;

/// Where debug files are looked for.
#[derive(Debug)]
pub(super) struct DebugFiles {
    /// Of our own file system, by the user's wish.
    user_dirs: Vec<PathBuf>,
    /// The usual ones, of both file systems.
    usual_dirs: Vec<PathBuf>,
    /// The target's root, where it is not ours.
    target_root: Option<TargetRoot>,
}

/// A debug file, and the path at which it was found: links in it are relative to that.
#[derive(Debug)]
pub(super) struct DebugFile {
    pub(super) image: Image,
    pub(super) path: PathBuf,
}

impl DebugFiles {
    pub(super) fn new(user_dirs: Vec<PathBuf>, usual_dirs: Vec<PathBuf>) -> Self {
        Self { user_dirs, usual_dirs, target_root: None }
    }

    /// Looks into this root from now on, before ours.
    pub(super) fn set_target_root(&mut self, root: Option<TargetRoot>) {
        self.target_root = root;
    }

    /// The file with the debug information of the module at `path`, which has none itself.
    pub(super) fn of_module(&self, path: &Path, elf: &Elf<'_>) -> Option<DebugFile> {
        let id = build_id(elf);
        if let Some(id) = &id
            && let Some(found) = self.by_build_id(id)
        {
            return Some(found);
        }
        let (name, crc) = debug_link(elf)?;
        // Where both files have a build-id it decides; reading a large file for its CRC takes longer.
        let fits = |image: &Image| {
            image.elf().is_some_and(|elf| match (&id, build_id(&elf)) {
                (Some(wanted), Some(found)) => *wanted == found,
                _ => image.crc() == crc,
            })
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let beside = [directory.join(&name), directory.join(".debug").join(&name)];
        let below = |dir: &PathBuf| {
            let directory = directory.strip_prefix("/").unwrap_or(directory);
            [dir.join(directory).join(&name), dir.join(&name)]
        };
        let by_user = self.user_dirs.iter().flat_map(below);
        let usual = beside.into_iter().chain(self.usual_dirs.iter().flat_map(below));
        self.first(by_user, usual, fits)
    }

    /// The file that a `.gnu_debugaltlink` in `elf`, found at `path`, names.
    pub(super) fn supplement_of(&self, path: &Path, elf: &Elf<'_>) -> Option<DebugFile> {
        let (link, id) = alternate_link(elf)?;
        let fits = |image: &Image| image.elf().and_then(|elf| build_id(&elf)).as_deref() == Some(&*id);
        // `join` keeps an absolute link as it is.
        let linked = path.parent().unwrap_or(Path::new("/")).join(link);
        self.first([], [linked], fits).or_else(|| self.by_build_id(&id))
    }

    /// The package of split units of the module at `path`; what is in it is checked by the units' ids.
    pub(super) fn package_of(&self, path: &Path) -> Option<DebugFile> {
        let mut package = path.as_os_str().to_owned();
        package.push(".dwp");
        let below = |dir: &PathBuf| {
            let package = Path::new(&package);
            dir.join(package.strip_prefix("/").unwrap_or(package))
        };
        let usual = [PathBuf::from(&package)].into_iter().chain(self.usual_dirs.iter().map(below));
        self.first(self.user_dirs.iter().map(below), usual, |_| true)
    }

    /// The files that may hold a split unit: where the compiler put it, or beside the module at `path`.
    pub(super) fn split(&self, path: &Path, unit: &SplitUnit) -> Vec<Image> {
        if unit.name.is_empty() {
            return Vec::new();
        }
        let compiled = Path::new(&unit.directory).join(&unit.name);
        let beside = compiled.file_name().and_then(|name| Some(path.parent()?.join(name)));
        let by_user = self.user_dirs.iter().filter_map(|dir| Some(dir.join(compiled.file_name()?)));
        self.all(by_user, [compiled.clone()].into_iter().chain(beside)).map(|found| found.image).collect()
    }

    fn by_build_id(&self, id: &[u8]) -> Option<DebugFile> {
        let (first, rest) = id.split_first().filter(|_| id.len() >= SHORTEST_ID)?;
        let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
        let below = |dir: &PathBuf| dir.join(format!(".build-id/{first:02x}/{rest}.debug"));
        let fits = |image: &Image| image.elf().and_then(|elf| build_id(&elf)).as_deref() == Some(id);
        self.first(self.user_dirs.iter().map(below), self.usual_dirs.iter().map(below), fits)
    }

    fn first(
        &self,
        by_user: impl IntoIterator<Item = PathBuf>,
        usual: impl IntoIterator<Item = PathBuf>,
        fits: impl Fn(&Image) -> bool,
    ) -> Option<DebugFile> {
        self.all(by_user, usual).find(|found| fits(&found.image))
    }

    /// The files that exist at these paths, in the order of preference.
    fn all(
        &self,
        by_user: impl IntoIterator<Item = PathBuf>,
        usual: impl IntoIterator<Item = PathBuf>,
    ) -> impl Iterator<Item = DebugFile> {
        let usual: Vec<PathBuf> = usual.into_iter().collect();
        let in_target = self.target_root.iter().flat_map({
            let usual = usual.clone();
            move |root| usual.clone().into_iter().filter_map(move |path| found(root.open(&path).ok()?, path))
        });
        let here = |path: PathBuf| found(open_here(&path).ok()?, path);
        let by_user = by_user.into_iter().filter_map(here);
        by_user.chain(in_target).chain(usual.into_iter().filter_map(here))
    }
}

fn found(file: File, path: PathBuf) -> Option<DebugFile> {
    Some(DebugFile { image: Image::map(&file).ok()?, path })
}

/// The name and CRC in `.gnu_debuglink`: the name, ended and padded by zeros to a multiple of four, then the CRC.
fn debug_link(elf: &Elf<'_>) -> Option<(PathBuf, u32)> {
    let content = Sections::of(elf).content(".gnu_debuglink").ok()?;
    let end = content.iter().position(|byte| *byte == 0)?;
    let crc = content.get((end + 1).next_multiple_of(4)..)?.first_chunk::<4>()?;
    // A name alone: with a path it could lead anywhere.
    let name = Path::new(std::str::from_utf8(content.get(..end)?).ok()?).file_name()?;
    Some((name.into(), u32::from_le_bytes(*crc)))
}

/// The path and build-id in `.gnu_debugaltlink`: the path, ended by a zero, then the id.
fn alternate_link(elf: &Elf<'_>) -> Option<(PathBuf, Vec<u8>)> {
    let content = Sections::of(elf).content(".gnu_debugaltlink").ok()?;
    let end = content.iter().position(|byte| *byte == 0)?;
    let path = std::str::from_utf8(content.get(..end)?).ok().filter(|path| !path.is_empty())?;
    let id = content.get(end + 1..).filter(|id| id.len() >= SHORTEST_ID)?;
    Some((path.into(), id.to_vec()))
}
