//! Growth for programs. What is about blocks is not in it, for nothing is known of them.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
};

use serde::Serialize;

use super::{FaultCounts, GrowthReport, PAGE, ResidentSet, Sampling, name_of};
use crate::{
    ledger::growth::{PLACES, Place, SitePages},
    report::{
        json::{QualityView, Target, VERSION, rfc3339, stack},
        json_mapped::MappingsView,
        profile::Profile,
    },
    symbolize::frame::Frame,
};

/// Writes one JSON object and a newline. Stacks are whole.
///
/// # Errors
/// Those of `out`.
pub(in crate::report) fn write(
    profile: &Profile,
    growth: &GrowthReport,
    out: &mut dyn Write,
) -> io::Result<()> {
    let document = Document {
        version: VERSION,
        target: Target::of(&profile.target),
        started: rfc3339(profile.started),
        duration_seconds: profile.duration.as_secs_f64(),
        mode: ModeView { mode: "growth", command: &profile.mode.command },
        quality: QualityView::of(&profile.quality),
        growth: GrowthView::of(growth),
        mappings: profile.mapped.as_ref().map(MappingsView::of),
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    target: Target<'a>,
    started: Option<String>,
    duration_seconds: f64,
    mode: ModeView<'a>,
    quality: QualityView<'a>,
    growth: GrowthView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mappings: Option<MappingsView<'a>>,
}

#[derive(Serialize)]
struct ModeView<'a> {
    mode: &'static str,
    command: &'a str,
}

#[derive(Serialize)]
struct GrowthView<'a> {
    page_size: u64,
    sampling: SamplingView,
    faults: FaultsView,
    pages_lost: u64,
    resident_before: ResidentView,
    seen: Option<SeenView>,
    sites: Vec<Site<'a>>,
    brk_failed: u64,
    brk_sites: Vec<BreakSite<'a>>,
}

#[derive(Serialize)]
struct SamplingView {
    exact: bool,
    one_in: u64,
    faults: u64,
    stacks: u64,
    steps: Vec<StepView>,
    context_switches: u64,
}

#[derive(Serialize)]
struct StepView {
    after_seconds: f64,
    one_in: u64,
}

#[derive(Serialize)]
struct FaultsView {
    faults: u64,
    faults_again: u64,
    faults_major: u64,
    first_touched_pages: u64,
}

#[derive(Serialize)]
struct ResidentView {
    rss: Option<u64>,
    anon: Option<u64>,
    file: Option<u64>,
    shmem: Option<u64>,
    swap: Option<u64>,
}

#[derive(Serialize)]
struct SeenView {
    after_seconds: f64,
    resident: ResidentView,
    came_pages: u64,
    came_pages_by_kind: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_pages_error: Option<u64>,
    #[serde(flatten)]
    pages: PagesView,
    unexplained_pages: BTreeMap<&'static str, u64>,
    went_pages: u64,
    skipped_space: u64,
    knows_huge_pages: bool,
    faults_not_told: Option<u64>,
}

#[derive(Serialize)]
struct PagesView {
    resident_pages: u64,
    resident_pages_by_kind: BTreeMap<&'static str, u64>,
    of_huge_pages: u64,
    was_there_pages: u64,
    file_pages: u64,
    swapped_pages: u64,
    only_read_pages: u64,
    gone_pages: u64,
}

#[derive(Serialize)]
struct Site<'a> {
    #[serde(flatten)]
    faults: FaultsView,
    #[serde(flatten)]
    pages: Option<PagesView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_pages_error: Option<u64>,
    #[serde(serialize_with = "stack")]
    stack: &'a [Arc<Frame>],
}

#[derive(Serialize)]
struct BreakSite<'a> {
    grown_space: u64,
    shrunk_space: u64,
    calls: u64,
    #[serde(serialize_with = "stack")]
    stack: &'a [Arc<Frame>],
}

impl<'a> GrowthView<'a> {
    fn of(growth: &'a GrowthReport) -> Self {
        Self {
            page_size: PAGE,
            sampling: SamplingView::of(&growth.sampling),
            faults: FaultsView::of(growth.faults),
            pages_lost: growth.pages_lost,
            resident_before: ResidentView::of(growth.before),
            seen: growth.seen.as_ref().map(|seen| SeenView {
                after_seconds: seen.after.as_secs_f64(),
                resident: ResidentView::of(seen.resident),
                came_pages: seen.came(),
                came_pages_by_kind: by_kind(seen.came),
                resident_pages_error: seen.error,
                pages: PagesView::of(&seen.pages),
                unexplained_pages: by_kind(seen.unexplained),
                went_pages: seen.went,
                skipped_space: seen.skipped,
                knows_huge_pages: seen.knows_huge_pages,
                faults_not_told: seen.faults_not_told,
            }),
            sites: growth
                .sites
                .iter()
                .map(|site| Site {
                    faults: FaultsView::of(site.faults),
                    pages: growth.seen.as_ref().map(|_| PagesView::of(&site.pages)),
                    resident_pages_error: site.error,
                    stack: &site.stack,
                })
                .collect(),
            brk_failed: growth.breaks_failed,
            brk_sites: growth
                .breaks
                .iter()
                .map(|one| BreakSite {
                    grown_space: one.site.grown,
                    shrunk_space: one.site.shrunk,
                    calls: one.site.calls,
                    stack: &one.stack,
                })
                .collect(),
        }
    }
}

impl SamplingView {
    fn of(sampling: &Sampling) -> Self {
        Self {
            exact: sampling.is_exact(),
            one_in: sampling.one_in.max(1),
            faults: sampling.faults,
            stacks: sampling.stacks,
            steps: sampling
                .steps
                .iter()
                .map(|(after, one_in)| StepView { after_seconds: after.as_secs_f64(), one_in: *one_in })
                .collect(),
            context_switches: sampling.switches,
        }
    }
}

impl FaultsView {
    fn of(faults: FaultCounts) -> Self {
        Self {
            faults: faults.all,
            faults_again: faults.again,
            faults_major: faults.major,
            first_touched_pages: faults.first(),
        }
    }
}

impl ResidentView {
    fn of(resident: ResidentSet) -> Self {
        let ResidentSet { all, anon, file, shmem, swap } = resident;
        Self { rss: all, anon, file, shmem, swap }
    }
}

impl PagesView {
    fn of(pages: &SitePages) -> Self {
        Self {
            resident_pages: pages.all(),
            resident_pages_by_kind: by_kind(pages.came),
            of_huge_pages: pages.of_huge,
            was_there_pages: pages.was_there,
            file_pages: pages.file,
            swapped_pages: pages.swapped,
            only_read_pages: pages.zeros,
            gone_pages: pages.gone,
        }
    }
}

fn by_kind(pages: [u64; PLACES]) -> BTreeMap<&'static str, u64> {
    Place::ALL.into_iter().map(name_of).zip(pages).filter(|(_, pages)| *pages > 0).collect()
}
