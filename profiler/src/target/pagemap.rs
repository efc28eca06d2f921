//! Which pages of a process are in memory: `/proc/PID/pagemap` and `/proc/kpageflags` (the kernel's
//! Documentation/admin-guide/mm/pagemap.rst).
//!
//! Whoever may inspect the process may read the first; where its pages lie in memory, and the second, only root may know.

use std::{fs::File, io, os::unix::fs::FileExt};

use memmap2::MmapOptions;

use super::{error::TargetError, process::Process};

/// Bytes of a page: x86-64 has no other base size.
pub const PAGE: u64 = 4096;
/// Pages of a huge page.
pub const PAGES_OF_HUGE: u64 = 512;
/// Pages that are read at once.
const AT_ONCE: u64 = 8192;
/// Bits of an entry of pagemap.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;
/// Ours, where the kernel has none: the page of zeros.
const ZEROS: u64 = 1 << 60;
const FRAME: u64 = (1 << 55) - 1;
/// Bit of kpageflags: part of a transparent huge page (`KPF_THP`).
const HUGE: u64 = 1 << 22;

/// What is known of one page of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageEntry(u64);

impl PageEntry {
    /// Whether it is in memory, and counts as the process's own: not of a file, and not shared.
    #[must_use]
    pub const fn is_anonymous(self) -> bool {
        self.0 & (PRESENT | FILE_OR_SHARED) == PRESENT
    }

    /// Whether it is in memory as part of a file or of shared memory.
    #[must_use]
    pub const fn is_of_file(self) -> bool {
        self.0 & (PRESENT | FILE_OR_SHARED) == PRESENT | FILE_OR_SHARED
    }

    /// Whether it was moved out of memory.
    #[must_use]
    pub const fn is_swapped(self) -> bool {
        self.0 & (PRESENT | SWAPPED) == SWAPPED
    }

    /// Whether it was read and never written: the page of zeros stands for it, which belongs to nobody.
    #[must_use]
    pub const fn is_zeros(self) -> bool {
        self.0 == ZEROS
    }

    /// Number of its page frame; 0 where we are not told.
    #[must_use]
    pub const fn frame(self) -> u64 {
        if self.0 & PRESENT == 0 { 0 } else { self.0 & FRAME }
    }
}

/// The pages of one process.
#[derive(Debug)]
pub struct Pagemap {
    entries: File,
    flags: Option<File>,
    /// Frame of the page of zeros.
    zeros: u64,
}

impl Pagemap {
    /// Opens the pages of a process.
    ///
    /// # Errors
    /// Where the process has ended, or we may not look.
    pub fn open(process: &Process) -> Result<Self, TargetError> {
        let path = process.memory_path("pagemap");
        let entries = File::open(&path).map_err(|error| process.explain(path, error))?;
        Ok(Self {
            entries,
            flags: File::open("/proc/kpageflags").ok(),
            zeros: page_of_zeros().unwrap_or_default(),
        })
    }

    /// Whether we are told which pages are parts of huge ones.
    #[must_use]
    pub fn knows_huge_pages(&self) -> bool {
        self.flags.is_some() && self.zeros != 0
    }

    /// Hands out the entries of the pages with these numbers, piece by piece: the number of the first page, and theirs.
    /// Pieces end where huge pages do.
    ///
    /// # Errors
    /// What reading answers. A process that has ended has no pages: nothing is handed out.
    pub fn read(
        &self,
        pages: std::ops::Range<u64>,
        mut each: impl FnMut(u64, &[PageEntry]),
    ) -> io::Result<()> {
        let mut bytes = vec![0_u8; usize::try_from(8 * AT_ONCE).unwrap_or(0)];
        let mut entries: Vec<PageEntry> = Vec::new();
        let mut first = pages.start;
        while first < pages.end {
            let until = pages.end.min((first / AT_ONCE).saturating_add(1).saturating_mul(AT_ONCE));
            let wanted = usize::try_from(until - first).unwrap_or(0) * 8;
            let buffer = bytes.get_mut(..wanted).unwrap_or_default();
            let read = self.entries.read_at(buffer, first.saturating_mul(8))? / 8 * 8;
            let words = bytes.get(..read).unwrap_or_default().chunks_exact(8);
            entries.clear();
            entries.extend(
                words.map(|word| self.entry(u64::from_ne_bytes(word.try_into().unwrap_or_default()))),
            );
            let mut at = first;
            let mut rest = entries.as_slice();
            while !rest.is_empty() {
                let to_end = usize::try_from(PAGES_OF_HUGE - at % PAGES_OF_HUGE).unwrap_or(1);
                let (piece, later) = rest.split_at(to_end.min(rest.len()));
                each(at, piece);
                at += piece.len() as u64;
                rest = later;
            }
            if read < wanted {
                break;
            }
            first = until;
        }
        Ok(())
    }

    /// Whether a page frame is part of a huge page.
    #[must_use]
    pub fn is_huge(&self, frame: u64) -> bool {
        let mut word = [0; 8];
        let flags = self.flags.as_ref().filter(|_| frame != 0);
        flags.is_some_and(|flags| flags.read_exact_at(&mut word, frame.saturating_mul(8)).is_ok())
            && u64::from_ne_bytes(word) & HUGE != 0
    }

    fn entry(&self, word: u64) -> PageEntry {
        let entry = PageEntry(word);
        if self.zeros != 0 && entry.frame() == self.zeros { PageEntry(ZEROS) } else { entry }
    }
}

/// Number of the frame with the page of zeros: the one behind memory of our own that we only read; `None` where we are not told.
fn page_of_zeros() -> Option<u64> {
    let memory = MmapOptions::new().len(usize::try_from(PAGE).ok()?).map_anon().ok()?;
    let _ = std::hint::black_box(memory.first().copied());
    let page = memory.as_ptr() as u64 / PAGE;
    let mut word = [0; 8];
    File::open("/proc/self/pagemap").ok()?.read_exact_at(&mut word, page * 8).ok()?;
    Some(PageEntry(u64::from_ne_bytes(word)).frame()).filter(|frame| *frame != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn pages_of_our_own() {
        let process = Process::open(std::process::id()).unwrap();
        let pagemap = Pagemap::open(&process).unwrap();
        let mut memory = MmapOptions::new().len(1300 * 4096).map_anon().unwrap();
        for page in (0..1300).step_by(2) {
            memory[page * 4096] = 1;
        }
        // What is read alone is not ours.
        assert_eq!(memory[4096], 0);
        let first = memory.as_ptr() as u64 / PAGE;
        let (mut all, mut pieces) = (Vec::new(), 0);
        pagemap
            .read(first..first + 1300, |at, entries| {
                assert_eq!(at, first + all.len() as u64);
                assert_eq!(at / PAGES_OF_HUGE, (at + entries.len() as u64 - 1) / PAGES_OF_HUGE);
                all.extend_from_slice(entries);
                pieces += 1;
            })
            .unwrap();
        assert!(pieces >= 3);
        assert_eq!(all.len(), 1300);
        if all.iter().any(|entry| entry.frame() != 0 && pagemap.is_huge(entry.frame())) {
            // The system makes huge pages of all memory.
            return;
        }
        for (page, entry) in all.iter().enumerate() {
            let zeros = page == 1 && pagemap.zeros == 0;
            assert_eq!(entry.is_anonymous(), page % 2 == 0 || zeros, "{page}");
            assert_eq!(entry.is_zeros(), page == 1 && !zeros, "{page}");
            assert!(!entry.is_of_file() && !entry.is_swapped());
        }
    }

    #[test]
    fn bits_of_an_entry() {
        let entry = |bits: u64| PageEntry(bits);
        assert!(entry(1 << 63 | 5).is_anonymous() && !entry(1 << 63 | 5).is_of_file());
        assert!(entry(3 << 61 | 1 << 63).is_of_file() && !entry(1 << 62 | 1 << 63).is_swapped());
        assert!(entry(1 << 62 | 7).is_swapped() && entry(1 << 62 | 7).frame() == 0);
        assert_eq!(entry(1 << 63 | 1 << 56 | 5).frame(), 5);
    }
}
