//! Growth while a target is watched: which pages it had at the beginning, which it has now, and who touched them.

mod owners;
mod pages;
mod sampling;
mod switches;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use profiler_common::{
    counters::Counter,
    growth::{FAULT_SITE, SiteFaults},
    mappings::MappingEvent,
};

use self::{
    owners::Owners,
    pages::{Before, Look, place_of},
    sampling::FaultSampling,
};
use super::{observation::Observation, options::BudgetOptions};
use crate::{
    ledger::{
        breaks::{BreakSite, Breaks},
        growth::{Place, SitePages},
        moves::Moves,
    },
    probe::{Counters, ebpf::EbpfProbe, error::ProbeError},
    report::{
        growth::{BreakSiteReport, FaultCounts, GrowthReport, GrowthSiteReport, ResidentSet, Seen},
        profile::Quality,
    },
    symbolize::frame::Frame,
    target::{maps::Maps, memory, process::Process},
};

/// Time from one look at the pages to the next, at least.
const STEP: Duration = Duration::from_secs(1);
/// A look may take one part in so many of the time.
const SHARE: u32 = 50;
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
    pub(super) moves: Moves,
    /// Threads on which faults were first watched.
    threads: usize,
    /// Faults that the kernel had counted for the process by then.
    faults_before: Option<u64>,
    before: Before,
    last: Option<Look>,
    due: Instant,
    sampling: FaultSampling,
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
    pub(super) fn begin(process: &Process, budget: &BudgetOptions) -> Self {
        let before = Before::read(process).unwrap_or_default();
        Self {
            breaks: Breaks::new(end_of_heap(process)),
            moves: Moves::default(),
            threads: 0,
            faults_before: None,
            before,
            last: None,
            due: Instant::now() + STEP,
            sampling: FaultSampling::new(budget),
        }
    }

    /// Takes in one end of a call; whether it was one of brk, which is no concern of the mappings.
    pub(super) fn hear(&mut self, event: &MappingEvent) -> bool {
        self.moves.hear(event);
        let is_break = Breaks::is_of(event);
        if is_break {
            self.breaks.hear(event);
        }
        is_break
    }

    /// The account as it stands.
    pub(super) fn told(&self, probe: &EbpfProbe) -> Result<GrowthTold, ProbeError> {
        let mut faults = HashMap::new();
        probe.fault_sites(|site, of_site| {
            faults.insert(site, *of_site);
        })?;
        let none = HashMap::new();
        let pages = self.last.as_ref().map_or(&none, |look| &look.pages.residence.sites);
        // Where pages are sampled, of some it is known only that huge pages are theirs.
        pages.keys().for_each(|site| {
            faults.entry(*site).or_insert_with(SiteFaults::default);
        });
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
        quality.warnings.extend(self.sampling.warning());
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
        let look = self.last.as_ref();
        let errors = look.filter(|look| look.pages.one_in > 1).map(|look| &look.pages.errors);
        let sites = told.sites.into_iter().enumerate();
        let sites = sites.map(|(rank, (key, faults, pages))| GrowthSiteReport {
            faults: counts(faults),
            pages,
            error: errors.and_then(|errors| errors.get(&key).copied()),
            stack: stack_of(rank, key),
        });
        let sites = sites.collect();
        let breaks = told.breaks.into_iter().enumerate();
        let breaks = breaks.map(|(rank, (key, site))| BreakSiteReport { site, stack: stack_of(rank, key) });
        GrowthReport {
            threads: self.threads,
            faults: counts(sum),
            pages_lost: counters.get(Counter::TouchedPageLost),
            sampling: self.sampling.report(counters),
            before: resident_set(self.before.resident),
            seen: look.map(|look| Seen {
                after: look.after,
                resident: resident_set(look.resident),
                came: look.pages.came,
                one_in: look.pages.one_in,
                pages: look.pages.residence.total(),
                error: look.pages.error,
                unexplained: look.pages.residence.unexplained,
                went: self.before.count.saturating_sub(look.pages.residence.stayed),
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
        if self.growth.is_none() {
            return;
        }
        // What was mapped and moved by now is to be known.
        self.keep_up();
        let after = self.duration();
        let Some(growth) = &mut self.growth else { return };
        let began = Instant::now();
        let owners =
            Owners::read(&self.probe, &growth.moves, self.mapped.as_ref().map(|mapped| &mapped.account));
        if let Some(look) =
            owners.and_then(|owners| growth.before.compare(&self.process, &self.probe, &owners, after))
        {
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
