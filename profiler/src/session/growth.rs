//! Growth while a target is watched: which pages it had at the beginning, which it has now, and who touched them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use profiler_common::{
    counters::Counter,
    growth::{FAULT_SITE, SiteFaults},
};

use super::observation::Observation;
use crate::{
    ledger::{
        breaks::{BreakSite, Breaks},
        growth::{PageState, Place, Residence, SeenPage, SitePages},
    },
    probe::{Counters, ebpf::EbpfProbe, error::ProbeError},
    report::{
        growth::{BreakSiteReport, FaultCounts, GrowthReport, GrowthSiteReport, ResidentSet, Seen},
        profile::Quality,
    },
    symbolize::frame::Frame,
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
/// Time from one look at the pages to the next, at least.
const STEP: Duration = Duration::from_secs(1);
/// A look may take one part in so many of the time.
const SHARE: u32 = 50;
/// No user-space address is above this (47 bits): what the maps file lists there is the kernel's own page.
const LAST_PAGE: u64 = (1 << 47) / PAGE;

/// Losses that are about allocations.
const OF_ALLOCATIONS: [Counter; 7] = [
    Counter::LiveMapFull,
    Counter::SiteMapFull,
    Counter::PendingMapFull,
    Counter::AddressClash,
    Counter::UnpairedReturn,
    Counter::ScratchBusy,
    Counter::ThreadNameLost,
];

/// What is kept of a target whose growth is watched.
#[derive(Debug)]
pub(super) struct Growth {
    pub(super) breaks: Breaks,
    /// Threads on which faults were first watched.
    threads: usize,
    /// Faults that the kernel had counted for the process by then.
    faults_before: Option<u64>,
    before: Before,
    last: Option<Look>,
    due: Instant,
}

/// The pages at the beginning.
#[derive(Debug, Default)]
struct Before {
    resident: Option<memory::Resident>,
    /// Runs of pages that were looked at, ascending: the first one, and a bit for each that was in memory as the process's own.
    runs: Vec<(u64, Vec<u64>)>,
    count: u64,
    /// Bytes that were not looked at.
    skipped: u64,
}

/// The pages at a later moment.
#[derive(Debug)]
struct Look {
    after: Duration,
    resident: Option<memory::Resident>,
    residence: Residence,
    skipped: u64,
    knows_huge_pages: bool,
    /// Faults that the kernel has counted for the process, and those that were noted.
    faults: Option<(u64, u64)>,
}

/// The account at one moment.
#[derive(Debug)]
pub(super) struct GrowthTold {
    /// With their keys, those that grew most first.
    pub(super) sites: Vec<(u64, SiteFaults, SitePages)>,
    pub(super) breaks: Vec<(u64, BreakSite)>,
}

impl GrowthTold {
    /// The keys of the first `most` sites of each kind.
    pub(super) fn keys(&self, most: usize) -> impl Iterator<Item = u64> {
        let faults = self.sites.iter().take(most).map(|(site, ..)| *site);
        faults.chain(self.breaks.iter().take(most).map(|(site, _)| *site))
    }
}

impl Growth {
    /// The pages and the heap as they are, before the probes come.
    pub(super) fn begin(process: &Process) -> Self {
        let before = Before::read(process).unwrap_or_default();
        Self {
            breaks: Breaks::new(end_of_heap(process)),
            threads: 0,
            faults_before: None,
            before,
            last: None,
            due: Instant::now() + STEP,
        }
    }

    /// The account as it stands.
    pub(super) fn told(&self, probe: &EbpfProbe) -> Result<GrowthTold, ProbeError> {
        let mut faults = HashMap::new();
        probe.fault_sites(|site, of_site| {
            faults.insert(site, *of_site);
        })?;
        let none = HashMap::new();
        let pages = self.last.as_ref().map_or(&none, |look| &look.residence.sites);
        let mut sites: Vec<_> = faults
            .into_iter()
            .map(|(site, faults)| (site, faults, pages.get(&site).copied().unwrap_or_default()))
            .collect();
        sites.sort_by_key(|(key, faults, pages)| {
            std::cmp::Reverse((pages.all(), faults.faults - faults.again.min(faults.faults), *key))
        });
        Ok(GrowthTold { sites, breaks: self.breaks.sites() })
    }

    /// Puts what was lost of page faults in the place of what is lost of allocations, of which none were seen.
    pub(super) fn tell_quality(&self, counters: &Counters, quality: &mut Quality) {
        for reason in OF_ALLOCATIONS {
            quality.lost.remove(reason.label());
        }
        quality.lost.remove("ledger_discrepancy");
        for (reason, lost) in [
            ("fault_site_map_full", counters.get(Counter::SiteMapFull)),
            ("fault_scratch_busy", counters.get(Counter::ScratchBusy)),
            (Counter::TouchedPageLost.label(), counters.get(Counter::TouchedPageLost)),
            ("brk_record_lost", self.breaks.lost),
        ] {
            quality.lost.insert(reason.to_owned(), lost);
        }
    }

    /// What a report says of it, with the stacks of the first `most` sites.
    pub(super) fn report(
        &self,
        told: GrowthTold,
        counters: &Counters,
        most: usize,
        mut stack: impl FnMut(u64) -> Vec<Arc<Frame>>,
    ) -> GrowthReport {
        let mut stack_of = |rank: usize, key: u64| if rank < most { stack(key) } else { Vec::new() };
        let sum = told.sites.iter().fold(SiteFaults::default(), |sum, (_, more, _)| SiteFaults {
            faults: sum.faults.saturating_add(more.faults),
            again: sum.again.saturating_add(more.again),
            major: sum.major.saturating_add(more.major),
        });
        let sites = told.sites.into_iter().enumerate();
        let sites = sites.map(|(rank, (key, faults, pages))| GrowthSiteReport {
            faults: counts(faults),
            pages,
            stack: stack_of(rank, key),
        });
        let sites = sites.collect();
        let breaks = told.breaks.into_iter().enumerate();
        let breaks = breaks.map(|(rank, (key, site))| BreakSiteReport { site, stack: stack_of(rank, key) });
        GrowthReport {
            threads: self.threads,
            faults: counts(sum),
            pages_lost: counters.get(Counter::TouchedPageLost),
            before: resident_set(self.before.resident),
            seen: self.last.as_ref().map(|look| Seen {
                after: look.after,
                resident: resident_set(look.resident),
                pages: look.residence.total(),
                unexplained: look.residence.unexplained,
                went: self.before.count.saturating_sub(look.residence.stayed),
                skipped: self.before.skipped.max(look.skipped),
                knows_huge_pages: look.knows_huge_pages,
                faults_not_told: look
                    .faults
                    .zip(self.faults_before)
                    .map(|((counted, noted), before)| counted.saturating_sub(before).saturating_sub(noted)),
            }),
            sites,
            breaks: breaks.collect(),
            breaks_failed: self.breaks.failed,
        }
    }
}

fn counts(faults: SiteFaults) -> FaultCounts {
    FaultCounts { all: faults.faults, again: faults.again, major: faults.major }
}

fn resident_set(resident: Option<memory::Resident>) -> ResidentSet {
    let memory::Resident { rss, anon, file, shmem, swap } = resident.unwrap_or_default();
    ResidentSet { all: rss, anon, file, shmem, swap }
}

impl Observation {
    /// Has the faults of all threads noted from now on.
    pub(super) fn begin_growth(&mut self) -> Result<(), ProbeError> {
        let Some(growth) = &mut self.growth else { return Ok(()) };
        growth.threads = self.probe.watch_faults(&self.process)?;
        growth.faults_before = faults_of(&self.process);
        Ok(())
    }

    /// Looks at the target's pages if it is time.
    pub(super) fn look_at_pages_in_time(&mut self) {
        if self.growth.as_ref().is_some_and(|growth| growth.due <= Instant::now()) {
            self.look_at_pages();
        }
    }

    /// Looks at the target's pages. What was seen last stays where the target is gone.
    pub(super) fn look_at_pages(&mut self) {
        let after = self.duration();
        let Some(growth) = &mut self.growth else { return };
        let began = Instant::now();
        if let Some(look) = growth.before.compare(&self.process, &self.probe, after) {
            growth.last = Some(look);
        }
        let now = Instant::now();
        growth.due = now + STEP.max(now.saturating_duration_since(began).saturating_mul(SHARE));
    }
}

/// Whether a site is one of a page fault.
pub(super) fn is_of_faults(allocator: u8) -> bool {
    allocator == FAULT_SITE
}

impl Before {
    fn read(process: &Process) -> Option<Self> {
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

    fn had(&self, page: u64) -> bool {
        let after = self.runs.partition_point(|(first, _)| *first <= page);
        let run = after.checked_sub(1).and_then(|index| self.runs.get(index));
        run.is_some_and(|(first, bits)| {
            let bit = page - first;
            let word = usize::try_from(bit / 64).ok().and_then(|index| bits.get(index));
            word.is_some_and(|word| word >> (bit % 64) & 1 == 1)
        })
    }

    /// Looks at the pages now; `None` where the process is gone.
    fn compare(&self, process: &Process, probe: &EbpfProbe, after: Duration) -> Option<Look> {
        let mut touched = Vec::new();
        probe.touched_pages(|page, by| touched.push((page, by.site))).ok()?;
        touched.sort_unstable();
        let pagemap = Pagemap::open(process).ok()?;
        let maps = Maps::read(process).ok().filter(|maps| !maps.mappings.is_empty())?;
        let resident = memory::resident(process);
        let counters = probe.counters().ok();
        let noted = counters.map(|counters| counters.get(Counter::PageFaults));
        let mut look = Look {
            after,
            resident,
            residence: Residence::default(),
            skipped: 0,
            knows_huge_pages: pagemap.knows_huge_pages(),
            faults: faults_of(process).zip(noted),
        };
        let mut left = MOST_PAGES;
        let mut rest = touched.as_slice();
        for mapping in &maps.mappings {
            let pages = pages_of(mapping);
            let (outside, behind) = rest.split_at(rest.partition_point(|(page, _)| *page < pages.start));
            outside.iter().for_each(|(_, site)| look.residence.unmapped(*site));
            let (owned, later) = behind.split_at(behind.partition_point(|(page, _)| *page < pages.end));
            rest = later;
            let place = place_of(mapping);
            let mut piece = |at: u64, entries: &[PageEntry]| {
                let from = owned.partition_point(|(page, _)| *page < at);
                let seen = self.seen(&pagemap, at, entries, owned.get(from..).unwrap_or_default());
                look.residence.add(place, &seen);
            };
            let length = pages.end.saturating_sub(pages.start);
            if is_private(mapping) && length <= left {
                left -= length;
                let _ = pagemap.read(pages, &mut piece);
                continue;
            }
            for block in owned.chunk_by(|(a, _), (b, _)| a / PAGES_OF_HUGE == b / PAGES_OF_HUGE) {
                let Some((first, _)) = block.first() else { continue };
                let start = first / PAGES_OF_HUGE * PAGES_OF_HUGE;
                let around = start.max(pages.start)..start.saturating_add(PAGES_OF_HUGE).min(pages.end);
                let _ = pagemap.read(around, &mut piece);
            }
            if is_private(mapping) {
                look.skipped = look.skipped.saturating_add(mapping.size());
            }
        }
        rest.iter().for_each(|(_, site)| look.residence.unmapped(*site));
        Some(look)
    }

    /// Neighbouring pages of at most one huge page, the first of which has the number `at`; `owned` begins with the first that
    /// has an owner.
    fn seen(&self, pagemap: &Pagemap, at: u64, entries: &[PageEntry], owned: &[(u64, u64)]) -> Vec<SeenPage> {
        let mut owned = owned.iter().copied().peekable();
        let mut seen: Vec<SeenPage> = (at..)
            .zip(entries)
            .map(|(page, entry)| SeenPage {
                state: state_of(*entry),
                was_there: self.had(page),
                owner: owned.next_if(|(with_owner, _)| *with_owner == page).map(|(_, site)| site),
                with: None,
            })
            .collect();
        let is_strange =
            |page: &SeenPage| page.state == PageState::Anonymous && !page.was_there && page.owner.is_none();
        if !seen.iter().any(is_strange) {
            return seen;
        }
        // A huge page is one piece of memory, and has one fault.
        for (index, entry) in (0_u64..).zip(entries) {
            let Some(owner) = usize::try_from(index).ok().and_then(|at| seen.get(at)?.owner) else {
                continue;
            };
            if !entry.is_anonymous() || !pagemap.is_huge(entry.frame()) {
                continue;
            }
            for (other, (page, neighbour)) in (0_u64..).zip(seen.iter_mut().zip(entries)) {
                let is_of_it = neighbour.frame().wrapping_add(index) == entry.frame().wrapping_add(other);
                if is_strange(page) && is_of_it {
                    page.with = Some(owner);
                }
            }
        }
        seen
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

fn place_of(mapping: &Mapping) -> Place {
    match &mapping.kind {
        _ if mapping.shared => Place::Shared,
        MappingKind::Special(name) if name == "[heap]" => Place::Heap,
        MappingKind::Special(name) if name == "[stack]" => Place::Stack,
        MappingKind::Special(_) | MappingKind::Anonymous => Place::Anonymous,
        MappingKind::File(_) if mapping.executable && !mapping.writable => Place::Code,
        MappingKind::File(_) => Place::File,
    }
}

/// Where the heap ends; where there is none, where it will begin (`start_brk` of /proc/PID/stat).
fn end_of_heap(process: &Process) -> Option<u64> {
    let maps = Maps::read(process).ok()?;
    let heap = maps.mappings.iter().filter(|mapping| place_of(mapping) == Place::Heap);
    let end = heap.map(|mapping| mapping.range.end.0).max();
    end.or_else(|| stat(process, 47).filter(|start| *start != 0))
}

/// Page faults of all threads that the process has and had, minor and major.
fn faults_of(process: &Process) -> Option<u64> {
    stat(process, 10)?.checked_add(stat(process, 12)?)
}

/// A field of `/proc/PID/stat` by its number (proc_pid_stat(5)).
fn stat(process: &Process, field: usize) -> Option<u64> {
    let (stat, _) = process.read("stat", 4096).ok()?;
    let stat = String::from_utf8_lossy(&stat).into_owned();
    // The second one, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(field.checked_sub(3)?)?.parse().ok()
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
