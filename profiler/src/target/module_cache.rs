//! Opening what the target has mapped, through the target's own view of the file system, each file once.
//!
//! `/proc/PID/map_files/START-END` leads to the mapped file itself, whether it was deleted, replaced, or lies in another
//! mount namespace; it needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE. `/proc/PID/root/PATH` needs only the right to
//! inspect the process, but may find another file under the old name, so what it finds is checked.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{OFlags, fstatfs, major, minor};

use super::{
    error::TargetError,
    maps::{Mapping, MappingKind},
    module::{Content, Module},
    process::Process,
};

/// Bytes of a vDSO that we copy; kernels have had 4 to 16 KiB.
const VDSO_LIMIT: u64 = 64 << 10;
/// `BTRFS_SUPER_MAGIC` and `OVERLAYFS_SUPER_MAGIC` of the kernel's include/uapi/linux/magic.h: on these, stat(2) gives
/// a device (on overlayfs perhaps an inode too) of its own making, while the maps file has the superblock's.
const OWN_NUMBERS: [u64; 2] = [0x9123_683e, 0x794c_7630];

/// The modules of one process that were opened so far.
#[derive(Debug, Default)]
pub struct ModuleCache {
    modules: HashMap<Key, (Arc<Module>, Option<Stamp>)>,
}

/// Size and time of the last change of a file's content. An inode number is not given to another file while we hold this
/// one open, but someone may write into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    fn of(content: &Content) -> Option<Self> {
        let Content::File(file) = content else { return None };
        let metadata = file.metadata().ok()?;
        let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        Some(Self { size: metadata.size(), seconds, nanoseconds })
    }
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct Key {
    device: (u32, u32),
    inode: u64,
    path: PathBuf,
}

impl ModuleCache {
    /// The module that this mapping of the process shows; `None` where it shows neither a file nor the vDSO.
    ///
    /// # Errors
    /// Where the file cannot be reached any more, cannot be read, or is not an ELF file for x86-64.
    pub fn open(&mut self, process: &Process, mapping: &Mapping) -> Result<Option<Arc<Module>>, TargetError> {
        let path = match &mapping.kind {
            MappingKind::File(path) => path.clone(),
            MappingKind::Special(name) if mapping.is_vdso() => PathBuf::from(name),
            MappingKind::Special(_) | MappingKind::Anonymous => return Ok(None),
        };
        let key = Key { device: mapping.device, inode: mapping.inode, path: path.clone() };
        if let Some((module, stamp)) = self.modules.get(&key)
            && *stamp == Stamp::of(&module.content)
        {
            return Ok(Some(Arc::clone(module)));
        }
        let content = if mapping.is_vdso() {
            Content::Memory(
                read_memory(process, mapping.range.start.0, mapping.size().min(VDSO_LIMIT))?.into(),
            )
        } else {
            Content::File(open_file(process, mapping, &path)?)
        };
        let module = Arc::new(Module::new(path, content, mapping.deleted)?);
        let stamp = Stamp::of(&module.content);
        self.modules.insert(key, (Arc::clone(&module), stamp));
        Ok(Some(module))
    }

    /// The files that someone has written into since they were opened, as compilers and `cp` do where a package manager
    /// would put another file in their place. Each is opened anew, as another module, when it is asked for next.
    pub fn overwritten(&self) -> impl Iterator<Item = &Arc<Module>> {
        let changed = |(module, stamp): &&(Arc<Module>, Option<Stamp>)| *stamp != Stamp::of(&module.content);
        self.modules.values().filter(changed).map(|(module, _)| module)
    }
}

/// Copies memory of the target; callers bound the length.
pub fn read_memory(process: &Process, address: u64, length: u64) -> Result<Vec<u8>, TargetError> {
    let path = process.memory_path("mem");
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let read = File::open(&path).and_then(|memory| memory.read_exact_at(&mut bytes, address));
    read.map_err(|error| process.explain(path, error))?;
    Ok(bytes)
}

fn open_file(process: &Process, mapping: &Mapping, path: &Path) -> Result<File, TargetError> {
    let link =
        process.memory_path(format!("map_files/{:x}-{:x}", mapping.range.start.0, mapping.range.end.0));
    match open_regular(&link) {
        Ok(file) if still_shows(&link, mapping) && is_the_mapped_one(&file, mapping, Via::Link) => Ok(file),
        _ => open_through_root(process, mapping, path),
    }
}

fn open_through_root(process: &Process, mapping: &Mapping, path: &Path) -> Result<File, TargetError> {
    // The path is absolute in the target's root; `join` would throw that root away.
    let mut in_root = process.memory_path("root").into_os_string();
    in_root.push(path);
    let replaced = || TargetError::Replaced { pid: process.pid, path: path.to_owned() };
    match open_regular(Path::new(&in_root)) {
        Ok(file) if is_the_mapped_one(&file, mapping, Via::Path) => Ok(file),
        Ok(_) => Err(replaced()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && process.is_alive() => Err(replaced()),
        Err(error) => Err(process.explain(path.to_owned(), error)),
    }
}

/// Opens a regular file only: opening a device or a FIFO could have effects, or wait.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let regular =
        |metadata: fs::Metadata| metadata.is_file().then_some(()).ok_or(io::ErrorKind::InvalidInput);
    regular(fs::metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    regular(file.metadata()?)?;
    Ok(file)
}

/// Whether the link still names the file of the mapping: the range may have been mapped anew meanwhile.
fn still_shows(link: &Path, mapping: &Mapping) -> bool {
    let Some(path) = mapping.path() else { return false };
    fs::read_link(link).is_ok_and(|target| {
        let target = target.as_os_str().as_bytes();
        let stripped = if mapping.deleted { target.strip_suffix(b" (deleted)") } else { Some(target) };
        stripped.is_some_and(|stripped| stripped == path.as_os_str().as_bytes())
    })
}

/// How a file was come by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Via {
    /// The link of the mapping: it leads nowhere else, as long as the mapping is the same.
    Link,
    /// A path, which may have been given to another file.
    Path,
}

fn is_the_mapped_one(file: &File, mapping: &Mapping, via: Via) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    let device = (major(metadata.dev()), minor(metadata.dev()));
    let same_inode = metadata.ino() == mapping.inode;
    if same_inode && device == mapping.device {
        return true;
    }
    // Here the numbers are no proof of a difference; a link is trusted without them, a path needs the inode.
    let own_numbers = fstatfs(file).is_ok_and(|system| OWN_NUMBERS.contains(&system.f_type.cast_unsigned()));
    own_numbers && (same_inode || via == Via::Link)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::{
        sys::mmap::MappedFile,
        target::{address::Avma, maps::Maps},
    };

    fn ourselves() -> Process {
        Process::open(std::process::id()).unwrap()
    }

    /// A copy of a library, mapped by us, and its mapping.
    fn mapped_copy(name: &str) -> (PathBuf, MappedFile, Mapping) {
        let path = std::env::temp_dir().join(format!("heapscope-{name}-{}.so", std::process::id()));
        fs::copy("/bin/sh", &path).unwrap();
        let mapped = MappedFile::new(&File::open(&path).unwrap()).unwrap();
        let mapping = mapping_of(&mapped);
        (path, mapped, mapping)
    }

    fn mapping_of(mapped: &MappedFile) -> Mapping {
        Maps::read(&ourselves()).unwrap().find(Avma(mapped.as_ptr() as u64)).cloned().unwrap()
    }

    #[test]
    fn every_executable_mapping_of_ours_can_be_opened_once() {
        let (us, mut cache) = (ourselves(), ModuleCache::default());
        let maps = Maps::read(&us).unwrap();
        for mapping in maps.executable().filter(|mapping| mapping.path().is_some() || mapping.is_vdso()) {
            let module = cache.open(&us, mapping).unwrap().unwrap();
            assert!(Arc::ptr_eq(&module, &cache.open(&us, mapping).unwrap().unwrap()));
            let first = mapping.range.start.0.wrapping_sub(module.bias(mapping).unwrap());
            assert!(module.segments.iter().any(|s| s.executable && s.svma.0 & !0xfff == first), "{module:?}");
            assert_eq!(*module.data().unwrap().get(..4).unwrap(), *b"\x7fELF");
        }
        let heap =
            maps.mappings.iter().find(|mapping| mapping.kind == MappingKind::Special("[heap]".to_owned()));
        assert!(cache.open(&us, heap.unwrap()).unwrap().is_none());
    }

    #[test]
    fn the_vdso_is_copied_and_is_an_elf_file_with_its_functions() {
        let us = ourselves();
        let maps = Maps::read(&us).unwrap();
        let mapping = maps.mappings.iter().find(|mapping| mapping.is_vdso()).unwrap();
        let module = ModuleCache::default().open(&us, mapping).unwrap().unwrap();
        assert_eq!((module.name().as_str(), module.bias(mapping)), ("[vdso]", Some(mapping.range.start.0)));
        let data = module.data().unwrap();
        let file = object::File::parse(&*data).unwrap();
        let names =
            object::Object::dynamic_symbols(&file).filter_map(|s| object::ObjectSymbol::name(&s).ok());
        assert!(names.into_iter().any(|name| name == "__vdso_clock_gettime"));
    }

    #[test]
    fn a_replaced_file_is_never_taken_for_the_mapped_one() {
        let us = ourselves();
        let (path, mapped, mapping) = mapped_copy("replaced");
        assert!(open_through_root(&us, &mapping, &path).is_ok());
        let other = path.with_extension("new");
        fs::copy("/bin/cat", &other).unwrap();
        fs::rename(&other, &path).unwrap();
        let refused = open_through_root(&us, &mapping, &path).unwrap_err();
        assert!(matches!(refused, TargetError::Replaced { .. }), "{refused}");
        fs::remove_file(&path).unwrap();
        let refused = open_through_root(&us, &mapping_of(&mapped), &path).unwrap_err();
        assert!(matches!(refused, TargetError::Replaced { .. }), "{refused}");
    }

    #[test]
    fn a_deleted_file_is_opened_through_its_mapping() {
        let us = ourselves();
        let (path, mapped, _) = mapped_copy("deleted");
        fs::remove_file(&path).unwrap();
        let mapping = mapping_of(&mapped);
        assert!(mapping.deleted);
        let module = match ModuleCache::default().open(&us, &mapping) {
            Err(TargetError::Replaced { .. }) if !rustix::process::geteuid().is_root() => {
                eprintln!("skipped: opening through map_files needs CAP_SYS_ADMIN");
                return;
            }
            module => module.unwrap().unwrap(),
        };
        assert!(module.deleted);
        assert_eq!(*module.data().unwrap(), *mapped);
        // What the kernel would attach to is this very file, which has no name.
        let attached = fs::metadata(module.attach_path().unwrap()).unwrap();
        assert_eq!((attached.ino(), attached.nlink()), (mapping.inode, 0));
    }

    #[test]
    fn a_file_that_was_overwritten_is_another_module() {
        let us = ourselves();
        let (path, _mapped, mapping) = mapped_copy("overwritten");
        let mut cache = ModuleCache::default();
        let before = cache.open(&us, &mapping).unwrap().unwrap();
        assert_eq!(cache.overwritten().count(), 0);
        let content = fs::read("/bin/cat").unwrap();
        fs::write(&path, &content).unwrap();
        assert!(cache.overwritten().all(|module| Arc::ptr_eq(module, &before)));
        assert_eq!(cache.overwritten().count(), 1);
        let after = cache.open(&us, &mapping).unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!Arc::ptr_eq(&before, &after));
        assert_eq!(*after.data().unwrap(), content);
        assert_eq!(cache.overwritten().count(), 0);
    }

    #[test]
    fn a_file_that_is_no_program_is_refused() {
        let (us, path) =
            (ourselves(), std::env::temp_dir().join(format!("heapscope-text-{}", std::process::id())));
        fs::write(&path, "text, more than the sixty-four bytes that the header of an ELF file has").unwrap();
        let mapped = MappedFile::new(&File::open(&path).unwrap()).unwrap();
        let error = ModuleCache::default().open(&us, &mapping_of(&mapped)).unwrap_err().to_string();
        fs::remove_file(&path).unwrap();
        assert!(error.contains("not an ELF file") && error.contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn a_fifo_is_not_opened() {
        let path = std::env::temp_dir().join(format!("heapscope-fifo-{}", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = open_regular(&path).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
