//! What a report says of growth: whose pages came, by page faults, and by whom the heap was made larger.
//!
//! Nothing here is about blocks: a page is the process's as soon as it is touched, and stays until it is given back, whatever
//! its allocator says of it.

mod json;
mod table;

use std::{sync::Arc, time::Duration};

pub(super) use self::{json::write as write_json, table::write as write_table};
use super::{
    profile::Profile,
    units::{bytes, count, span},
};
use crate::{
    ledger::{
        breaks::BreakSite,
        growth::{PLACES, Place, SitePages},
    },
    symbolize::frame::Frame,
};

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// What one site, or all of them, had of page faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounts {
    /// All.
    pub all: u64,
    /// On pages that had been touched since the attach.
    pub again: u64,
    /// With a page that had to be read from a disk.
    pub major: u64,
}

impl FaultCounts {
    /// Pages that were touched the first time since the attach.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.all.saturating_sub(self.again)
    }
}

/// Resident memory as the kernel counts it, in bytes; `None` for what it does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ResidentSet {
    /// All of it.
    pub all: Option<u64>,
    /// Anonymous memory.
    pub anon: Option<u64>,
    /// Pages of files.
    pub file: Option<u64>,
    /// Shared memory.
    pub shmem: Option<u64>,
    /// What was moved out.
    pub swap: Option<u64>,
}

/// What the process's pages were when they were looked at last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// When, from the attach.
    pub after: Duration,
    /// What the kernel says of them.
    pub resident: ResidentSet,
    /// Pages that came, by [`Place::ALL`]: all of them, whether they were in the sample or not.
    pub came: [u64; PLACES],
    /// Of so many pages one was in the sample then; 1 where all were, and then nothing here is an estimate.
    pub one_in: u64,
    /// Sums over all sites; estimates where pages were sampled.
    pub pages: SitePages,
    /// Standard error of what came by all sites; `None` where it is no estimate.
    pub error: Option<u64>,
    /// Pages that came, and that no site has touched, by [`Place::ALL`]; estimates where pages were sampled.
    pub unexplained: [u64; PLACES],
    /// Pages that were in memory at the beginning and are not any more.
    pub went: u64,
    /// Bytes of address space that were not looked at, for there are too many.
    pub skipped: u64,
    /// Whether it is known which pages belong to a huge one.
    pub knows_huge_pages: bool,
    /// Faults that the kernel counted for the process and told nobody of: those that it makes itself when memory is mapped in
    /// advance, and whatever was missed. `None` where the kernel does not say.
    pub faults_not_told: Option<u64>,
}

impl Seen {
    /// Pages that came, whoever touched them.
    #[must_use]
    pub fn came(&self) -> u64 {
        self.came.iter().sum()
    }
}

/// How page faults were sampled: by their pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// Of so many pages one was in the sample in the end; 1 where all were, always.
    pub one_in: u64,
    /// All page faults, counted one by one.
    pub faults: u64,
    /// Those of which the stack was taken.
    pub stacks: u64,
    /// Of how many pages one was in the sample since when, first the beginning.
    pub steps: Vec<(Duration, u64)>,
    /// How often the process's threads came to a processor.
    pub switches: u64,
}

impl Sampling {
    /// Whether every page was in the sample at all times.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.one_in <= 1
    }

    /// The same in words.
    pub(super) fn words(&self) -> String {
        if self.is_exact() {
            return "exact: every page fault with its stack".into();
        }
        format!("estimates from one page in {}", count(self.one_in))
    }
}

/// One site: a whole stack at page faults.
#[derive(Clone, Debug)]
pub struct GrowthSiteReport {
    /// Its faults.
    pub faults: FaultCounts,
    /// Its pages when they were looked at.
    pub pages: SitePages,
    /// Standard error of what came, in pages; `None` where it is no estimate.
    pub error: Option<u64>,
    /// Leaf first: the function that touched them.
    pub stack: Vec<Arc<Frame>>,
}

/// One site: a whole stack at calls of brk.
#[derive(Clone, Debug)]
pub struct BreakSiteReport {
    /// What it did.
    pub site: BreakSite,
    /// Leaf first.
    pub stack: Vec<Arc<Frame>>,
}

/// Growth.
#[derive(Clone, Debug, Default)]
pub struct GrowthReport {
    /// Threads whose faults were watched from the beginning.
    pub threads: usize,
    /// Sums over all sites; estimates where pages were sampled.
    pub faults: FaultCounts,
    /// How they were sampled.
    pub sampling: Sampling,
    /// Pages of which it could not be noted who touched them.
    pub pages_lost: u64,
    /// Resident memory at the beginning.
    pub before: ResidentSet,
    /// The pages as they were seen last; `None` where the process ended before.
    pub seen: Option<Seen>,
    /// The sites of page faults, those that grew most first.
    pub sites: Vec<GrowthSiteReport>,
    /// The sites of brk, those by which the heap grew most first.
    pub breaks: Vec<BreakSiteReport>,
    /// Calls of brk that failed.
    pub breaks_failed: u64,
}

impl GrowthReport {
    /// What pictures and the table show of a site, in bytes: what came, or where that is not known, what was touched.
    #[must_use]
    pub fn shown(&self, site: &GrowthSiteReport) -> u64 {
        let pages = if self.seen.is_some() { site.pages.all() } else { site.faults.first() };
        pages.saturating_mul(PAGE)
    }

    /// The same in pages of all sites.
    pub(super) fn words(&self) -> &'static str {
        if self.seen.is_some() { "memory that came, by who touched it" } else { "memory first touched" }
    }

    /// Faults of a site, beside its bytes.
    pub(super) fn subtitle(&self, profile: &Profile) -> String {
        let since = if profile.mode.command == "run" { "start" } else { "attach" };
        let shown = self.sites.iter().fold(0_u64, |sum, site| sum.saturating_add(self.shown(site)));
        let resident = match (self.before.all, self.seen.as_ref().and_then(|seen| seen.resident.all)) {
            (Some(before), Some(after)) => format!("; RSS {}, then {}", bytes(before), bytes(after)),
            _ => String::new(),
        };
        format!(
            "{} in {} page faults since {since} {} ago{resident}; {}",
            bytes(shown),
            count(self.sampling.faults),
            span(profile.duration),
            self.sampling.words()
        )
    }
}

/// The name of a kind of memory, as files have it.
pub(super) const fn name_of(place: Place) -> &'static str {
    match place {
        Place::Heap => "heap",
        Place::Anonymous => "anonymous",
        Place::Stack => "stack",
        Place::File => "file_copies",
        Place::Code => "code_copies",
        Place::Shared => "shared",
    }
}

/// The same for people.
pub(super) const fn words_of(place: Place) -> &'static str {
    match place {
        Place::Heap => "heap",
        Place::Anonymous => "mmap",
        Place::Stack => "stack",
        Place::File => "variables of files",
        Place::Code => "code with breakpoints, ours among them",
        Place::Shared => "shared",
    }
}
