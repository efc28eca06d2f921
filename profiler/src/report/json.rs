//! JSON for programs: everything that is known, in full. docs/json.md is its contract.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, Serializer};

use super::{
    growth,
    json_budget::{KeptView, RecordedView, WindowsView},
    json_history::{HistoryView, SiteHistoryView},
    json_mapped::MappingsView,
    json_pools::PythonView,
    options::ReportOptions,
    profile::{Mode, OnlyCaller, Profile, Quality, SiteReport, TargetInfo, Totals},
};
use crate::symbolize::frame::{Frame, FrameKind};

/// The version of the format. It grows when a field changes its meaning or goes away, not when one is added.
pub const VERSION: u32 = 1;

/// Writes one JSON object and a newline, site by site. Stacks are whole, whatever the options say.
///
/// # Errors
/// Those of `out`.
pub fn write(profile: &Profile, _options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    if let Some(growth) = &profile.growth {
        return growth::write_json(profile, growth, out);
    }
    serde_json::to_writer(&mut *out, &Document::of(profile))?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    target: Target<'a>,
    started: Option<String>,
    duration_seconds: f64,
    mode: ModeView<'a>,
    totals: TotalsView,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_errors: Option<TotalsView>,
    quality: QualityView<'a>,
    #[serde(flatten)]
    history: HistoryView<'a>,
    #[serde(serialize_with = "sites")]
    sites: &'a [SiteReport],
    #[serde(skip_serializing_if = "Option::is_none")]
    mappings: Option<MappingsView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    python: Option<PythonView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    windows: Option<WindowsView>,
}

#[derive(Serialize)]
pub(super) struct Target<'a> {
    pid: u32,
    command: &'a str,
    exe: &'a str,
}

#[derive(Serialize)]
struct ModeView<'a> {
    sampling: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_interval: Option<u64>,
    budget_percent: Option<f64>,
    recorded: Vec<RecordedView>,
    at: &'static str,
    command: &'a str,
    probes: &'a str,
    min_size: Option<u64>,
    max_size: Option<u64>,
    min_age_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    only_caller: Option<OnlyCallerView<'a>>,
}

#[derive(Serialize)]
struct OnlyCallerView<'a> {
    asked: &'a str,
    how: &'a str,
    by_calls: bool,
}

#[derive(Serialize)]
struct TotalsView {
    inuse_space: u64,
    inuse_objects: u64,
    alloc_space: u64,
    alloc_objects: u64,
}

#[derive(Serialize)]
pub(super) struct QualityView<'a> {
    unmatched_frees: u64,
    failed_allocations: u64,
    filtered_allocations: u64,
    #[serde(skip_serializing_if = "is_zero")]
    other_callers: u64,
    #[serde(skip_serializing_if = "is_zero")]
    unsampled_allocations: u64,
    lost: &'a BTreeMap<String, u64>,
    stacks_walked: u64,
    truncated_stacks: u64,
    incomplete_stacks: &'a BTreeMap<String, u64>,
    guessed_frames: u64,
    probe_hits: u64,
    overhead_percent: Option<f64>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Site<'a> {
    #[serde(flatten)]
    totals: TotalsView,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_errors: Option<TotalsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<KeptView>,
    oldest_seconds: Option<f64>,
    allocator: &'a str,
    #[serde(flatten)]
    history: SiteHistoryView<'a>,
    #[serde(serialize_with = "stack")]
    stack: &'a [Arc<Frame>],
}

#[derive(Serialize)]
struct FrameView<'a> {
    function: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
    module: Option<&'a str>,
    address: String,
    kind: FrameKind,
    inlined: bool,
    guessed: bool,
}

impl<'a> Document<'a> {
    fn of(profile: &'a Profile) -> Self {
        Self {
            version: VERSION,
            target: Target::of(&profile.target),
            started: rfc3339(profile.started),
            duration_seconds: profile.duration.as_secs_f64(),
            mode: ModeView::of(&profile.mode),
            totals: TotalsView::of(profile.totals),
            standard_errors: profile.errors.map(TotalsView::of),
            quality: QualityView::of(&profile.quality),
            history: HistoryView::of(&profile.history),
            sites: &profile.sites,
            mappings: profile.mapped.as_ref().map(MappingsView::of),
            python: profile.python.as_ref().map(PythonView::of),
            windows: profile.windowed.as_ref().map(WindowsView::of),
        }
    }
}

impl<'a> Target<'a> {
    pub(super) fn of(target: &'a TargetInfo) -> Self {
        Self { pid: target.pid, command: &target.command, exe: &target.exe }
    }
}

impl<'a> ModeView<'a> {
    fn of(mode: &'a Mode) -> Self {
        Self {
            sampling: mode.sampling(),
            sample_interval: mode.sample_interval,
            budget_percent: mode.budget.percent,
            recorded: mode.budget.steps.iter().map(RecordedView::of).collect(),
            at: mode.at.label(),
            command: &mode.command,
            probes: &mode.probes,
            min_size: mode.min_size,
            max_size: mode.max_size,
            min_age_seconds: mode.min_age.map(|age| age.as_secs_f64()),
            only_caller: mode.only_caller.as_ref().map(|OnlyCaller { asked, how, by_calls }| {
                OnlyCallerView { asked, how, by_calls: *by_calls }
            }),
        }
    }
}

impl TotalsView {
    fn of(totals: Totals) -> Self {
        let Totals { inuse_space, inuse_objects, alloc_space, alloc_objects } = totals;
        Self { inuse_space, inuse_objects, alloc_space, alloc_objects }
    }
}

impl<'a> QualityView<'a> {
    pub(super) fn of(quality: &'a Quality) -> Self {
        Self {
            unmatched_frees: quality.unmatched_frees,
            failed_allocations: quality.failed_allocations,
            filtered_allocations: quality.filtered_allocations,
            other_callers: quality.other_callers,
            unsampled_allocations: quality.unsampled_allocations,
            lost: &quality.lost,
            stacks_walked: quality.stacks_walked,
            truncated_stacks: quality.truncated_stacks,
            incomplete_stacks: &quality.incomplete_stacks,
            guessed_frames: quality.guessed_frames,
            probe_hits: quality.probe_hits,
            overhead_percent: quality.overhead_percent,
            warnings: &quality.warnings,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn sites<S: Serializer>(sites: &[SiteReport], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sites.iter().map(|site| Site {
        totals: TotalsView::of(site.totals),
        standard_errors: site.errors.map(TotalsView::of),
        kept: site.kept.as_ref().map(KeptView::of),
        oldest_seconds: site.oldest.map(|age| age.as_secs_f64()),
        allocator: &site.allocator,
        history: SiteHistoryView::of(&site.history),
        stack: &site.stack,
    }))
}

pub(super) fn stack<S: Serializer>(stack: &[Arc<Frame>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(stack.iter().map(|frame| FrameView {
        function: frame.function.as_deref(),
        file: frame.file.as_deref(),
        line: frame.line,
        module: frame.module.as_deref(),
        address: format!("{:#x}", frame.address),
        kind: frame.kind,
        inlined: frame.inlined,
        guessed: frame.guessed,
    }))
}

/// The moment in UTC; `None` for a clock before 1970 or after 9999, for which the crate has no text.
pub(super) fn rfc3339(time: SystemTime) -> Option<String> {
    let since_epoch = time.duration_since(UNIX_EPOCH).ok()?;
    (since_epoch.as_secs() < 253_402_300_800).then(|| humantime::format_rfc3339_millis(time).to_string())
}
