//! The pages of a process at the beginning of an observation, and what has become of them.

use std::time::Duration;

use profiler_common::{
    counters::Counter,
    growth::{is_chosen, is_in_chosen_block},
};

use super::{faults_of, owners::Owners};
use crate::{
    ledger::{
        growth::{PageState, Place, SeenPage},
        growth_sample::{Estimate, ResidenceSample, SampledPage},
    },
    probe::ebpf::EbpfProbe,
    target::{
        maps::{Mapping, MappingKind, Maps},
        memory,
        pagemap::{PAGE, PAGES_OF_HUGE, PageEntry, Pagemap},
        process::Process,
    },
};

/// Pages whose state is looked at, at most: 64 GiB of address space, whose entries are 128 MiB. What lies beyond is looked at
/// only where it was touched.
const MOST_PAGES: u64 = 1 << 24;
/// No user-space address is above this (47 bits): what the maps file lists there is the kernel's own page.
const LAST_PAGE: u64 = (1 << 47) / PAGE;

/// The pages at the beginning.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) resident: Option<memory::Resident>,
    /// Runs of pages that were looked at, ascending: the first one, and a bit for each that was in memory as the process's own.
    runs: Vec<(u64, Vec<u64>)>,
    pub(super) count: u64,
    /// Bytes that were not looked at.
    pub(super) skipped: u64,
}

/// The pages at a later moment.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) after: Duration,
    pub(super) resident: Option<memory::Resident>,
    pub(super) pages: Estimate,
    pub(super) skipped: u64,
    pub(super) knows_huge_pages: bool,
    /// Faults that the kernel has counted for the process, and those that were noted.
    pub(super) faults: Option<(u64, u64)>,
}

impl Before {
    pub(super) fn read(process: &Process) -> Option<Self> {
        let pagemap = Pagemap::open(process).ok()?;
        let maps = Maps::read(process).ok()?;
        let mut before = Self { resident: memory::resident(process), ..Self::default() };
        let mut left = MOST_PAGES;
        for mapping in maps.mappings.iter().filter(|mapping| is_private(mapping)) {
            let pages = pages_of(mapping);
            let length = pages.end.saturating_sub(pages.start);
            if length > left {
                before.skipped = before.skipped.saturating_add(length.saturating_mul(PAGE));
                continue;
            }
            left -= length;
            let mut bits = vec![0_u64; usize::try_from(length.div_ceil(64)).unwrap_or(0)];
            // What cannot be read was not there: it is unmapped by now.
            let _ = pagemap.read(pages.clone(), |at, entries| {
                for (page, entry) in (at - pages.start..).zip(entries) {
                    if entry.is_anonymous()
                        && let Some(word) = usize::try_from(page / 64).ok().and_then(|i| bits.get_mut(i))
                    {
                        *word |= 1 << (page % 64);
                        before.count += 1;
                    }
                }
            });
            before.runs.push((pages.start, bits));
        }
        Some(before)
    }

    pub(super) fn had(&self, page: u64) -> bool {
        let after = self.runs.partition_point(|(first, _)| *first <= page);
        let run = after.checked_sub(1).and_then(|index| self.runs.get(index));
        run.is_some_and(|(first, bits)| {
            let bit = page - first;
            let word = usize::try_from(bit / 64).ok().and_then(|index| bits.get(index));
            word.is_some_and(|word| word >> (bit % 64) & 1 == 1)
        })
    }

    /// Looks at the pages now; `None` where the process is gone.
    pub(super) fn compare(
        &self,
        process: &Process,
        probe: &EbpfProbe,
        owners: &Owners<'_>,
        after: Duration,
    ) -> Option<Look> {
        let pagemap = Pagemap::open(process).ok()?;
        let maps = Maps::read(process).ok().filter(|maps| !maps.mappings.is_empty())?;
        let resident = memory::resident(process);
        let counters = probe.counters().ok();
        let noted = counters.map(|counters| counters.get(Counter::PageFaults));
        let mut residence = ResidenceSample::new(1 << owners.shift);
        let mut look = Look {
            after,
            resident,
            pages: Estimate::default(),
            skipped: 0,
            knows_huge_pages: pagemap.knows_huge_pages(),
            faults: faults_of(process).zip(noted),
        };
        let mut left = MOST_PAGES;
        let mut rest = owners.touched.as_slice();
        for mapping in &maps.mappings {
            let pages = pages_of(mapping);
            let (outside, behind) = rest.split_at(rest.partition_point(|by| by.page < pages.start));
            owners.unmapped(outside, &mut residence);
            let (owned, later) = behind.split_at(behind.partition_point(|by| by.page < pages.end));
            rest = later;
            let place = place_of(mapping);
            let mut piece = |at: u64, entries: &[PageEntry]| {
                let seen = self.seen(&pagemap, owners, at, entries, &mut residence);
                residence.add(place, &seen);
            };
            let length = pages.end.saturating_sub(pages.start);
            if is_private(mapping) && length <= left {
                left -= length;
                let _ = pagemap.read(pages, &mut piece);
                continue;
            }
            for block in owned.chunk_by(|a, b| a.page / PAGES_OF_HUGE == b.page / PAGES_OF_HUGE) {
                let Some(first) = block.first() else { continue };
                let start = first.page / PAGES_OF_HUGE * PAGES_OF_HUGE;
                let around = start.max(pages.start)..start.saturating_add(PAGES_OF_HUGE).min(pages.end);
                let _ = pagemap.read(around, &mut piece);
            }
            if is_private(mapping) {
                look.skipped = look.skipped.saturating_add(mapping.size());
            }
        }
        owners.unmapped(rest, &mut residence);
        look.pages = residence.estimate();
        Some(look)
    }

    /// Neighbouring pages of at most one huge page, the first of which has the number `at`.
    fn seen(
        &self,
        pagemap: &Pagemap,
        owners: &Owners<'_>,
        at: u64,
        entries: &[PageEntry],
        residence: &mut ResidenceSample,
    ) -> Vec<SampledPage> {
        let piece = owners.of(at..at.saturating_add(entries.len() as u64));
        let mut huge = HugePages::default();
        let mut seen: Vec<SampledPage> = (at..)
            .zip(entries)
            .map(|(page, entry)| {
                let state = state_of(*entry);
                let (owner, origin) = piece.owner(page, state, residence);
                let seen = SeenPage { state, was_there: self.had(origin), owner, with: None };
                let is_chosen = is_chosen(origin, owners.shift);
                let is_in_block = is_in_chosen_block(origin, owners.shift);
                let is_asked = owners.shift > 0 && seen.has_come() && (is_chosen || is_in_block);
                let is_huge = is_asked && huge.has(pagemap, page, *entry);
                SampledPage { seen, is_chosen, is_in_block, is_huge }
            })
            .collect();
        let is_strange =
            |page: &SampledPage| page.seen.has_come() && page.seen.owner.is_none() && page.is_in_block;
        if !seen.iter().any(is_strange) {
            return seen;
        }
        // A huge page is one piece of memory, and has one fault.
        for (index, entry) in (0_u64..).zip(entries) {
            let Some(owner) = usize::try_from(index).ok().and_then(|at| seen.get(at)?.seen.owner) else {
                continue;
            };
            if !entry.is_anonymous() || !pagemap.is_huge(entry.frame()) {
                continue;
            }
            for (other, (page, neighbour)) in (0_u64..).zip(seen.iter_mut().zip(entries)) {
                let is_of_it = neighbour.frame().wrapping_add(index) == entry.frame().wrapping_add(other);
                if is_strange(page) && is_of_it {
                    page.seen.with = Some(owner);
                }
            }
        }
        seen
    }
}

/// Which pages are parts of a huge one, without asking of each.
#[derive(Default)]
struct HugePages {
    /// Number of the last frames of that size that was asked about, and the answer.
    last: Option<(u64, bool)>,
}

impl HugePages {
    /// What lies elsewhere than its number says within the frames of a huge page is none, or was moved, which takes it to pieces.
    fn has(&mut self, pagemap: &Pagemap, page: u64, entry: PageEntry) -> bool {
        let frame = entry.frame();
        if frame % PAGES_OF_HUGE != page % PAGES_OF_HUGE {
            return false;
        }
        match self.last {
            Some((frames, answer)) if frames == frame / PAGES_OF_HUGE => answer,
            _ => {
                let answer = pagemap.is_huge(frame);
                self.last = Some((frame / PAGES_OF_HUGE, answer));
                answer
            }
        }
    }
}

fn state_of(entry: PageEntry) -> PageState {
    if entry.is_anonymous() {
        PageState::Anonymous
    } else if entry.is_of_file() {
        PageState::File
    } else if entry.is_swapped() {
        PageState::Swapped
    } else if entry.is_zeros() {
        PageState::Zeros
    } else {
        PageState::Absent
    }
}

/// Whether it may hold pages that are the process's own.
fn is_private(mapping: &Mapping) -> bool {
    !mapping.shared && (mapping.readable || mapping.writable || mapping.executable)
}

fn pages_of(mapping: &Mapping) -> std::ops::Range<u64> {
    let (start, end) = (mapping.range.start.0 / PAGE, mapping.range.end.0 / PAGE);
    start.min(LAST_PAGE)..end.min(LAST_PAGE)
}

pub(super) fn place_of(mapping: &Mapping) -> Place {
    match &mapping.kind {
        _ if mapping.shared => Place::Shared,
        MappingKind::Special(name) if name == "[heap]" => Place::Heap,
        MappingKind::Special(name) if name == "[stack]" => Place::Stack,
        MappingKind::Special(_) | MappingKind::Anonymous => Place::Anonymous,
        MappingKind::File(_) if mapping.executable && !mapping.writable => Place::Code,
        MappingKind::File(_) => Place::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_beginning() {
        let before = Before { runs: vec![(100, vec![1 << 63, 1]), (1000, vec![2])], ..Before::default() };
        let had: Vec<u64> = (0..2000).filter(|page| before.had(*page)).collect();
        assert_eq!(had, [163, 164, 1001]);
        assert!(!Before::default().had(5));
    }
}
