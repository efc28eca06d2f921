//! The sites in columns: numbers of one kind side by side are small when compressed, and quickly read.

use profiler_common::records::Held;
use serde::Serialize;

use super::names::Names;
use crate::report::{
    history::SizeClass,
    profile::{Profile, SiteReport, Totals},
    verdict::{Trend, verdict},
};

/// Births, and changes of live bytes, of all sites together at most. Beyond that they are told more coarsely, so that a
/// page of ten thousand sites stays below three megabytes.
const MOST_PARTS: usize = 1 << 18;
/// Spans of births at most: the page has a column for each.
const MOST_SPANS: u128 = 1000;

/// What sites have several of, one site after another.
#[derive(Debug, Default, Serialize)]
pub(super) struct Parts {
    /// How many each site has.
    count: Vec<u32>,
    /// An index or a number of a text.
    key: Vec<u64>,
    space: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    objects: Vec<u64>,
}

/// Size classes, one site after another.
#[derive(Debug, Default, Serialize)]
pub(super) struct Sizes {
    count: Vec<u32>,
    smallest: Vec<u64>,
    /// `null` for the class without bound.
    largest: Vec<Option<u64>>,
    alloc_objects: Vec<u64>,
    inuse_objects: Vec<u64>,
}

/// Totals in columns.
#[derive(Debug, Default, Serialize)]
pub(super) struct TotalsColumns {
    inuse_space: Vec<u64>,
    inuse_objects: Vec<u64>,
    alloc_space: Vec<u64>,
    alloc_objects: Vec<u64>,
}

/// The sites.
#[derive(Debug, Default, Serialize)]
pub(super) struct Sites {
    node: Vec<u32>,
    allocator: Vec<u32>,
    totals: TotalsColumns,
    /// Empty where the numbers are exact.
    errors: TotalsColumns,
    peak_space: Vec<u64>,
    peak_objects: Vec<u64>,
    temporary_objects: Vec<u64>,
    /// Milliseconds.
    oldest: Vec<Option<u64>>,
    /// Index in [`Trend::ALL`].
    trend: Vec<usize>,
    verdict: Vec<String>,
    /// Bytes a minute.
    growth: Vec<f64>,
    births: Parts,
    over_time: Parts,
    sizes: Sizes,
    threads: Parts,
    generations: Parts,
    /// Bytes kept a second and their standard errors; empty where what lives is known.
    kept_rate: Vec<f64>,
    kept_error: Vec<Option<f64>>,
}

/// How coarsely births and changes are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coarseness {
    /// So many spans of births are one.
    pub(super) births: usize,
    /// Of so many snapshots one is told.
    snapshots: usize,
}

impl Coarseness {
    pub(super) fn of(profile: &Profile) -> Self {
        let sites = || profile.sites.iter().map(|site| &site.history);
        let births = |by| sites().map(|site| joined(&site.births, by).len()).sum::<usize>() <= MOST_PARTS;
        let changes =
            |by| sites().map(|site| thinned(&site.over_time, by).len()).sum::<usize>() <= MOST_PARTS;
        // A file that was read may say anything.
        let in_time =
            profile.duration.as_nanos().checked_div(profile.history.birth_span.as_nanos()).unwrap_or(0);
        let last = sites().filter_map(|site| site.births.last()).map(|(span, _)| *span as u128).max();
        let spans = in_time.max(last.unwrap_or(0));
        Self {
            births: coarse_enough(|by| spans / by as u128 <= MOST_SPANS && births(by)),
            snapshots: coarse_enough(changes),
        }
    }
}

fn coarse_enough(is_enough: impl Fn(usize) -> bool) -> usize {
    (0..usize::BITS - 1).map(|power| 1 << power).find(|by| is_enough(*by)).unwrap_or(usize::MAX)
}

/// Parts with their keys divided, those with equal keys put together.
pub(super) fn joined(parts: &[(usize, Held)], by: usize) -> Vec<(usize, Held)> {
    let mut joined: Vec<(usize, Held)> = Vec::with_capacity(parts.len());
    for (key, held) in parts {
        match joined.last_mut() {
            Some((last, sum)) if *last == key / by => {
                sum.space = sum.space.saturating_add(held.space);
                sum.objects = sum.objects.saturating_add(held.objects);
            }
            _ => joined.push((key / by, *held)),
        }
    }
    joined
}

/// The changes seen at every so-manieth snapshot, by the snapshots' own numbers.
fn thinned(changes: &[(usize, u64)], by: usize) -> Vec<(usize, u64)> {
    let mut seen: Vec<(usize, u64)> = Vec::with_capacity(changes.len());
    for (index, space) in changes {
        let at = index.checked_next_multiple_of(by).unwrap_or(usize::MAX);
        match seen.last_mut() {
            Some(last) if last.0 == at => last.1 = *space,
            _ => seen.push((at, *space)),
        }
    }
    seen
}

impl Parts {
    pub(super) fn push(&mut self, parts: impl IntoIterator<Item = (u64, Held)>) {
        let before = self.key.len();
        for (key, held) in parts {
            self.key.push(key);
            self.space.push(held.space);
            self.objects.push(held.objects);
        }
        self.count.push(u32::try_from(self.key.len() - before).unwrap_or(u32::MAX));
    }

    fn push_spaces(&mut self, parts: Vec<(usize, u64)>) {
        self.count.push(u32::try_from(parts.len()).unwrap_or(u32::MAX));
        for (key, space) in parts {
            self.key.push(key as u64);
            self.space.push(space);
        }
    }
}

impl Sizes {
    fn push(&mut self, classes: &[SizeClass]) {
        self.count.push(u32::try_from(classes.len()).unwrap_or(u32::MAX));
        for class in classes {
            self.smallest.push(class.smallest);
            self.largest.push(class.largest);
            self.alloc_objects.push(class.alloc_objects);
            self.inuse_objects.push(class.inuse_objects);
        }
    }
}

impl TotalsColumns {
    fn push(&mut self, totals: &Totals) {
        self.inuse_space.push(totals.inuse_space);
        self.inuse_objects.push(totals.inuse_objects);
        self.alloc_space.push(totals.alloc_space);
        self.alloc_objects.push(totals.alloc_objects);
    }
}

impl Sites {
    pub(super) fn of<'a>(profile: &'a Profile, coarseness: Coarseness, names: &mut Names<'a>) -> Self {
        let mut sites = Self::default();
        for site in &profile.sites {
            sites.push(profile, site, coarseness, names);
        }
        sites
    }

    fn push<'a>(
        &mut self,
        profile: &'a Profile,
        site: &'a SiteReport,
        coarse: Coarseness,
        names: &mut Names<'a>,
    ) {
        let history = &site.history;
        self.node.push(names.stack(site.stack.iter().map(AsRef::as_ref)));
        self.allocator.push(names.text(&site.allocator));
        self.totals.push(&Totals {
            inuse_space: site.shown().space,
            inuse_objects: site.shown().objects,
            ..site.totals
        });
        if let Some(kept) = &site.kept {
            self.kept_rate.push(kept.rate.round());
            self.kept_error.push(kept.rate_error.map(f64::round));
        }
        if let Some(errors) = &site.errors {
            self.errors.push(errors);
        }
        self.peak_space.push(history.peak.space);
        self.peak_objects.push(history.peak.objects);
        self.temporary_objects.push(history.temporary_objects);
        self.oldest.push(site.oldest.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
        let verdict = verdict(profile, site);
        self.trend.push(Trend::ALL.iter().position(|trend| *trend == verdict.trend).unwrap_or_default());
        self.verdict.push(verdict.text);
        self.growth.push((verdict.growth * 60.0).round());
        let keyed = |(key, held): (usize, Held)| (key as u64, held);
        self.births.push(joined(&history.births, coarse.births).into_iter().map(keyed));
        self.over_time.push_spaces(thinned(&history.over_time, coarse.snapshots));
        self.sizes.push(&history.sizes);
        self.threads.push(history.threads.iter().map(|(name, held)| (names.text(name).into(), *held)));
        self.generations.push(history.generations.iter().copied().map(keyed));
    }
}
