//! A difference for programs. docs/diff.md is its contract.

use std::io::{self, Write};

use serde::Serialize;

use super::{Pair, differences, warnings};
use crate::report::{
    profile::Profile,
    tracemalloc::Difference,
    view::{group::By, place::Line},
};

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    by: &'static str,
    before: Side<'a>,
    after: Side<'a>,
    warnings: Vec<String>,
    differences: Vec<DifferenceView<'a>>,
}

#[derive(Serialize)]
struct Side<'a> {
    name: &'a str,
    pid: u32,
    command: &'a str,
    seconds: f64,
    at: &'static str,
    inuse_space: u64,
    inuse_objects: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_errors: Option<Errors>,
}

#[derive(Serialize)]
struct Errors {
    inuse_space: u64,
    inuse_objects: u64,
}

#[derive(Serialize)]
struct DifferenceView<'a> {
    size: u64,
    size_diff: i128,
    count: u64,
    count_diff: i128,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_errors: Option<Errors>,
    traceback: Vec<LineView<'a>>,
}

#[derive(Serialize)]
struct LineView<'a> {
    name: &'a str,
    line: Option<u32>,
}

const fn name(by: By) -> &'static str {
    match by {
        By::Site => "site",
        By::Function => "function",
        By::File => "file",
        By::Traceback => "traceback",
        By::Line | By::Module | By::Thread | By::Size | By::Type => "line",
    }
}

pub(super) fn write(pair: &Pair<'_>, by: By, out: &mut dyn Write) -> io::Result<()> {
    let differences = differences(pair, by)?;
    let document = Document {
        version: 1,
        by: name(by),
        before: side(pair.before_name, pair.before),
        after: side(pair.after_name, pair.after),
        warnings: warnings(pair),
        differences: differences.iter().map(view).collect(),
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

fn side<'a>(name: &'a str, profile: &'a Profile) -> Side<'a> {
    let errors = |errors: &crate::report::profile::Totals| Errors {
        inuse_space: errors.inuse_space,
        inuse_objects: errors.inuse_objects,
    };
    Side {
        name,
        pid: profile.target.pid,
        command: &profile.target.command,
        seconds: profile.duration.as_secs_f64(),
        at: profile.mode.at.label(),
        inuse_space: profile.totals.inuse_space,
        inuse_objects: profile.totals.inuse_objects,
        standard_errors: profile.errors.as_ref().map(errors),
    }
}

fn view(difference: &Difference) -> DifferenceView<'_> {
    let line = |line: &'_ Line| line.number;
    DifferenceView {
        size: difference.size.0,
        size_diff: difference.size.1,
        count: difference.count.0,
        count_diff: difference.count.1,
        standard_errors: difference
            .errors
            .map(|(inuse_space, inuse_objects)| Errors { inuse_space, inuse_objects }),
        traceback: difference
            .traceback
            .iter()
            .map(|told| LineView { name: &told.name, line: line(told) })
            .collect(),
    }
}
