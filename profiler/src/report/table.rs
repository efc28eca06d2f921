//! The terminal's table: the sites that hold the most live bytes, and how far to trust them.

use std::io::{self, Write};

use super::{
    budget::Windowed,
    facts, growth,
    mapped::MappedMemory,
    metric::Metric,
    options::{MIN_WIDTH, ReportOptions},
    profile::{Profile, SiteReport, Totals},
    quality::{Weight, nothing_live, remarks},
    units::{blocks, bytes, count, counted, percent, plus_minus, span},
    verdict::verdict,
    windows,
};
use crate::symbolize::{
    fold::{cut_middle, fold, shorten},
    label::clean,
};

/// Lines of stack below each site.
pub(super) const STACK_LINES: usize = 6;
/// What stands before a line of stack.
pub(super) const INDENT: &str = "       ";

/// Writes the table as plain text, at most `options.width` characters wide.
///
/// # Errors
/// Those of `out`.
pub fn write(profile: &Profile, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    if let Some(growth) = &profile.growth {
        return growth::write_table(profile, growth, options, out);
    }
    let width = options.width.max(MIN_WIDTH);
    write_head(profile, width, out)?;
    let metric = options.metric;
    let counts = |site: &&SiteReport| match metric {
        Metric::InuseSpace => metric.visible(site) > 0 || Metric::InuseObjects.visible(site) > 0,
        _ => metric.visible(site) > 0,
    };
    let mut live: Vec<&SiteReport> = profile.sites.iter().filter(counts).collect();
    live.sort_by_key(|site| {
        std::cmp::Reverse((metric.visible(site), site.totals.inuse_space, Metric::InuseObjects.visible(site)))
    });
    if metric != Metric::InuseSpace {
        writeln!(
            out,
            "\nsites by {}, of which there are {}",
            metric.words(),
            metric.shown(metric.sum(profile))
        )?;
    }
    if live.is_empty() && metric != Metric::InuseSpace {
        writeln!(out, "\nThere are no {}.", metric.words())?;
    } else if live.is_empty() {
        writeln!(out)?;
        write_wrapped(&nothing_live(profile), "", "", width, out)?;
    } else {
        write_sites(profile, options, width, &live, out)?;
        write_rest(profile, options, &live, out)?;
    }
    if let Some(mapped) = &profile.mapped {
        write_mapped(mapped, options, width, out)?;
    }
    if let Some(python) = &profile.python {
        python.write(options, width, out)?;
    }
    write_quality(profile, width, out)
}

/// The account of mapped memory: what is said of it, and the sites that hold the most.
pub(super) fn write_mapped(
    mapped: &MappedMemory,
    options: &ReportOptions,
    width: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out)?;
    mapped.facts().iter().try_for_each(|line| write_wrapped(line, "", "  ", width, out))?;
    let row = |[rank, mapped, share, pieces, all, oldest]: [&str; 6]| {
        format!("{rank:>4}  {mapped:>10}  {share:>6}  {pieces:>12}  {all:>10}  {oldest:>12}")
    };
    let holding = mapped.sites.iter().filter(|site| site.inuse_space > 0);
    for (i, site) in holding.clone().take(options.sites).enumerate() {
        if i == 0 {
            writeln!(out, "\n{}", row(["#", "mapped", "share", "pieces", "in all", "oldest"]))?;
        }
        let numbers = row([
            &(i + 1).to_string(),
            &bytes(site.inuse_space),
            &percent(site.inuse_space, mapped.inuse_space),
            &count(site.ranges.len() as u64),
            &bytes(site.alloc_space),
            &site.oldest.map_or_else(|| String::from("-"), span),
        ]);
        writeln!(out, "{}", cut_middle(&numbers, width))?;
        for line in shorten(&fold(&site.stack, options.full_stacks), width - INDENT.len(), STACK_LINES) {
            writeln!(out, "{INDENT}{line}")?;
        }
    }
    let rest = holding.skip(options.sites);
    let (sites, space) =
        rest.fold((0_u64, 0_u64), |(sites, space), site| (sites + 1, space.saturating_add(site.inuse_space)));
    if sites > 0 {
        writeln!(
            out,
            "\n{} mapped {} more.",
            counted(sites, "other site has", "other sites have"),
            bytes(space)
        )?;
    }
    Ok(())
}

fn write_head(profile: &Profile, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let target = &profile.target;
    let command = clean(&target.command);
    let behind = format!(" (pid {})", target.pid);
    let command = cut_middle(&command, width.saturating_sub("heapscope: ".len() + behind.len()));
    writeln!(out, "heapscope: {command}{behind}")?;
    let how = if profile.mode.command == "run" { "followed for" } else { "attached for" };
    let totals = &profile.totals;
    let conditions = format!("{how} {}{}", span(profile.duration), conditions(profile));
    write_wrapped(&conditions, "", "  ", width, out)?;
    let error = |part: fn(&Totals) -> u64| profile.errors.as_ref().map(part);
    let both = |space: u64, space_error, objects: u64, objects_error, how: &str| {
        format!(
            "{}{} {how} in {}{}",
            bytes(space),
            plus_minus(space_error, bytes),
            blocks(objects),
            plus_minus(objects_error, count)
        )
    };
    let live = both(
        totals.inuse_space,
        error(|totals| totals.inuse_space),
        totals.inuse_objects,
        error(|totals| totals.inuse_objects),
        "live",
    );
    let all = both(
        totals.alloc_space,
        error(|totals| totals.alloc_space),
        totals.alloc_objects,
        error(|totals| totals.alloc_objects),
        "allocated",
    );
    let live = profile.windowed.as_ref().map_or(live, windows::kept_in_all);
    let at_least = if profile.windowed.as_ref().is_some_and(Windowed::is_slow) { "at least " } else { "" };
    write_wrapped(&format!("{live}; {at_least}{all}"), "", "  ", width, out)?;
    if let Some(words) = profile.windowed.as_ref().and_then(Windowed::resident_words) {
        write_wrapped(&words, "", "  ", width, out)?;
    }
    facts::moments(profile).iter().try_for_each(|line| write_wrapped(line, "", "  ", width, out))
}

/// How allocations were chosen, each part behind a comma.
pub(super) fn conditions(profile: &Profile) -> String {
    let mut conditions = format!(", {}", profile.mode.sampling());
    if let Some(interval) = profile.mode.sample_interval {
        let sampled = if profile.windowed.is_some() { ", sampled" } else { "" };
        let most = if profile.mode.budget.steps.len() > 1 { " at the most" } else { "" };
        conditions.push_str(&format!("{sampled} once in {} on average{most}", bytes(interval)));
    }
    for (word, size) in [("at least", profile.mode.min_size), ("at most", profile.mode.max_size)] {
        if let Some(size) = size {
            conditions.push_str(&format!(", blocks of {word} {}", bytes(size)));
        }
    }
    if profile.mode.is_told() {
        conditions.push_str(" (estimates by the program itself, error unknown)");
    }
    if let Some(only) = &profile.mode.only_caller {
        conditions.push_str(&format!(", by {} alone", clean(&only.asked)));
    }
    if let Some(age) = profile.mode.min_age {
        conditions.push_str(&format!(", live means at least {} old", span(age)));
    }
    conditions
}

fn write_sites(
    profile: &Profile,
    options: &ReportOptions,
    width: usize,
    live: &[&SiteReport],
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "\n{}", row_of(profile, options, None))?;
    for (i, site) in live.iter().take(options.sites).enumerate() {
        writeln!(out, "{}", cut_middle(&row_of(profile, options, Some((i + 1, site))), width))?;
        let stack = fold(&site.stack, options.full_stacks);
        for line in shorten(&stack, width - INDENT.len(), STACK_LINES) {
            writeln!(out, "{INDENT}{line}")?;
        }
        if stack.is_empty() {
            writeln!(out, "{INDENT}[no stack]")?;
        }
        // It is judged by what lived over time, which is not known in windows.
        let verdict = profile.windowed.is_none().then(|| verdict(profile, site).text);
        for line in verdict.into_iter().chain(facts::of_site(profile, site)) {
            writeln!(out, "{INDENT}{}", cut_middle(&line, width - INDENT.len()))?;
        }
    }
    Ok(())
}

/// The numbers of a site, or the heads of their columns.
fn row_of(profile: &Profile, options: &ReportOptions, site: Option<(usize, &SiteReport)>) -> String {
    if let Some(windowed) = &profile.windowed {
        return windows::row(windowed, profile.duration, site);
    }
    let row = |[rank, live, error, share, blocks, allocated, oldest, allocator]: [&str; 8]| {
        let error = if profile.errors.is_some() { format!(" {error:<6}") } else { String::new() };
        format!(
            "{rank:>4}  {live:>10}{error}  {share:>6}  {blocks:>12}  {allocated:>10}  {oldest:>12}  {allocator}"
        )
    };
    let Some((rank, site)) = site else {
        return row(["#", "live", "error", "share", "live blocks", "allocated", "oldest", "allocator"]);
    };
    let totals = &site.totals;
    row([
        &rank.to_string(),
        &bytes(totals.inuse_space),
        &site.errors.map_or_else(String::new, |error| relative(error.inuse_space, totals.inuse_space)),
        &percent(options.metric.of(site), options.metric.sum(profile)),
        &count(totals.inuse_objects),
        &bytes(totals.alloc_space),
        &site.oldest.map_or_else(|| String::from("-"), span),
        &clean(&site.allocator),
    ])
}

fn write_rest(
    profile: &Profile,
    options: &ReportOptions,
    live: &[&SiteReport],
    out: &mut dyn Write,
) -> io::Result<()> {
    let rest = &live[live.len().min(options.sites)..];
    if !rest.is_empty() {
        let metric = options.metric;
        let rest_of_it = rest.iter().fold(0u64, |sum, site| sum.saturating_add(metric.visible(site)));
        let sites = match (profile.windowed.is_some(), rest.len()) {
            (false, 1) => "site holds",
            (false, _) => "sites hold",
            (true, 1) => "site has kept",
            (true, _) => "sites have kept",
        };
        writeln!(out, "\n{} more {sites} {}.", count(rest.len() as u64), metric.shown(rest_of_it))?;
    }
    Ok(())
}

/// `±4%`: a standard error as a share of its estimate.
pub(super) fn relative(error: u64, estimate: u64) -> String {
    format!("±{}", percent(error, estimate))
}

pub(super) fn write_quality(profile: &Profile, width: usize, out: &mut dyn Write) -> io::Result<()> {
    for (i, remark) in remarks(profile).iter().enumerate() {
        if i == 0 {
            writeln!(out)?;
        }
        let head = match remark.weight {
            Weight::Warning => "warning: ",
            Weight::Note => "note: ",
        };
        write_wrapped(&remark.text, head, &" ".repeat(head.len()), width, out)?;
    }
    Ok(())
}

/// Writes `text` behind `head`, broken at blanks so that it fits `width`; further lines begin with `indent`.
pub(super) fn write_wrapped(
    text: &str,
    head: &str,
    indent: &str,
    width: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let (mut line, mut words) = (head.to_owned(), 0);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let word = cut_middle(word, width - indent.len());
        let blank = usize::from(words > 0);
        if words > 0 && line.chars().count() + blank + word.chars().count() > width {
            writeln!(out, "{line}")?;
            (line, words) = (indent.to_owned(), 0);
        }
        if words > 0 {
            line.push(' ');
        }
        line.push_str(&word);
        words += 1;
    }
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::report::{
        history::History,
        profile::{Mode, Quality, TargetInfo, Totals},
    };

    #[test]
    fn no_number_is_too_long_for_a_line() {
        let profile = Profile {
            errors: None,
            target: TargetInfo::default(),
            started: SystemTime::UNIX_EPOCH,
            duration: Duration::MAX,
            mode: Mode { min_size: Some(u64::MAX), max_size: Some(u64::MAX), ..Mode::default() },
            totals: Totals { alloc_objects: u64::MAX, alloc_space: u64::MAX, ..Totals::default() },
            quality: Quality { unmatched_frees: u64::MAX, ..Quality::default() },
            history: History::default(),
            sites: Vec::new(),
            windowed: None,
            code: Vec::new(),
            mapped: None,
            python: None,
            growth: None,
        };
        for min_age in [None, Some(Duration::from_secs(u32::MAX.into()))] {
            let mut out = Vec::new();
            let profile = Profile { mode: Mode { min_age, ..profile.mode.clone() }, ..profile.clone() };
            let written = write(&profile, &ReportOptions { width: 80, ..ReportOptions::default() }, &mut out);
            assert!(written.is_ok());
            let text = String::from_utf8_lossy(&out);
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }
}
