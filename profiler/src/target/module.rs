//! A file with code that the target has mapped, held open so that it can be read after the target is gone.

use std::{fs::File, path::PathBuf, sync::Arc};

use super::address::{FileOffset, Svma};

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
    /// The stated address of the byte at `offset`, by the program headers; `None` outside every segment.
    #[must_use]
    pub fn svma_of(&self, offset: FileOffset) -> Option<Svma> {
        self.segments
            .iter()
            .find(|s| offset.0 >= s.offset.0 && offset.0 - s.offset.0 < s.file_size)
            .map(|s| Svma(offset.0 - s.offset.0 + s.svma.0))
    }

    /// The last part of the path, for people.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }
}
