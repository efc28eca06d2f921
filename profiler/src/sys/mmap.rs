//! A file mapped into our own memory, to read parts of a large one without copying the whole.

use std::{fs::File, io, ops::Deref};

mod guard;

/// The content of a file, read-only. What is not touched is not read.
///
/// Should someone make the file shorter while it is mapped, what is gone reads as zeros and [`Self::was_cut`] tells so.
#[derive(Debug)]
pub struct MappedFile {
    // Dropped in this order: while the mapping is there, its guard is.
    map: memmap2::Mmap,
    guard: Option<guard::Guard>,
}

impl MappedFile {
    /// Maps the whole file.
    ///
    /// # Errors
    /// Those of mmap(2), and where more than [`guard::MOST`] files are mapped at once; an empty file gives an empty
    /// mapping.
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private, read-only and unmapped on drop. Its bytes may change under us if someone
        // writes into the file: they are plain bytes without invalid values, every parser of them checks its bounds
        // against the slice's fixed length, and no unsafe code relies on what they say. Bytes that the file loses are
        // replaced by zeros (`guard`).
        let map = unsafe { memmap2::Mmap::map(file)? };
        let guard = if map.is_empty() { None } else { Some(guard::Guard::over(&map)?) };
        Ok(Self { map, guard })
    }

    /// Whether bytes were asked for that the file did not have any more, or that could not be read from the disk. What
    /// was made of this content must not be believed then.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        self.guard.as_ref().is_some_and(guard::Guard::was_cut)
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
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
        assert!(!mapped.was_cut());
    }

    #[test]
    fn what_a_file_loses_reads_as_zeros() {
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 40960], 0).unwrap();
        let mapped = MappedFile::new(&file).unwrap();
        let beside = MappedFile::new(&file).unwrap();
        assert_eq!(mapped[0], 7);
        file.set_len(4096).unwrap();
        assert_eq!(mapped[4095], 7);
        assert!(!mapped.was_cut());
        assert_eq!((mapped[8192], mapped[40959], mapped[4096], mapped[4095]), (0, 0, 0, 7));
        assert!(mapped.was_cut());
        assert!(!beside.was_cut(), "each mapping has its own mark");
        drop(mapped);
        // The place in the table is taken again, with a clean mark.
        let again = MappedFile::new(&file).unwrap();
        assert_eq!(again.len(), 4096);
        assert!(!again.was_cut());
    }
}
