//! The table of groups of sites: by function, module, thread or size.

use std::io::{self, Write};

use super::{
    options::{MIN_WIDTH, ReportOptions},
    profile::Profile,
    tracemalloc,
    units::{bytes, count, counted, percent, plus_minus},
    view::{
        Sums,
        group::{self, By, Group},
    },
};
use crate::symbolize::{fold::cut_middle, label::clean};

/// Writes the groups, most live bytes first, at most `options.sites` of them.
///
/// Those by line, file and traceback are in tracemalloc's words. There is none by site: that is the usual table.
///
/// # Errors
/// Those of `out`; `Unsupported` for what is not known.
pub fn write(profile: &Profile, by: By, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    match by {
        By::Function => write_frames(profile, "function", &group::functions(profile), options, out),
        By::Module => write_frames(profile, "module", &group::modules(profile), options, out),
        By::Thread => write_threads(profile, options, out),
        By::Size => write_sizes(profile, out),
        By::Line | By::File | By::Traceback => write_statistics(profile, by, options, out),
        By::Site => super::table::write(profile, options, out),
        By::Type => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the types of blocks are not known: an allocator is told a size and nothing else, and a recording holds what it \
             was told. --by size and --by function say what there is",
        )),
    }
}

fn estimate(number: u64, error: Option<u64>, unit: impl Fn(u64) -> String) -> String {
    format!("{}{}", unit(number), plus_minus(error, &unit))
}

fn write_frames(
    profile: &Profile,
    what: &str,
    groups: &[Group],
    options: &ReportOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let wide = if profile.errors.is_some() { 22 } else { 10 };
    let row = |[own, share, blocks, all, all_share, name]: [&str; 6]| {
        format!("{own:>wide$}  {share:>6}  {blocks:>12}  {all:>wide$}  {all_share:>6}  {name}")
    };
    writeln!(out, "{}", row(["live", "share", "live blocks", "with callees", "share", what]))?;
    let whole = profile.totals.inuse_space;
    let live = |sums: &Sums| {
        estimate(sums.totals.inuse_space, sums.errors().map(|errors| errors.inuse_space), bytes)
    };
    let shown = groups.iter().filter(|group| group.with_callees.totals.inuse_objects > 0);
    for group in shown.clone().take(options.sites) {
        let line = row([
            &live(&group.own),
            &percent(group.own.totals.inuse_space, whole),
            &count(group.own.totals.inuse_objects),
            &live(&group.with_callees),
            &percent(group.with_callees.totals.inuse_space, whole),
            &clean(&group.name),
        ]);
        writeln!(out, "{}", cut_middle(&line, options.width.max(MIN_WIDTH)))?;
    }
    write_rest(shown.count(), options.sites, out)
}

fn write_rest(all: usize, shown: usize, out: &mut dyn Write) -> io::Result<()> {
    match all.saturating_sub(shown) {
        0 => Ok(()),
        rest => {
            writeln!(out, "{} left out (--top shows more).", counted(rest as u64, "line is", "lines are"))
        }
    }
}

fn write_threads(profile: &Profile, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    let threads = group::threads(profile);
    if threads.is_empty() && profile.totals.inuse_objects > 0 {
        return writeln!(out, "Which threads allocated what lives is not known for this moment.");
    }
    writeln!(out, "{:>10}  {:>6}  {:>12}  thread that allocated it", "live", "share", "live blocks")?;
    for (name, space, objects) in threads.iter().take(options.sites) {
        let share = percent(*space, profile.totals.inuse_space);
        let line = format!("{:>10}  {share:>6}  {:>12}  {name}", bytes(*space), count(*objects));
        writeln!(out, "{}", cut_middle(&line, options.width.max(MIN_WIDTH)))?;
    }
    write_rest(threads.len(), options.sites, out)?;
    errors_not_known(profile, out)
}

fn write_sizes(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let sizes = group::sizes(profile);
    if sizes.is_empty() && profile.totals.inuse_objects > 0 {
        return writeln!(out, "The sizes of blocks are not known for this moment.");
    }
    writeln!(out, "{:>12}  {:>6}  {:>14}  size of the blocks", "live blocks", "share", "allocated")?;
    for (smallest, largest, inuse, allocated) in &sizes {
        let size = match largest {
            Some(largest) => format!("{} to {}", bytes(*smallest), bytes(*largest)),
            None => format!("{} and more", bytes(*smallest)),
        };
        let share = percent(*inuse, profile.totals.inuse_objects);
        writeln!(out, "{:>12}  {share:>6}  {:>14}  {size}", count(*inuse), count(*allocated))?;
    }
    errors_not_known(profile, out)
}

/// Of parts of a site, only their numbers are recorded.
fn errors_not_known(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    if profile.mode.sample_interval.is_none() {
        return Ok(());
    }
    writeln!(out, "These are estimates from samples; the standard errors of such parts are not known.")
}

fn write_statistics(
    profile: &Profile,
    by: By,
    options: &ReportOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let statistics = tracemalloc::statistics(profile, by).unwrap_or_default();
    for statistic in statistics.iter().take(options.sites) {
        writeln!(out, "{statistic}")?;
        if by == By::Traceback {
            write_traceback(&statistic.traceback, out)?;
        }
    }
    write_rest(statistics.len(), options.sites, out)
}

/// As `Traceback.format()` has it: the oldest call first.
pub(super) fn write_traceback(traceback: &[super::view::place::Line], out: &mut dyn Write) -> io::Result<()> {
    for line in traceback {
        let name = clean(&line.name);
        match line.number {
            Some(number) => writeln!(out, "  File \"{name}\", line {number}")?,
            None => writeln!(out, "  {name}")?,
        }
    }
    Ok(())
}
