//! What two profiles differ in: `heapscope diff`. The words are tracemalloc's, the picture is inferno's differential one.
//!
//! Sites of different processes are the same where their stacks have the same names: addresses differ from run to run.

mod json;
mod picture;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{
    grouped::write_traceback,
    options::ReportOptions,
    profile::Profile,
    stacks::Stacks,
    tracemalloc::{self, Difference},
    units::{blocks, bytes, count, counted, plus_minus},
    view::group::By,
};

/// Two profiles, and what the user calls them.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The earlier one.
    pub before: &'a Profile,
    /// What it is called.
    pub before_name: &'a str,
    /// The later one.
    pub after: &'a Profile,
    /// What it is called.
    pub after_name: &'a str,
}

/// A format of differences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiffFormat {
    /// A differential flamegraph.
    Svg,
    /// Folded stacks with two numbers: before and after.
    Folded,
    /// For programs.
    Json,
}

impl DiffFormat {
    /// The format with this name, which is also the files' ending.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "svg" => Some(Self::Svg),
            "folded" => Some(Self::Folded),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Writes the difference in a format.
///
/// # Errors
/// Those of `out`.
pub fn write(
    format: DiffFormat,
    pair: &Pair<'_>,
    by: By,
    options: &ReportOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        DiffFormat::Svg => picture::write(pair, options, out),
        DiffFormat::Json => json::write(pair, by, out),
        DiffFormat::Folded => {
            for warning in warnings(pair) {
                writeln!(out, "# warning: {warning}")?;
            }
            folded(pair, options).iter().try_for_each(|line| writeln!(out, "{line}"))
        }
    }
}

/// Prints the difference, at most `options.sites` places.
///
/// # Errors
/// Those of `out`; `Unsupported` where the places have no lines.
pub fn print(pair: &Pair<'_>, by: By, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    let differences = differences(pair, by)?;
    for (word, name, profile) in
        [("before", pair.before_name, pair.before), ("after", pair.after_name, pair.after)]
    {
        let errors = profile.errors.as_ref();
        writeln!(
            out,
            "{word}: {name}: {}{} live in {}{}",
            bytes(profile.totals.inuse_space),
            plus_minus(errors.map(|errors| errors.inuse_space), bytes),
            blocks(profile.totals.inuse_objects),
            plus_minus(errors.map(|errors| errors.inuse_objects), count)
        )?;
    }
    writeln!(out)?;
    for difference in differences.iter().take(options.sites) {
        writeln!(out, "{difference}")?;
        if matches!(by, By::Traceback | By::Site) {
            write_traceback(&difference.traceback, out)?;
        }
    }
    let rest = differences.len().saturating_sub(options.sites);
    if rest > 0 {
        writeln!(out, "{} left out (--top shows more).", counted(rest as u64, "place is", "places are"))?;
    }
    if differences.iter().any(|difference| difference.errors.is_some()) {
        writeln!(
            out,
            "\nnote: ± is the standard error of a difference, at most: of two moments of one recording it is smaller."
        )?;
    }
    for warning in warnings(pair) {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

fn differences(pair: &Pair<'_>, by: By) -> io::Result<Vec<Difference>> {
    tracemalloc::compare(pair.before, pair.after, by).ok_or_else(|| {
        let text = "differences are told by line, file, traceback, function or site";
        io::Error::new(io::ErrorKind::Unsupported, text)
    })
}

/// What must be known of the two: their own warnings, and what makes them hard to compare.
fn warnings(pair: &Pair<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let (before, after) = (pair.before, pair.after);
    if before.mode.sample_interval.is_some() != after.mode.sample_interval.is_some() {
        warnings.push("One of the two is sampled and the other exact.".to_owned());
    }
    if before.mode.is_told() != after.mode.is_told() {
        warnings.push(
            "One of the two is what the program told of itself, the other was seen at its allocator."
                .to_owned(),
        );
    }
    let sizes = |profile: &Profile| (profile.mode.min_size, profile.mode.max_size);
    let asked = |profile: &Profile| profile.mode.only_caller.as_ref().map(|only| only.asked.clone());
    if sizes(before) != sizes(after)
        || before.mode.min_age != after.mode.min_age
        || asked(before) != asked(after)
    {
        warnings.push("The two were filtered differently, by size, by age or by caller.".to_owned());
    }
    if before.target.exe != after.target.exe {
        warnings.push("The two are of different programs.".to_owned());
    }
    for (word, profile) in [("before", before), ("after", after)] {
        let remarks = super::quality::remarks(profile).into_iter();
        let told = remarks.filter(|remark| remark.weight == super::quality::Weight::Warning);
        warnings.extend(told.map(|remark| format!("{word}: {}", remark.text)));
    }
    warnings
}

/// `stack before after`, one line for each stack that either has.
fn folded(pair: &Pair<'_>, options: &ReportOptions) -> Vec<String> {
    let mut lines: BTreeMap<Vec<String>, [u64; 2]> = BTreeMap::new();
    for (at, profile) in [pair.before, pair.after].into_iter().enumerate() {
        for (names, live) in Stacks::of(profile, options).lines {
            if let Some(number) = lines.entry(names).or_default().get_mut(at) {
                *number = live.bytes;
            }
        }
    }
    let told = lines.iter().filter(|(_, numbers)| **numbers != [0, 0]);
    told.map(|(names, [before, after])| format!("{} {before} {after}", names.join(";"))).collect()
}
