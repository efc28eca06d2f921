//! What `--mode growth` writes, as docs/growth.md has it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::support::report::{Frame, Mappings, Quality};

/// As docs/growth.md has it.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) mode: Mode,
    pub(crate) quality: Quality,
    pub(crate) growth: Growth,
    pub(crate) mappings: Option<Mappings>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Mode {
    pub(crate) mode: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Growth {
    #[serde(flatten)]
    sum: NoFaults,
    pub(crate) sampling: Sampling,
    pub(crate) faults: Faults,
    pub(crate) pages_lost: u64,
    pub(crate) resident_before: Resident,
    pub(crate) seen: Option<Seen>,
    pub(crate) sites: Vec<Site>,
    pub(crate) brk_failed: u64,
    pub(crate) brk_sites: Vec<BreakSite>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NoFaults {
    pub(crate) page_size: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Sampling {
    pub(crate) exact: bool,
    pub(crate) one_in: u64,
    pub(crate) faults: u64,
    pub(crate) stacks: u64,
    pub(crate) steps: Vec<Step>,
    pub(crate) context_switches: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) one_in: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Faults {
    pub(crate) faults: u64,
    pub(crate) faults_again: u64,
    pub(crate) first_touched_pages: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Resident {
    pub(crate) rss: Option<u64>,
    pub(crate) anon: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Pages {
    pub(crate) resident_pages: u64,
    pub(crate) resident_pages_by_kind: BTreeMap<String, u64>,
    pub(crate) of_huge_pages: u64,
    pub(crate) file_pages: u64,
    pub(crate) only_read_pages: u64,
    pub(crate) gone_pages: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) resident: Resident,
    pub(crate) came_pages: u64,
    pub(crate) came_pages_by_kind: BTreeMap<String, u64>,
    #[serde(flatten)]
    pub(crate) pages: Pages,
    pub(crate) unexplained_pages: BTreeMap<String, u64>,
    pub(crate) knows_huge_pages: bool,
    pub(crate) faults_not_told: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Site {
    #[serde(flatten)]
    pub(crate) faults: Faults,
    #[serde(flatten)]
    pub(crate) pages: Option<Pages>,
    pub(crate) resident_pages_error: Option<u64>,
    pub(crate) stack: Vec<Frame>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct BreakSite {
    pub(crate) grown_space: u64,
    pub(crate) shrunk_space: u64,
    pub(crate) stack: Vec<Frame>,
}

pub(crate) fn has(stack: &[Frame], function: &str) -> bool {
    stack.iter().any(|frame| frame.function.as_deref().is_some_and(|name| name.contains(function)))
}

/// Sums over the sites whose stack has a function.
#[derive(PartialEq, Eq, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) faults: u64,
    pub(crate) again: u64,
    pub(crate) resident: u64,
    pub(crate) gone: u64,
    /// Standard error of `resident`, as far as the sites are apart from one another.
    pub(crate) error: u64,
}

impl Report {
    pub(crate) fn of(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(crate) fn by(&self, function: &str) -> Sum {
        let mut sum = Sum::default();
        for site in self.growth.sites.iter().filter(|site| has(&site.stack, function)) {
            sum.faults += site.faults.faults;
            sum.again += site.faults.faults_again;
            let squares = sum.error.pow(2) + site.resident_pages_error.unwrap_or(0).pow(2);
            sum.error = squares.isqrt();
            if let Some(pages) = &site.pages {
                sum.resident += pages.resident_pages;
                sum.gone += pages.gone_pages;
            }
        }
        sum
    }

    pub(crate) fn seen(&self) -> &Seen {
        self.growth.seen.as_ref().expect("the pages were not looked at")
    }

    /// Nothing lost, sums that are those of the sites, and a resident set that grew by what the sites say.
    pub(crate) fn assert_whole(&self) {
        assert_eq!((self.mode.mode.as_str(), self.growth.sum.page_size), ("growth", 4096));
        for (reason, lost) in &self.quality.lost {
            assert_eq!(*lost, 0, "{reason}");
        }
        let growth = &self.growth;
        let sampling = &growth.sampling;
        assert!(sampling.exact && sampling.one_in == 1 && sampling.steps.len() == 1, "{sampling:?}");
        assert_eq!((sampling.faults, sampling.stacks), (growth.faults.faults, growth.faults.faults));
        assert_eq!((growth.pages_lost, growth.brk_failed), (0, 0));
        let sum = |of: fn(&Faults) -> u64| growth.sites.iter().map(|site| of(&site.faults)).sum::<u64>();
        assert_eq!(sum(|faults| faults.faults), growth.faults.faults);
        assert_eq!(sum(|faults| faults.faults_again), growth.faults.faults_again);
        assert_eq!(growth.faults.first_touched_pages, growth.faults.faults - growth.faults.faults_again);
        let seen = self.seen();
        let pages = || growth.sites.iter().filter_map(|site| site.pages.as_ref());
        let resident: u64 = pages().map(|pages| pages.resident_pages).sum();
        assert_eq!(resident, seen.pages.resident_pages);
        assert_eq!(resident + seen.unexplained_pages.values().sum::<u64>(), seen.came_pages);
        assert_eq!(seen.came_pages_by_kind.values().sum::<u64>(), seen.came_pages);
        assert!(growth.sites.iter().all(|site| site.resident_pages_error.is_none()));
        for pages in pages() {
            assert_eq!(pages.resident_pages, pages.resident_pages_by_kind.values().sum::<u64>());
        }
    }

    /// What share of the growth of the process's own resident memory the sites explain, in percent.
    pub(crate) fn explained(&self) -> f64 {
        let seen = self.seen();
        let grown = seen.resident.anon.unwrap() - self.growth.resident_before.anon.unwrap();
        100.0 * (seen.pages.resident_pages * 4096) as f64 / grown as f64
    }
}
