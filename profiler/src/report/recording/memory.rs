//! Accounts beside that of the blocks: mapped memory, and Python's pools. Their messages, and what they stand for.
#![expect(
    missing_docs,
    reason = "docs/hscope.proto documents each field; a second copy would only differ from it"
)]

use std::{sync::Arc, time::Duration};

use prost::Message;

use super::encode::{nanoseconds, text};
use crate::{
    report::{
        mapped::{HeapGrowth, MappedMemory, MappedSiteReport, MappingCalls},
        pools::{PoolSiteReport, PythonMemory},
    },
    symbolize::frame::Frame,
};

/// Ranges of mapped memory in one message.
const RANGES: usize = 1 << 13;

#[derive(Clone, PartialEq, Message)]
pub struct MappedSite {
    #[prost(uint64, tag = "1")]
    pub inuse_space: u64,
    #[prost(uint64, tag = "2")]
    pub alloc_space: u64,
    #[prost(uint64, tag = "3")]
    pub alloc_calls: u64,
    #[prost(uint64, optional, tag = "4")]
    pub oldest_ns: Option<u64>,
    #[prost(uint64, repeated, tag = "5")]
    pub ranges: Vec<u64>,
    #[prost(uint32, repeated, tag = "6")]
    pub stack: Vec<u32>,
    #[prost(bool, tag = "7")]
    pub continued: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Mapped {
    #[prost(uint64, tag = "1")]
    pub inuse_space: u64,
    #[prost(uint64, tag = "2")]
    pub inuse_pieces: u64,
    #[prost(uint64, tag = "3")]
    pub alloc_space: u64,
    #[prost(uint64, tag = "4")]
    pub peak_space: u64,
    #[prost(uint64, tag = "5")]
    pub mmap_calls: u64,
    #[prost(uint64, tag = "6")]
    pub munmap_calls: u64,
    #[prost(uint64, tag = "7")]
    pub mremap_calls: u64,
    #[prost(uint64, tag = "8")]
    pub failed_calls: u64,
    #[prost(uint64, tag = "9")]
    pub unmatched_calls: u64,
    #[prost(uint64, tag = "10")]
    pub calls_inside_allocator: u64,
    #[prost(uint64, optional, tag = "11")]
    pub heap_at_begin: Option<u64>,
    #[prost(uint64, optional, tag = "12")]
    pub heap_at_end: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pools {
    #[prost(string, tag = "1")]
    pub allocator: String,
    #[prost(bool, tag = "2")]
    pub counted: bool,
    #[prost(bool, tag = "3")]
    pub watched: bool,
    #[prost(uint64, tag = "4")]
    pub pool_size: u64,
    #[prost(uint64, optional, tag = "5")]
    pub all_pools: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    pub all_objects: Option<u64>,
    #[prost(uint64, optional, tag = "7")]
    pub all_object_space: Option<u64>,
    #[prost(uint64, tag = "8")]
    pub unseen_pools: u64,
    #[prost(bool, tag = "9")]
    pub read: bool,
    #[prost(uint64, tag = "10")]
    pub opened: u64,
    #[prost(uint64, tag = "11")]
    pub inuse_pools: u64,
    #[prost(uint64, tag = "12")]
    pub inuse_objects: u64,
    #[prost(uint64, tag = "13")]
    pub inuse_object_space: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct PoolSite {
    #[prost(uint64, tag = "1")]
    pub opened: u64,
    #[prost(uint64, tag = "2")]
    pub inuse_pools: u64,
    #[prost(uint64, tag = "3")]
    pub inuse_objects: u64,
    #[prost(uint64, tag = "4")]
    pub inuse_object_space: u64,
    #[prost(uint64, optional, tag = "5")]
    pub oldest_ns: Option<u64>,
    #[prost(uint32, repeated, tag = "6")]
    pub stack: Vec<u32>,
}

/// A site of mapped memory, its ranges in several messages where they are many.
pub(super) fn mapped_site(site: &MappedSiteReport, stack: Vec<u32>) -> Vec<MappedSite> {
    let ranges = |ranges: &[(u64, u64)]| ranges.iter().flat_map(|(begin, end)| [*begin, *end]).collect();
    let (first, rest) = site.ranges.split_at(site.ranges.len().min(RANGES));
    let head = MappedSite {
        inuse_space: site.inuse_space,
        alloc_space: site.alloc_space,
        alloc_calls: site.alloc_calls,
        oldest_ns: site.oldest.map(nanoseconds),
        ranges: ranges(first),
        stack,
        continued: false,
    };
    let more = rest.chunks(RANGES).map(|part| MappedSite {
        ranges: ranges(part),
        continued: true,
        ..MappedSite::default()
    });
    std::iter::once(head).chain(more).collect()
}

pub(super) fn pool_site(site: &PoolSiteReport, stack: Vec<u32>) -> PoolSite {
    PoolSite {
        opened: site.opened,
        inuse_pools: site.inuse_pools,
        inuse_objects: site.inuse_objects,
        inuse_object_space: site.inuse_object_space,
        oldest_ns: site.oldest.map(nanoseconds),
        stack,
    }
}

impl Mapped {
    pub(super) fn of(mapped: &MappedMemory) -> Self {
        Self {
            inuse_space: mapped.inuse_space,
            inuse_pieces: mapped.inuse_pieces,
            alloc_space: mapped.alloc_space,
            peak_space: mapped.peak_space,
            mmap_calls: mapped.calls.mmap,
            munmap_calls: mapped.calls.munmap,
            mremap_calls: mapped.calls.mremap,
            failed_calls: mapped.calls.failed,
            unmatched_calls: mapped.calls.unmatched,
            calls_inside_allocator: mapped.calls_inside_allocator,
            heap_at_begin: mapped.heap.at_begin,
            heap_at_end: mapped.heap.at_end,
        }
    }

    pub(super) fn decode(
        &self,
        sites: &[MappedSite],
        stack: impl Fn(&[u32]) -> Vec<Arc<Frame>>,
    ) -> MappedMemory {
        let mut mapped = MappedMemory {
            inuse_space: self.inuse_space,
            inuse_pieces: self.inuse_pieces,
            alloc_space: self.alloc_space,
            peak_space: self.peak_space,
            calls: MappingCalls {
                mmap: self.mmap_calls,
                munmap: self.munmap_calls,
                mremap: self.mremap_calls,
                failed: self.failed_calls,
                unmatched: self.unmatched_calls,
            },
            calls_inside_allocator: self.calls_inside_allocator,
            heap: HeapGrowth { at_begin: self.heap_at_begin, at_end: self.heap_at_end },
            sites: Vec::new(),
        };
        for site in sites {
            let ranges = site.ranges.as_chunks::<2>().0.iter().map(|[begin, end]| (*begin, *end));
            match mapped.sites.last_mut().filter(|_| site.continued) {
                Some(last) => last.ranges.extend(ranges),
                None => mapped.sites.push(MappedSiteReport {
                    inuse_space: site.inuse_space,
                    alloc_space: site.alloc_space,
                    alloc_calls: site.alloc_calls,
                    oldest: site.oldest_ns.map(Duration::from_nanos),
                    ranges: ranges.collect(),
                    stack: stack(&site.stack),
                }),
            }
        }
        mapped
    }
}

impl Pools {
    pub(super) fn of(python: &PythonMemory) -> Self {
        Self {
            allocator: text(&python.allocator),
            counted: python.counted,
            watched: python.watched,
            pool_size: python.pool_size,
            all_pools: python.all_pools,
            all_objects: python.all_objects,
            all_object_space: python.all_object_space,
            unseen_pools: python.unseen_pools,
            read: python.read,
            opened: python.opened,
            inuse_pools: python.inuse_pools,
            inuse_objects: python.inuse_objects,
            inuse_object_space: python.inuse_object_space,
        }
    }

    pub(super) fn decode(
        &self,
        sites: &[PoolSite],
        stack: impl Fn(&[u32]) -> Vec<Arc<Frame>>,
    ) -> PythonMemory {
        let site = |site: &PoolSite| PoolSiteReport {
            opened: site.opened,
            inuse_pools: site.inuse_pools,
            inuse_objects: site.inuse_objects,
            inuse_object_space: site.inuse_object_space,
            oldest: site.oldest_ns.map(Duration::from_nanos),
            stack: stack(&site.stack),
        };
        PythonMemory {
            allocator: self.allocator.clone(),
            counted: self.counted,
            watched: self.watched,
            pool_size: self.pool_size,
            all_pools: self.all_pools,
            all_objects: self.all_objects,
            all_object_space: self.all_object_space,
            unseen_pools: self.unseen_pools,
            read: self.read,
            opened: self.opened,
            inuse_pools: self.inuse_pools,
            inuse_objects: self.inuse_objects,
            inuse_object_space: self.inuse_object_space,
            sites: sites.iter().map(site).collect(),
        }
    }
}
