//! What a report says of mapped memory: an account of its own, which is never added to that of the blocks. An allocator
//! gets its memory by mmap, so that the two overlap.

use std::{sync::Arc, time::Duration};

use super::units::{bytes, count, counted};
use crate::symbolize::frame::Frame;

/// Mapped memory: pieces of address space, whether anything was ever written there or not.
#[derive(Clone, Debug, Default)]
pub struct MappedMemory {
    /// Bytes mapped while the process was watched and not unmapped.
    pub inuse_space: u64,
    /// Pieces of those.
    pub inuse_pieces: u64,
    /// Bytes mapped by all calls.
    pub alloc_space: u64,
    /// The most bytes mapped at a time.
    pub peak_space: u64,
    /// Calls that succeeded, and those that failed.
    pub calls: MappingCalls,
    /// Calls of mmap and mremap that an allocator has made inside a call of its own. Their stacks end there.
    pub calls_inside_allocator: u64,
    /// The heap that grows by brk.
    pub heap: HeapGrowth,
    /// The sites, most mapped bytes first.
    pub sites: Vec<MappedSiteReport>,
}

/// Calls by function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MappingCalls {
    /// Of mmap.
    pub mmap: u64,
    /// Of munmap.
    pub munmap: u64,
    /// Of mremap.
    pub mremap: u64,
    /// Of any of them, without success.
    pub failed: u64,
    /// Successful calls of munmap and mremap on memory that is not known: older than the account, or mapped in a way
    /// that is not seen.
    pub unmatched: u64,
}

/// The `[heap]` of the process, in bytes: `None` where it could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeapGrowth {
    /// Its size when the probes came.
    pub at_begin: Option<u64>,
    /// Its size at the end.
    pub at_end: Option<u64>,
}

/// One site: a whole stack at a call of mmap or mremap.
#[derive(Clone, Debug)]
pub struct MappedSiteReport {
    /// Bytes mapped here and not unmapped.
    pub inuse_space: u64,
    /// Bytes mapped here by all calls.
    pub alloc_space: u64,
    /// Calls.
    pub alloc_calls: u64,
    /// Age of its oldest piece; `None` where it has none.
    pub oldest: Option<Duration>,
    /// Its pieces: first address and one past the last.
    pub ranges: Vec<(u64, u64)>,
    /// Leaf first.
    pub stack: Vec<Arc<Frame>>,
}

impl MappedMemory {
    /// Lines about the account as a whole.
    pub(super) fn facts(&self) -> Vec<String> {
        let calls = &self.calls;
        let mut lines = vec![
            format!(
                "mapped memory (with what allocators map): {} in {}; {} mapped in all, {} at most at a time",
                bytes(self.inuse_space),
                counted(self.inuse_pieces, "piece", "pieces"),
                bytes(self.alloc_space),
                bytes(self.peak_space)
            ),
            format!(
                "calls: {} of mmap, {} of munmap, {} of mremap, {} of the last two on memory that is not known; {} failed; {} \
                 that map were made by an allocator inside a call of its own",
                count(calls.mmap),
                count(calls.munmap),
                count(calls.mremap),
                count(calls.unmatched),
                count(calls.failed),
                count(self.calls_inside_allocator)
            ),
        ];
        let size = |size: Option<u64>| size.map_or_else(|| String::from("unknown"), bytes);
        lines.push(format!("heap (brk): {}, then {}", size(self.heap.at_begin), size(self.heap.at_end)));
        lines
    }
}
