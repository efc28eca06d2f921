//! What the page reads. It is made and read by one version of heapscope, so that it is nobody's contract: that is JSON.

use std::time::Duration;

use profiler_common::records::Held;
use serde::Serialize;

use super::{
    columns::{Coarseness, Sites, joined},
    names::Names,
};
use crate::{
    report::{
        budget::Windowed,
        facts,
        history::{Generation, Moment},
        json::rfc3339,
        profile::{Profile, Totals},
        quality::{Weight, nothing_live, remarks},
        table,
        units::span,
        verdict::Trend,
    },
    symbolize::label::clean,
};

#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    heapscope: &'static str,
    command: String,
    exe: String,
    pid: u32,
    started: Option<String>,
    /// Milliseconds, as all times here.
    duration: u64,
    /// How the observation was made, in words.
    conditions: String,
    /// `attach` or `run`.
    since: &'static str,
    probes: String,
    at: &'static str,
    /// `exact`, `sampled`, `windows` or `usdt`, as in JSON.
    sampling: &'static str,
    totals: [u64; 4],
    errors: Option<[u64; 4]>,
    /// Where calls were seen in windows only, and what lives is not known.
    windowed: Option<WindowedView>,
    /// What lived at the end, if births say so.
    nothing_live: Option<String>,
    facts: Vec<String>,
    mapped: Vec<String>,
    remarks: Vec<RemarkView>,
    overhead_percent: Option<f64>,
    peak: Option<MomentView>,
    exit: Option<MomentView>,
    marks: Vec<MarkView>,
    snapshots: Snapshots,
    births: Births,
    trends: Vec<&'static str>,
    names: Names<'a>,
    sites: Sites,
}

#[derive(Debug, Serialize)]
struct RemarkView {
    warning: bool,
    text: String,
}

#[derive(Debug, Serialize)]
struct WindowedView {
    windows: u64,
    /// How long calls were seen.
    observed: u64,
    lower_bounds: bool,
    space: u64,
    objects: u64,
    /// Bytes a second.
    rate: f64,
    rate_error: Option<f64>,
    resident: Option<String>,
}

#[derive(Debug, Serialize)]
struct MomentView {
    after: u64,
    space: u64,
    objects: u64,
}

#[derive(Debug, Serialize)]
struct MarkView {
    /// `null` for the time before the first.
    name: Option<String>,
    after: u64,
    space: u64,
    objects: u64,
}

#[derive(Debug, Default, Serialize)]
struct Snapshots {
    after: Vec<u64>,
    space: Vec<u64>,
    objects: Vec<u64>,
    rss: Vec<Option<u64>>,
}

/// Births of all sites together.
#[derive(Debug, Default, Serialize)]
struct Births {
    /// Length of a span of time; 0 where births were not counted.
    span: f64,
    key: Vec<usize>,
    space: Vec<u64>,
    objects: Vec<u64>,
}

impl<'a> Document<'a> {
    pub(super) fn of(profile: &'a Profile) -> Self {
        let coarseness = Coarseness::of(profile);
        let mut names = Names::default();
        let sites = Sites::of(profile, coarseness, &mut names);
        let history = &profile.history;
        let how = if profile.mode.command == "run" { "followed for" } else { "attached for" };
        let remark = |remark: crate::report::quality::Remark| RemarkView {
            warning: remark.weight == Weight::Warning,
            text: remark.text,
        };
        let has_live = profile.totals.inuse_objects > 0 || profile.totals.inuse_space > 0;
        Self {
            heapscope: env!("CARGO_PKG_VERSION"),
            command: clean(&profile.target.command),
            exe: clean(&profile.target.exe),
            pid: profile.target.pid,
            started: rfc3339(profile.started),
            duration: milliseconds(profile.duration),
            conditions: format!("{how} {}{}", span(profile.duration), table::conditions(profile)),
            since: if profile.mode.command == "run" { "start" } else { "attach" },
            probes: profile.mode.probes.clone(),
            at: profile.mode.at.label(),
            sampling: profile.mode.sampling(),
            totals: of_totals(&profile.totals),
            errors: profile.errors.as_ref().map(of_totals),
            windowed: profile.windowed.as_ref().map(WindowedView::of),
            nothing_live: (!has_live).then(|| nothing_live(profile)),
            facts: facts::moments(profile),
            mapped: apart(profile),
            remarks: remarks(profile).into_iter().map(remark).collect(),
            overhead_percent: profile.quality.overhead_percent.filter(|percent| percent.is_finite()),
            peak: history.peak.as_ref().map(MomentView::of),
            exit: history.exit.as_ref().map(MomentView::of),
            marks: history.generations.iter().map(MarkView::of).collect(),
            snapshots: Snapshots::of(profile),
            births: Births::of(profile, coarseness),
            trends: Trend::ALL.iter().map(|trend| trend.label()).collect(),
            names,
            sites,
        }
    }
}

impl WindowedView {
    fn of(windowed: &Windowed) -> Self {
        Self {
            windows: windowed.count,
            observed: milliseconds(windowed.observed),
            lower_bounds: windowed.is_slow(),
            space: windowed.kept.held.space,
            objects: windowed.kept.held.objects,
            rate: windowed.kept.rate.round(),
            rate_error: windowed.kept.rate_error.map(f64::round),
            resident: windowed.resident_words(),
        }
    }
}

impl MomentView {
    fn of(moment: &Moment) -> Self {
        let Held { objects, space } = moment.held;
        Self { after: milliseconds(moment.after), space, objects }
    }
}

impl MarkView {
    fn of(generation: &Generation) -> Self {
        Self {
            name: generation.mark.as_deref().map(clean),
            after: milliseconds(generation.after),
            space: generation.held.space,
            objects: generation.held.objects,
        }
    }
}

impl Snapshots {
    fn of(profile: &Profile) -> Self {
        let mut columns = Self::default();
        // In windows, resident memory alone is known.
        for (after, rss) in profile.windowed.iter().flat_map(|windowed| &windowed.resident) {
            columns.after.push(milliseconds(*after));
            columns.rss.push(Some(*rss));
        }
        for snapshot in &profile.history.snapshots {
            columns.after.push(milliseconds(snapshot.after));
            columns.space.push(snapshot.inuse.space);
            columns.objects.push(snapshot.inuse.objects);
            columns.rss.push(snapshot.rss);
        }
        columns
    }
}

impl Births {
    fn of(profile: &Profile, coarseness: Coarseness) -> Self {
        if profile.windowed.is_some() {
            return Self::default();
        }
        let by = u32::try_from(coarseness.births).unwrap_or(u32::MAX);
        let span = profile.history.birth_span.saturating_mul(by).as_secs_f64() * 1000.0;
        let mut columns = Self { span, ..Self::default() };
        for (key, held) in joined(&profile.history.births, coarseness.births) {
            columns.key.push(key);
            columns.space.push(held.space);
            columns.objects.push(held.objects);
        }
        columns
    }
}

/// What is said of memory that has an account of its own.
fn apart(profile: &Profile) -> Vec<String> {
    let mapped = profile.mapped.iter().flat_map(|mapped| mapped.facts());
    mapped.chain(profile.python.iter().flat_map(|python| python.facts())).collect()
}

fn of_totals(totals: &Totals) -> [u64; 4] {
    [totals.inuse_space, totals.inuse_objects, totals.alloc_space, totals.alloc_objects]
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
