//! Names out of an ELF file and its debug information, wherever that lies.
//!
//! The blazesym crate reads symbols, DWARF and `.gnu_debugdata`; here is decided which file it is shown, because a
//! target's file may be deleted, replaced, or seen through another mount namespace:
//!
//! 1. `DIR/.build-id/ab/cdef….debug` in each debug directory, where its build-id is the module's. The build-id is the
//!    only proof that two files belong together, so this goes first, and works for files that exist in a container only.
//! 2. The file that is held open, by `/proc/self/fd/N`, with the DWARF in it or the debug file that its
//!    `.gnu_debuglink` names (beside the file, or in a debug directory; blazesym resolves the link back to the real path
//!    and compares the checksum).
//! 3. The same file, symbols alone, where its debug information is damaged or does not fit.
//!
//! Not done: DWARF packages (`.dwp`), which belong to a path and carry no build-id.

use std::{
    fs::File,
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use blazesym::symbolize::{
    CodeInfo, Input, Sym, Symbolized, Symbolizer,
    source::{Elf, Source},
};

use super::soundness::{Soundness, soundness};
use crate::target::address::Svma;

/// Functions inlined at one address that are kept.
const MAX_INLINED: usize = 64;
/// Characters of a source file's path that are kept.
const MAX_PATH: usize = 4096;

/// Where in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// What is known of one address; symbols as the file has them, mangled.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// The functions that were inlined here, innermost first, then the function that holds them all.
    pub(super) functions: Vec<(String, Place)>,
}

/// The sources of names for one ELF file, best first.
#[derive(Debug)]
pub(super) struct ElfNames {
    sources: Vec<NameSource>,
}

#[derive(Debug)]
struct NameSource {
    source: Source<'static>,
    /// Whether it has answered without error. One that never has is given up at its first error, because blazesym would
    /// read the whole file again for each address.
    proven: bool,
}

impl ElfNames {
    /// The sources for the file `held`, whose GNU build-id is `build_id`. The file must stay open as long as this is used.
    pub(super) fn new(held: &File, build_id: Option<&[u8]>, debug_dirs: &[PathBuf]) -> Self {
        let by_fd = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let soundness = soundness(&by_fd, debug_dirs);
        if soundness == Soundness::Nothing {
            return Self { sources: Vec::new() };
        }
        let by_build_id = build_id.and_then(|id| debug_file(id, debug_dirs));
        let with_debug_info = by_build_id.or_else(|| (soundness == Soundness::Sound).then(|| by_fd.clone()));
        let mut symbols_alone = Elf::new(by_fd);
        symbols_alone.debug_syms = false;
        let sources = with_debug_info.map(Elf::new).into_iter().chain([symbols_alone]);
        let source = |elf| NameSource { source: Source::Elf(elf), proven: false };
        Self { sources: sources.map(source).collect() }
    }

    /// Names the instruction at `at`; `None` where no source does.
    pub(super) fn look_up(&mut self, engine: &mut Engine, at: Svma) -> Option<Named> {
        let mut index = 0;
        while let Some(candidate) = self.sources.get_mut(index) {
            match engine.look_up(&candidate.source, at) {
                Ok(found) => {
                    candidate.proven = true;
                    if found.is_some() {
                        return found;
                    }
                    index += 1;
                }
                Err(()) if candidate.proven => index += 1,
                Err(()) => drop(self.sources.remove(index)),
            }
        }
        None
    }
}

/// The debug file with this build-id. A file in that place with another build-id is refused.
fn debug_file(build_id: &[u8], debug_dirs: &[PathBuf]) -> Option<PathBuf> {
    // Two bytes make no path, and ids shorter than that of xxhash (8 bytes) are no ids.
    let (first, rest) = build_id.split_first().filter(|_| build_id.len() >= 8)?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    debug_dirs.iter().map(|dir| dir.join(format!(".build-id/{first:02x}/{rest}.debug"))).find(|path| {
        path.is_file()
            && build_id_of(path).as_deref() == Some(build_id)
            && soundness(path, debug_dirs) == Soundness::Sound
    })
}

fn build_id_of(path: &Path) -> Option<Vec<u8>> {
    let read = || blazesym::helper::read_elf_build_id(path.as_os_str()).ok().flatten().map(|id| id.to_vec());
    catch_unwind(read).ok().flatten()
}

/// blazesym, behind a wall.
///
/// It is careful, but a damaged file can still make a parser panic (overflow, an index), and one strange library must not
/// cost the user the whole account. After a panic its caches are of unknown state and are thrown away.
#[derive(Debug)]
pub(super) struct Engine {
    symbolizer: Symbolizer,
    debug_dirs: Vec<PathBuf>,
}

impl Engine {
    pub(super) fn new(debug_dirs: Vec<PathBuf>) -> Self {
        Self { symbolizer: Self::build(&debug_dirs), debug_dirs }
    }

    fn build(debug_dirs: &[PathBuf]) -> Symbolizer {
        Symbolizer::builder()
            .enable_code_info(true)
            .enable_inlined_fns(true)
            .enable_demangling(false)
            // Each path stands for one open file: there is nothing to reload.
            .enable_auto_reload(false)
            .set_debug_dirs(Some(debug_dirs))
            .build()
    }

    /// `Err` where the source cannot be used, for this address or at all.
    fn look_up(&mut self, source: &Source<'static>, at: Svma) -> Result<Option<Named>, ()> {
        let symbolizer = &self.symbolizer;
        let look_up =
            AssertUnwindSafe(|| match symbolizer.symbolize_single(source, Input::VirtOffset(at.0)) {
                Ok(Symbolized::Sym(symbol)) => Ok(named(&symbol)),
                Ok(Symbolized::Unknown(_)) => Ok(None),
                Err(_) => Err(()),
            });
        catch_unwind(look_up).unwrap_or_else(|_| {
            self.symbolizer = Self::build(&self.debug_dirs);
            Err(())
        })
    }
}

/// What blazesym found, unless it is a guess: a symbol without a size claims everything up to the next symbol, which in a
/// half-stripped file may be megabytes away. Such a name is believed only where the line table knows the address too.
/// (In `.dynsym`, blazesym itself takes a symbol without size for its first byte alone.)
fn named(symbol: &Sym<'_>) -> Option<Named> {
    if symbol.name.is_empty() || (symbol.size.is_none() && symbol.code_info.is_none()) {
        return None;
    }
    let innermost_first = symbol.inlined.iter().rev();
    let mut functions: Vec<_> = innermost_first
        .filter(|function| !function.name.is_empty())
        .take(MAX_INLINED)
        .map(|function| (function.name.clone().into_owned(), place(function.code_info.as_ref())))
        .collect();
    functions.push((symbol.name.clone().into_owned(), place(symbol.code_info.as_deref())));
    Some(Named { functions })
}

fn place(info: Option<&CodeInfo<'_>>) -> Place {
    let Some(info) = info else { return Place::default() };
    let file: String = info.to_path().to_string_lossy().chars().take(MAX_PATH).collect();
    // Line 0 is DWARF's word for code that no line made.
    Place { file: (!file.is_empty()).then_some(file), line: info.line.filter(|line| *line > 0) }
}
