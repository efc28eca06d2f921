//! speedscope's format: one profile for each of the four numbers, over one table of frames.

use std::io::{self, Write};

use indexmap::IndexSet;
use serde::Serialize;

use super::{
    options::ReportOptions,
    profile::{Profile, Totals},
    shown, units,
};
use crate::symbolize::{frame::Frame, label};

/// The format has no version: this names it.
const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: String,
    exporter: &'static str,
    #[serde(rename = "activeProfileIndex")]
    active_profile_index: usize,
    shared: Shared<'a>,
    profiles: [ProfileView<'a>; 4],
    /// Beside the schema, which allows more: what a reader must know.
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: &'a IndexSet<FrameView>,
}

#[derive(Serialize, PartialEq, Eq, Hash)]
struct FrameView {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
struct ProfileView<'a> {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start_value: u64,
    #[serde(rename = "endValue")]
    end_value: i128,
    /// Frames by index, root first.
    samples: Vec<&'a [usize]>,
    weights: Vec<u64>,
}

/// One of the four numbers: its name, its unit, and where it is.
type Metric = (&'static str, &'static str, fn(&Totals) -> u64);

const METRICS: [Metric; 4] = [
    ("inuse_space", "bytes", |totals| totals.inuse_space),
    ("inuse_objects", "none", |totals| totals.inuse_objects),
    ("alloc_space", "bytes", |totals| totals.alloc_space),
    ("alloc_objects", "none", |totals| totals.alloc_objects),
];

/// Writes one file with four profiles; the live bytes are the first.
///
/// # Errors
/// Those of `out`, and when a sum does not fit 63 bits.
pub fn write(profile: &Profile, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    shown::check_sums(profile)?;
    let mut frames = IndexSet::new();
    let stacks: Vec<Vec<usize>> = profile
        .sites
        .iter()
        .map(|site| {
            let stack = shown::stack(site, options);
            stack.iter().rev().map(|frame| frames.insert_full(FrameView::of(frame)).0).collect()
        })
        .collect();
    let file = File {
        schema: SCHEMA,
        name: label::clean(&format!("{} ({})", profile.target.command, profile.target.pid)),
        exporter: shown::WRITER,
        active_profile_index: 0,
        shared: Shared { frames: &frames },
        profiles: METRICS.map(|metric| one_metric(profile, &stacks, metric)),
        remarks: shown::sentences(profile),
    };
    serde_json::to_writer(&mut *out, &file)?;
    out.write_all(b"\n")
}

/// The sites that have any of it.
fn one_metric<'a>(profile: &Profile, stacks: &'a [Vec<usize>], (name, unit, of): Metric) -> ProfileView<'a> {
    let weighty = || profile.sites.iter().zip(stacks).filter(|(site, _)| of(&site.totals) > 0);
    let weights: Vec<u64> = weighty().map(|(site, _)| of(&site.totals)).collect();
    let when = if name.starts_with("inuse") {
        format!("live at the {}", profile.mode.at.label())
    } else {
        "allocated".to_owned()
    };
    let (what, shown): (_, fn(u64) -> String) =
        if unit == "bytes" { ("bytes", units::bytes) } else { ("blocks", units::count) };
    let error = profile.errors.as_ref().map(of);
    let estimate = match error {
        Some(_) => format!(", {}{}", shown::how(profile), units::plus_minus(error, shown)),
        None => String::new(),
    };
    ProfileView {
        r#type: "sampled",
        name: format!("{name}: {what} {when}{estimate}"),
        unit,
        start_value: 0,
        end_value: weights.iter().map(|weight| i128::from(*weight)).sum(),
        samples: weighty().map(|(_, stack)| stack.as_slice()).collect(),
        weights,
    }
}

impl FrameView {
    fn of(frame: &Frame) -> Self {
        Self { name: label::function(frame), file: shown::file(frame), line: frame.line }
    }
}
