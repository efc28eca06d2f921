//! The part of the JSON report that is about mapped memory.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{
    json::stack,
    mapped::{MappedMemory, MappedSiteReport},
};
use crate::symbolize::frame::Frame;

#[derive(Serialize)]
pub(super) struct MappingsView<'a> {
    inuse_space: u64,
    inuse_pieces: u64,
    alloc_space: u64,
    peak_space: u64,
    calls: CallsView,
    calls_inside_allocator: u64,
    brk: HeapView,
    #[serde(serialize_with = "sites")]
    sites: &'a [MappedSiteReport],
}

#[derive(Serialize)]
struct CallsView {
    mmap: u64,
    munmap: u64,
    mremap: u64,
    failed: u64,
    unmatched: u64,
}

#[derive(Serialize)]
struct HeapView {
    begin_space: Option<u64>,
    end_space: Option<u64>,
}

#[derive(Serialize)]
struct Site<'a> {
    inuse_space: u64,
    alloc_space: u64,
    alloc_calls: u64,
    oldest_seconds: Option<f64>,
    #[serde(serialize_with = "ranges")]
    ranges: &'a [(u64, u64)],
    #[serde(serialize_with = "stack")]
    stack: &'a [Arc<Frame>],
}

impl<'a> MappingsView<'a> {
    pub(super) fn of(mapped: &'a MappedMemory) -> Self {
        let MappedMemory { calls, heap, .. } = mapped;
        Self {
            inuse_space: mapped.inuse_space,
            inuse_pieces: mapped.inuse_pieces,
            alloc_space: mapped.alloc_space,
            peak_space: mapped.peak_space,
            calls: CallsView {
                mmap: calls.mmap,
                munmap: calls.munmap,
                mremap: calls.mremap,
                failed: calls.failed,
                unmatched: calls.unmatched,
            },
            calls_inside_allocator: mapped.calls_inside_allocator,
            brk: HeapView { begin_space: heap.at_begin, end_space: heap.at_end },
            sites: &mapped.sites,
        }
    }
}

fn sites<S: Serializer>(sites: &[MappedSiteReport], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sites.iter().map(|site| Site {
        inuse_space: site.inuse_space,
        alloc_space: site.alloc_space,
        alloc_calls: site.alloc_calls,
        oldest_seconds: site.oldest.map(|age| age.as_secs_f64()),
        ranges: &site.ranges,
        stack: &site.stack,
    }))
}

/// As /proc/PID/maps writes addresses, with what says that they are hexadecimal.
fn ranges<S: Serializer>(ranges: &[(u64, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ranges.iter().map(|(start, end)| [format!("{start:#x}"), format!("{end:#x}")]))
}
