//! Mapped memory while a target is watched: what the probes tell of it, and the heap that grows by brk.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use profiler_common::counters::Counter;

use super::observation::Observation;
use crate::{
    ledger::mappings::{MappedSite, MappingCounts, Mappings},
    probe::Counters,
    report::{
        mapped::{HeapGrowth, MappedMemory, MappedSiteReport, MappingCalls},
        profile::Quality,
    },
    symbolize::frame::Frame,
    sys::clock::monotonic_nanoseconds,
    target::{
        maps::{MappingKind, Maps},
        process::Process,
    },
};

/// How the stack of a mapping ended that was made inside an allocator's call: at the return address that the kernel has
/// put in the place of the allocator's caller, for our own probe at the allocator's return. Beside
/// `profiler_common::records::walk_end`.
pub(super) const INSIDE_AN_ALLOCATOR: u8 = 0x80;

/// Whether a stack that ended outside every mapping ended there: the kernel's trampoline for return probes is the first
/// instruction of a page (`xol_get_trampoline` of kernel/events/uprobes.c).
pub(super) fn ends_at_a_return_probe(frames: &[u64]) -> bool {
    frames.last().is_some_and(|last| last.is_multiple_of(4096))
}

/// Where calls fail time and again, the list of mappings is read so often at most; and at the end.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// The account of mapped memory, and what belongs to it.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) account: Mappings,
    /// Functions that are probed.
    pub(super) functions: usize,
    heap: HeapGrowth,
    looked: Option<Instant>,
}

/// The account at one moment.
#[derive(Debug)]
pub(super) struct Told {
    /// Sites with their keys, most mapped bytes first.
    pub(super) sites: Vec<(u64, MappedSite)>,
    total: MappedSite,
    counts: MappingCounts,
    heap: HeapGrowth,
}

impl Mapped {
    /// An empty account, and the heap as it is now.
    pub(super) fn begin(process: &Process) -> Self {
        let heap = heap_of(process);
        Self {
            account: Mappings::default(),
            functions: 0,
            heap: HeapGrowth { at_begin: heap, at_end: heap },
            looked: None,
        }
    }

    /// Whether no call has mapped anything.
    pub(super) fn is_empty(&self) -> bool {
        let counts = self.account.counts();
        counts.maps + counts.remaps == 0
    }

    /// The account as it stands.
    pub(super) fn told(&self) -> Told {
        let (sites, total) = self.account.sites();
        Told { sites, total, counts: *self.account.counts(), heap: self.heap }
    }

    /// Adds what was lost, and what is not seen.
    /// `inside` calls were made inside an allocator's: that their stacks end there is no loss.
    pub(super) fn tell_quality(&self, counters: &Counters, inside: u64, quality: &mut Quality) {
        if let Some(incomplete) = quality.incomplete_stacks.get_mut(Counter::StackNoMapping.label()) {
            *incomplete = incomplete.saturating_sub(inside);
        }
        let counts = self.account.counts();
        let lost = counters.get(Counter::MappingRecordLost);
        // A call of which a record was lost has lost its other end with it.
        let unpaired = counts.unpaired.saturating_sub(lost);
        for (reason, lost) in [
            (Counter::MappingRecordLost.label(), lost),
            ("mapping_unpaired", unpaired),
            ("mapping_declined", counts.declined),
            ("mapping_unmap_unseen", counts.unseen_unmaps),
            ("mapping_corrected", counts.corrected),
            ("mapping_in_doubt", self.account.bytes_in_doubt()),
        ] {
            quality.lost.insert(reason.to_owned(), lost);
        }
        if self.functions == 0 {
            let said = "No mmap was found to be watched: the process has no C library that names it.";
            quality.warnings.push(said.into());
        }
    }
}

impl Told {
    /// Calls of the sites that `wanted` holds for.
    pub(super) fn calls_of(&self, wanted: impl Fn(&u64) -> bool) -> u64 {
        self.sites.iter().filter(|(site, _)| wanted(site)).map(|(_, site)| site.alloc_calls).sum()
    }

    /// What a report says of it, with the stacks of the first `most` sites; `now` is `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) fn report(
        self,
        most: usize,
        now: u64,
        mut stack: impl FnMut(u64) -> Vec<Arc<Frame>>,
    ) -> MappedMemory {
        let counts = self.counts;
        let sites = self.sites.into_iter().enumerate().map(|(rank, (key, site))| MappedSiteReport {
            inuse_space: site.inuse_space,
            alloc_space: site.alloc_space,
            alloc_calls: site.alloc_calls,
            oldest: site.oldest_born.map(|born| Duration::from_nanos(now.saturating_sub(born))),
            ranges: site.ranges,
            stack: if rank < most { stack(key) } else { Vec::new() },
        });
        MappedMemory {
            inuse_space: self.total.inuse_space,
            inuse_pieces: self.total.ranges.len() as u64,
            alloc_space: self.total.alloc_space,
            peak_space: counts.peak_space,
            calls: MappingCalls {
                mmap: counts.maps,
                munmap: counts.unmaps,
                mremap: counts.remaps,
                failed: counts.failed,
                unmatched: counts.unmatched,
            },
            calls_inside_allocator: 0,
            heap: self.heap,
            sites: sites.collect(),
        }
    }
}

impl Observation {
    /// Takes in what the probes have told of mappings, and looks where a call that failed has left a doubt.
    pub(super) fn hear_mappings(&mut self) {
        self.hear_mapping_events();
        let Some(mapped) = &mut self.mapped else { return };
        let is_due = || mapped.looked.is_none_or(|looked| looked.elapsed() >= BETWEEN_LOOKS);
        if mapped.account.is_in_doubt() && is_due() {
            self.settle_mappings();
        }
    }

    /// Reads what is mapped, if there is a doubt, and brings the account in line with it.
    fn settle_mappings(&mut self) {
        let Some(mapped) = &mut self.mapped else { return };
        mapped.looked = Some(Instant::now());
        let before = monotonic_nanoseconds();
        let Some(ranges) = mapped_ranges(&self.process) else { return };
        // What is gone from the list because a later call unmapped it has been told by now.
        self.hear_mapping_events();
        if let Some(mapped) = &mut self.mapped {
            mapped.account.reconcile(&ranges, before);
        }
    }

    /// Takes in the calls that the kernel has told of.
    fn hear_mapping_events(&mut self) {
        let (Some(mapped), growth) = (&mut self.mapped, &mut self.growth) else { return };
        self.probe.mapping_events(|event| {
            if growth.as_mut().is_none_or(|growth| !growth.hear(event)) {
                mapped.account.hear(event);
            }
        });
    }

    /// Reads what only a living target tells: how large the heap is, and what is mapped, if there is a doubt. What it was
    /// last stays where the target is gone.
    pub(super) fn note_memory(&mut self) {
        let Some(mapped) = &mut self.mapped else { return };
        if let Some(heap) = heap_of(&self.process) {
            mapped.heap.at_end = Some(heap);
        }
        self.hear_mapping_events();
        if self.mapped.as_ref().is_some_and(|mapped| mapped.account.is_in_doubt()) {
            self.settle_mappings();
        }
        // What comes until the probes are out is looked at again.
        if let Some(mapped) = &mut self.mapped {
            mapped.looked = None;
        }
    }
}

/// All addresses that are mapped, ascending; `None` where the process is gone, or has more than we read.
fn mapped_ranges(process: &Process) -> Option<Vec<(u64, u64)>> {
    let maps = Maps::read(process).ok().filter(|maps| !maps.mappings.is_empty())?;
    let whole = !maps.truncated && maps.damaged_lines == 0;
    whole.then(|| maps.mappings.iter().map(|mapping| (mapping.range.start.0, mapping.range.end.0)).collect())
}

/// Bytes of the process's `[heap]`, which a program may have cut in pieces; 0 where it has none yet.
fn heap_of(process: &Process) -> Option<u64> {
    let maps = Maps::read(process).ok().filter(|maps| !maps.mappings.is_empty())?;
    let is_heap = |kind: &MappingKind| matches!(kind, MappingKind::Special(name) if name == "[heap]");
    let heap = || maps.mappings.iter().filter(|mapping| is_heap(&mapping.kind)).map(|mapping| &mapping.range);
    let start = heap().map(|range| range.start.0).min().unwrap_or(0);
    let end = heap().map(|range| range.end.0).max().unwrap_or(0);
    Some(end.saturating_sub(start))
}
