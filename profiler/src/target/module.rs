//! A file with code that the target has mapped, held open so that it can be read after the target is gone.

use std::{
    fs::File,
    io,
    ops::Deref,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::PathBuf,
    sync::Arc,
};

use rustix::param::page_size;

use super::{
    address::{FileOffset, Svma},
    elf::read_headers,
    error::TargetError,
    maps::Mapping,
};
use crate::sys::mmap::MappedFile;

/// Files up to this many bytes are copied into our memory, larger ones mapped.
///
/// A copy takes a few milliseconds at most and cannot raise SIGBUS when someone cuts the file short; but a program with
/// debug information may have gigabytes, of which we need the symbol table or the unwind information only.
const COPY_LIMIT: u64 = 8 << 20;

/// A loadable segment of the ELF file (PT_LOAD).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First address as the file states it.
    pub svma: Svma,
    /// Where its bytes lie in the file.
    pub offset: FileOffset,
    /// Bytes in the file.
    pub file_size: u64,
    /// Whether it is executable.
    pub executable: bool,
}

/// Where the bytes of a module come from.
#[derive(Debug)]
pub enum Content {
    /// A file, opened through the target's own mount namespace. It stays readable after the target's end and after the
    /// file is deleted.
    File(File),
    /// Copied out of the target's memory: the vDSO.
    Memory(Arc<[u8]>),
}

/// One ELF file mapped by the target.
#[derive(Debug)]
pub struct Module {
    /// The path as the target sees it, or `[vdso]`.
    pub path: PathBuf,
    /// The bytes.
    pub content: Content,
    /// The GNU build-id, where the file has one.
    pub build_id: Option<Vec<u8>>,
    /// The loadable segments.
    pub segments: Vec<Segment>,
    /// Whether the file was deleted or replaced on disk since it was mapped.
    pub deleted: bool,
}

impl Module {
    /// The module with this content. Only the headers are read, and nothing that they say is believed beyond the bytes
    /// that are there.
    ///
    /// # Errors
    /// Where the content is not an ELF file for x86-64.
    pub fn new(path: PathBuf, content: Content, deleted: bool) -> Result<Self, TargetError> {
        match read_headers(|offset, length| content.bytes_at(offset, length)) {
            Ok(headers) => {
                Ok(Self { path, content, build_id: headers.build_id, segments: headers.segments, deleted })
            }
            Err(reason) => Err(TargetError::DamagedElf { path, reason }),
        }
    }

    /// The stated address of the byte at `offset`, by the program headers; `None` outside every segment, and where a
    /// damaged one states an address beyond 64 bits.
    #[must_use]
    pub fn svma_of(&self, offset: FileOffset) -> Option<Svma> {
        self.segments
            .iter()
            .find(|s| offset.0 >= s.offset.0 && offset.0 - s.offset.0 < s.file_size)
            .and_then(|s| (offset.0 - s.offset.0).checked_add(s.svma.0))
            .map(Svma)
    }

    /// Where the byte at a stated address lies in the file; `None` outside every segment, and in memory that the file
    /// has no bytes for.
    #[must_use]
    pub fn file_offset_of(&self, address: Svma) -> Option<FileOffset> {
        self.segments
            .iter()
            .find(|s| address.0 >= s.svma.0 && address.0 - s.svma.0 < s.file_size)
            .and_then(|s| (address.0 - s.svma.0).checked_add(s.offset.0))
            .map(FileOffset)
    }

    /// How many bytes the file has from a stated address to the end of its segment; 0 outside every segment.
    #[must_use]
    pub fn bytes_from(&self, address: Svma) -> u64 {
        let left = |s: &Segment| s.file_size.checked_sub(address.0.checked_sub(s.svma.0)?);
        // The end of one segment can be the beginning of the next.
        self.segments.iter().filter_map(left).find(|left| *left > 0).unwrap_or(0)
    }

    /// What the loader added to the file's addresses in this mapping: `AVMA = SVMA + bias`, wrapping.
    ///
    /// A loader maps whole pages, so a mapping begins at the start of the page that holds its segment's first byte, or,
    /// where a part of the segment was given other rights, at a later page of it (System V ABI, program loading). Two
    /// segments can share a page of the file; the one with the mapping's right to execute is meant.
    #[must_use]
    pub fn bias(&self, mapping: &Mapping) -> Option<u64> {
        let page_mask = !(page_size() as u64 - 1);
        let shows = |s: &&Segment| {
            let end = s.offset.0.saturating_add(s.file_size);
            (s.offset.0 & page_mask..end).contains(&mapping.offset.0)
        };
        let candidates = || self.segments.iter().filter(shows);
        let segment =
            candidates().find(|s| s.executable == mapping.executable).or_else(|| candidates().next())?;
        let first_svma = segment.svma.0.wrapping_sub(segment.offset.0).wrapping_add(mapping.offset.0);
        Some(mapping.range.start.0.wrapping_sub(first_svma))
    }

    /// A path under which the kernel finds the very file that we hold, deleted or not, in whatever mount namespace.
    ///
    /// Both ways to attach a uprobe (`bpf_uprobe_multi_link_attach`, `create_local_trace_uprobe`) resolve it with
    /// `kern_path(.., LOOKUP_FOLLOW, ..)` in the calling thread, which follows this link to the open file itself. It
    /// holds good in our own process for as long as the module lives; `None` for what is no file.
    #[must_use]
    pub fn attach_path(&self) -> Option<PathBuf> {
        match &self.content {
            Content::File(file) => Some(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))),
            Content::Memory(_) => None,
        }
    }

    /// The whole content. Keep it no longer than needed: it may be a copy.
    ///
    /// # Errors
    /// Where the file cannot be read or mapped.
    pub fn data(&self) -> Result<ModuleData, TargetError> {
        let read = |file: &File| {
            let size = file.metadata()?.len();
            if size > COPY_LIMIT {
                return MappedFile::new(file).map(ModuleData::Mapped);
            }
            let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(ModuleData::Copied(bytes))
        };
        match &self.content {
            Content::File(file) => read(file).map_err(|error| self.unreadable(error)),
            Content::Memory(bytes) => Ok(ModuleData::Shared(Arc::clone(bytes))),
        }
    }

    /// `length` bytes from `offset`, without reading the rest.
    ///
    /// # Errors
    /// Where the file does not have them all.
    pub fn bytes_at(&self, offset: FileOffset, length: usize) -> Result<Vec<u8>, TargetError> {
        self.content.bytes_at(offset, length).map_err(|error| self.unreadable(error))
    }

    fn unreadable(&self, source: io::Error) -> TargetError {
        TargetError::Unreadable { path: self.path.clone(), source }
    }

    /// The last part of the path, for people.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }
}

impl Content {
    /// `length` bytes from `offset`; callers bound the length.
    pub(super) fn bytes_at(&self, offset: FileOffset, length: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::File(file) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset.0)?;
                Ok(bytes)
            }
            Self::Memory(bytes) => {
                let range =
                    usize::try_from(offset.0).ok().and_then(|start| Some(start..start.checked_add(length)?));
                let part = range.and_then(|range| bytes.get(range));
                part.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

/// The bytes of a module, however they were come by.
#[derive(Debug)]
pub enum ModuleData {
    /// Copied from a file of moderate size.
    Copied(Vec<u8>),
    /// A large file, mapped.
    Mapped(MappedFile),
    /// What the module holds in memory anyway.
    Shared(Arc<[u8]>),
}

impl Deref for ModuleData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Mapped(file) => file,
            Self::Shared(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::target::{address::Avma, maps::Maps};

    /// Text in the middle of a page that the read-only data before it shares, as lld lays files out.
    fn shared_pages() -> Module {
        let segment = |svma, offset, file_size, executable| Segment {
            svma: Svma(svma),
            offset: FileOffset(offset),
            file_size,
            executable,
        };
        Module {
            path: PathBuf::from("/a/b.so"),
            content: Content::Memory(Arc::from([1_u8, 2, 3, 4].as_slice())),
            build_id: None,
            segments: vec![
                segment(0, 0, 0x1840, false),
                segment(0x2840, 0x1840, 0x3000, true),
                segment(0x6840, 0x4840, 0x200, false),
            ],
            deleted: false,
        }
    }

    fn mapping(start: u64, offset: u64, executable: bool) -> Mapping {
        let permissions = if executable { "r-xp" } else { "r--p" };
        let line = format!("{start:x}-{:x} {permissions} {offset:08x} 00:00 0 ", start + 0x1000);
        Maps::parse(line.as_bytes()).mappings.remove(0)
    }

    #[test]
    fn the_bias_is_the_same_for_every_mapping_of_a_module() {
        let module = shared_pages();
        let load = 0x7f00_0000_0000;
        assert_eq!(module.bias(&mapping(load, 0, false)), Some(load));
        // The text's mapping begins with the last page of the data before it.
        assert_eq!(module.bias(&mapping(load + 0x2000, 0x1000, true)), Some(load));
        // A later part of the text, split off by mprotect.
        assert_eq!(module.bias(&mapping(load + 0x4000, 0x3000, true)), Some(load));
        assert_eq!(module.bias(&mapping(load + 0x6000, 0x4000, false)), Some(load));
        assert_eq!(module.bias(&mapping(load, 0x9000, true)), None);
        // A program that is not relocated has no bias; one moved down wraps.
        let mut fixed = shared_pages();
        fixed.segments.iter_mut().for_each(|segment| segment.svma.0 += 0x40_0000);
        assert_eq!(fixed.bias(&mapping(0x40_2000, 0x1000, true)), Some(0));
        assert_eq!(fixed.bias(&mapping(0x30_2000, 0x1000, true)), Some(0x10_0000_u64.wrapping_neg()));
    }

    #[test]
    fn addresses_and_offsets_are_each_others_inverse() {
        let module = shared_pages();
        for address in [0, 0x183f, 0x2840, 0x583f, 0x6840, 0x6a3f].map(Svma) {
            let offset = module.file_offset_of(address).unwrap();
            assert_eq!(module.svma_of(offset), Some(address));
        }
        assert_eq!(module.file_offset_of(Svma(0x2840)), Some(FileOffset(0x1840)));
        assert_eq!((module.bytes_from(Svma(0x2840)), module.bytes_from(Svma(0x6a3f))), (0x3000, 1));
        for outside in [0x1840, 0x283f, 0x5840, 0x6a40, u64::MAX] {
            assert_eq!(module.file_offset_of(Svma(outside)), None);
            assert_eq!(module.bytes_from(Svma(outside)), 0);
        }
    }

    #[test]
    fn a_segment_may_begin_where_another_ends() {
        let mut module = shared_pages();
        module.segments[0].file_size = 0x2840;
        assert_eq!(module.bytes_from(Svma(0x2840)), 0x3000);
        assert_eq!(module.bytes_from(Svma(0x283f)), 1);
    }

    #[test]
    fn segments_may_claim_any_addresses() {
        let segment = |svma, offset| Segment {
            svma: Svma(svma),
            offset: FileOffset(offset),
            file_size: u64::MAX,
            executable: true,
        };
        let mut module = shared_pages();
        module.segments = vec![segment(u64::MAX - 1, 1)];
        assert_eq!(module.svma_of(FileOffset(2)), Some(Svma(u64::MAX)));
        assert_eq!(module.svma_of(FileOffset(3)), None);
        module.segments = vec![segment(1, u64::MAX - 1)];
        assert_eq!(module.file_offset_of(Svma(2)), Some(FileOffset(u64::MAX)));
        assert_eq!(module.file_offset_of(Svma(3)), None);
    }

    #[test]
    fn our_own_bias_finds_our_own_function() {
        let us = crate::target::process::Process::open(std::process::id()).unwrap();
        let here = our_own_bias_finds_our_own_function as *const () as u64;
        let mapping = Maps::read(&us).unwrap().find(Avma(here)).cloned().unwrap();
        let module =
            crate::target::module_cache::ModuleCache::default().open(&us, &mapping).unwrap().unwrap();
        let svma = Svma(here.wrapping_sub(module.bias(&mapping).unwrap()));
        // The symbol table of our own program says where the function is.
        let data = module.data().unwrap();
        let file = object::File::parse(&*data).unwrap();
        let symbol = object::Object::symbol_map(&file).containing(svma.0).unwrap().name().to_owned();
        assert!(symbol.contains("our_own_bias_finds_our_own_function"), "{symbol}");
        // And its bytes in the file are those in memory.
        let offset = module.file_offset_of(svma).unwrap();
        let in_memory = crate::target::module_cache::read_memory(&us, here, 16).unwrap();
        assert_eq!(module.bytes_at(offset, 16).unwrap(), in_memory);
    }

    #[test]
    fn bytes_outside_are_an_error() {
        let module = shared_pages();
        assert_eq!(module.bytes_at(FileOffset(1), 2).unwrap(), [2, 3]);
        assert_eq!(*module.data().unwrap(), [1, 2, 3, 4]);
        for (offset, length) in [(1, 4), (u64::MAX, 1), (5, 0), (2, usize::MAX)] {
            assert!(module.bytes_at(FileOffset(offset), length).is_err());
        }
        assert_eq!(module.attach_path(), None);
    }
}
