//! The JSON of [`super::history`]; docs/json.md is its contract.

use profiler_common::records::Held;
use serde::{Serialize, Serializer};

use super::history::{Generation, History, Moment, SiteHistory, SizeClass, Snapshot};

#[derive(Serialize)]
struct HeldView {
    inuse_space: u64,
    inuse_objects: u64,
}

#[derive(Serialize)]
struct MomentView {
    seconds: f64,
    #[serde(flatten)]
    held: HeldView,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_errors: Option<HeldView>,
}

#[derive(Serialize)]
struct GenerationView<'a> {
    mark: Option<&'a str>,
    seconds: f64,
    #[serde(flatten)]
    held: HeldView,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_errors: Option<HeldView>,
}

#[derive(Serialize)]
struct SnapshotView {
    seconds: f64,
    #[serde(flatten)]
    inuse: HeldView,
    rss: Option<u64>,
}

/// The part of the document that is about time.
#[derive(Serialize)]
pub(super) struct HistoryView<'a> {
    peak: Option<MomentView>,
    exit: Option<MomentView>,
    generations: Vec<GenerationView<'a>>,
    snapshots: Vec<SnapshotView>,
    birth_span_seconds: f64,
    births: Births<'a>,
}

#[derive(Serialize)]
struct SizeView {
    smallest: u64,
    largest: Option<u64>,
    alloc_objects: u64,
    inuse_objects: u64,
}

#[derive(Serialize)]
struct ThreadView<'a> {
    name: &'a str,
    #[serde(flatten)]
    held: HeldView,
}

#[derive(Serialize)]
struct SiteGenerationView {
    generation: usize,
    #[serde(flatten)]
    held: HeldView,
}

/// The part of a site that is about time, sizes and threads.
#[derive(Serialize)]
pub(super) struct SiteHistoryView<'a> {
    temporary_objects: u64,
    peak: HeldView,
    exit: HeldView,
    sizes: Vec<SizeView>,
    threads: Vec<ThreadView<'a>>,
    generations: Vec<SiteGenerationView>,
    over_time: &'a [(usize, u64)],
    births: Births<'a>,
}

/// `[span, bytes, blocks]` for each span of time in which blocks were born that live at the end: there may be two hundred
/// for each site, so their fields have no names.
struct Births<'a>(&'a [(usize, Held)]);

impl Serialize for Births<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(span, held)| (*span as u64, held.space, held.objects)))
    }
}

impl HeldView {
    fn of(held: Held) -> Self {
        Self { inuse_space: held.space, inuse_objects: held.objects }
    }
}

impl MomentView {
    fn of(moment: &Moment) -> Self {
        Self {
            seconds: moment.after.as_secs_f64(),
            held: HeldView::of(moment.held),
            standard_errors: moment.error.map(HeldView::of),
        }
    }
}

impl<'a> HistoryView<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let generation = |Generation { mark, after, held, error }: &'a Generation| GenerationView {
            mark: mark.as_deref(),
            seconds: after.as_secs_f64(),
            held: HeldView::of(*held),
            standard_errors: error.map(HeldView::of),
        };
        let snapshot = |Snapshot { after, inuse, rss }: &Snapshot| SnapshotView {
            seconds: after.as_secs_f64(),
            inuse: HeldView::of(*inuse),
            rss: *rss,
        };
        Self {
            peak: history.peak.as_ref().map(MomentView::of),
            exit: history.exit.as_ref().map(MomentView::of),
            generations: history.generations.iter().map(generation).collect(),
            snapshots: history.snapshots.iter().map(snapshot).collect(),
            birth_span_seconds: history.birth_span.as_secs_f64(),
            births: Births(&history.births),
        }
    }
}

impl<'a> SiteHistoryView<'a> {
    pub(super) fn of(history: &'a SiteHistory) -> Self {
        let size = |class: &SizeClass| {
            let SizeClass { smallest, largest, alloc_objects, inuse_objects } = *class;
            SizeView { smallest, largest, alloc_objects, inuse_objects }
        };
        let thread = |(name, held): &'a (String, Held)| ThreadView { name, held: HeldView::of(*held) };
        let generation = |(generation, held): &(usize, Held)| SiteGenerationView {
            generation: *generation,
            held: HeldView::of(*held),
        };
        Self {
            temporary_objects: history.temporary_objects,
            peak: HeldView::of(history.peak),
            exit: HeldView::of(history.exit),
            sizes: history.sizes.iter().map(size).collect(),
            threads: history.threads.iter().map(thread).collect(),
            generations: history.generations.iter().map(generation).collect(),
            over_time: &history.over_time,
            births: Births(&history.births),
        }
    }
}
