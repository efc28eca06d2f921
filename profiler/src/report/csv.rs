//! A table for spreadsheets and data frames: a row for each site, as RFC 4180 has it.

use std::io::{self, Write};

use super::{
    options::ReportOptions,
    profile::{Profile, SiteReport, Totals},
    shown,
    stacks::folded_name,
};
use crate::symbolize::label;

/// The columns, in the order of [`row`].
const COLUMNS: [&str; 20] = [
    "inuse_space_bytes",
    "inuse_objects",
    "alloc_space_bytes",
    "alloc_objects",
    "numbers",
    "inuse_space_standard_error",
    "inuse_objects_standard_error",
    "alloc_space_standard_error",
    "alloc_objects_standard_error",
    "peak_space_bytes",
    "peak_objects",
    "temporary_objects",
    "oldest_seconds",
    "allocator",
    "threads",
    "function",
    "file",
    "line",
    "module",
    "stack",
];

/// Writes a header and the sites, most live bytes first.
///
/// # Errors
/// Those of `out`.
pub fn write(profile: &Profile, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = ::csv::WriterBuilder::new().terminator(::csv::Terminator::CRLF).from_writer(out);
    csv.write_record(COLUMNS)?;
    for site in &profile.sites {
        csv.write_record(row(profile, site, options))?;
    }
    csv.flush()
}

fn row(profile: &Profile, site: &SiteReport, options: &ReportOptions) -> [String; COLUMNS.len()] {
    let Totals { inuse_space, inuse_objects, alloc_space, alloc_objects } = site.totals;
    let error =
        |part: fn(&Totals) -> u64| site.errors.as_ref().map(part).map_or_else(String::new, |e| e.to_string());
    let stack = shown::stack(site, options);
    let leaf = stack.first();
    let names: Vec<_> = stack.iter().rev().map(|frame| folded_name(frame)).collect();
    let threads: Vec<_> =
        site.history.threads.iter().map(|(name, _)| label::clean(name).replace(';', ":")).collect();
    [
        inuse_space.to_string(),
        inuse_objects.to_string(),
        alloc_space.to_string(),
        alloc_objects.to_string(),
        if profile.mode.sample_interval.is_some() { "estimate" } else { "exact" }.to_owned(),
        error(|errors| errors.inuse_space),
        error(|errors| errors.inuse_objects),
        error(|errors| errors.alloc_space),
        error(|errors| errors.alloc_objects),
        site.history.peak.space.to_string(),
        site.history.peak.objects.to_string(),
        site.history.temporary_objects.to_string(),
        site.oldest.map_or_else(String::new, |age| age.as_secs_f64().to_string()),
        text(label::clean(&site.allocator)),
        text(threads.join(";")),
        text(leaf.map_or_else(String::new, |frame| label::function(frame))),
        text(leaf.and_then(|frame| shown::file(frame)).unwrap_or_default()),
        leaf.and_then(|frame| frame.line).map_or_else(String::new, |line| line.to_string()),
        text(leaf.and_then(|frame| frame.module.as_deref()).map(label::clean).unwrap_or_default()),
        text(names.join(";")),
    ]
}

/// Text that a spreadsheet does not take for a formula, which could run programs of the reader's: names are the target's.
/// Such text gets an apostrophe before it, which spreadsheets understand as the mark of plain text.
fn text(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}
