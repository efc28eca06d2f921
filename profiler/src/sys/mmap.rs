//! A file mapped into our own memory, to read parts of a large one without copying the whole.

use std::{fs::File, io, ops::Deref};

/// The content of a file, read-only. What is not touched is not read.
///
/// Should someone make the file shorter while it is mapped, touching what is gone raises SIGBUS, which ends us (never
/// the target). Package managers replace libraries by rename, which is harmless; small files are copied instead.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the whole file.
    ///
    /// # Errors
    /// Those of mmap(2); an empty file gives an empty mapping.
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private, read-only and unmapped on drop. Its bytes may change under us if someone
        // writes into the file: they are plain bytes without invalid values, every parser of them checks its bounds
        // against the slice's fixed length, and no unsafe code relies on what they say.
        let mapped = unsafe { memmap2::Mmap::map(file)? };
        Ok(Self(mapped))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_mapped_file_has_the_bytes_of_the_file() {
        let path = std::env::current_exe().unwrap();
        let mapped = MappedFile::new(&File::open(&path).unwrap()).unwrap();
        assert_eq!(*mapped, *std::fs::read(path).unwrap());
    }
}
