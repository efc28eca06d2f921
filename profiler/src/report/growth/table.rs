//! Growth for the terminal: how much memory came, which sites touched it, and who made the address space larger.

use std::io::{self, Write};

use super::{GrowthReport, GrowthSiteReport, PAGE, Seen, words_of};
use crate::{
    ledger::growth::Place,
    report::{
        options::{MIN_WIDTH, ReportOptions},
        profile::Profile,
        table::{INDENT, STACK_LINES, write_mapped, write_quality, write_wrapped},
        units::{bytes, change, count, counted, percent, plus_minus, span},
    },
    symbolize::{
        fold::{cut_middle, fold, shorten},
        label::clean,
    },
};

/// Writes the table as plain text, at most `options.width` characters wide.
///
/// # Errors
/// Those of `out`.
pub(in crate::report) fn write(
    profile: &Profile,
    growth: &GrowthReport,
    options: &ReportOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let width = options.width.max(MIN_WIDTH);
    let target = &profile.target;
    let behind = format!(" (pid {})", target.pid);
    let command =
        cut_middle(&clean(&target.command), width.saturating_sub("heapscope: ".len() + behind.len()));
    writeln!(out, "heapscope: {command}{behind}")?;
    let how = if profile.mode.command == "run" { "followed for" } else { "attached for" };
    let head = format!(
        "{how} {}, growth: page faults, brk and mmap by stack, no probe on malloc",
        span(profile.duration)
    );
    write_wrapped(&head, "", "  ", width, out)?;
    write_wrapped(&sampled(growth), "", "  ", width, out)?;
    facts(growth).iter().try_for_each(|line| write_wrapped(line, "", "  ", width, out))?;
    write_sites(growth, options, width, out)?;
    write_breaks(growth, options, width, out)?;
    if let Some(mapped) = &profile.mapped {
        write_mapped(mapped, options, width, out)?;
    }
    write_quality(profile, width, out)
}

/// Whether every page fault was seen.
fn sampled(growth: &GrowthReport) -> String {
    let sampling = &growth.sampling;
    let words = sampling.words();
    if sampling.is_exact() {
        return words;
    }
    let since = sampling.steps.last().map_or_else(String::new, |(after, _)| {
        format!(
            " ({} of {} page faults; so few since {})",
            count(sampling.stacks),
            count(sampling.faults),
            span(*after)
        )
    });
    format!(
        "{words}{since}: what came in all is known of every page, what each site has is estimated. ± is the standard error: the \
         true number is within two of them in 95 of 100 cases"
    )
}

/// Lines about the process as a whole.
fn facts(growth: &GrowthReport) -> Vec<String> {
    let size = |size: Option<u64>| size.map_or_else(|| String::from("unknown"), bytes);
    let mut lines = Vec::new();
    let before = &growth.before;
    match &growth.seen {
        None => lines.push(format!(
            "resident memory: {}, then unknown: the process ended before its pages could be looked at. What follows was \
             touched, and may have been given back",
            size(before.all)
        )),
        Some(seen) => lines.extend(resident(growth, seen)),
    }
    let faults = &growth.faults;
    // All are counted, and each page is touched first but once: what remains is told better so than by the sample.
    let again = if growth.sampling.is_exact() {
        faults.again
    } else {
        growth.sampling.faults.saturating_sub(faults.first())
    };
    let of_them = [
        (again, "on pages that had had one since the attach"),
        (faults.major, "with a page read from a disk"),
    ];
    let about = if growth.sampling.is_exact() { "" } else { "about " };
    let of_them: Vec<String> = of_them
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!(", {about}{} {what}", count(number)))
        .collect();
    lines.push(format!(
        "page faults: {}{}; {about}{} first touched",
        count(growth.sampling.faults),
        of_them.concat(),
        bytes(faults.first().saturating_mul(PAGE))
    ));
    if let Some(not_told) =
        growth.seen.as_ref().and_then(|seen| seen.faults_not_told).filter(|not_told| *not_told > 0)
    {
        lines.push(format!(
            "besides, the kernel counted {} of which it tells nobody: it makes them itself where memory is mapped in advance",
            counted(not_told, "page fault", "page faults")
        ));
    }
    lines
}

fn resident(growth: &GrowthReport, seen: &Seen) -> Vec<String> {
    let size = |size: Option<u64>| size.map_or_else(|| String::from("unknown"), bytes);
    let pages = |pages: u64| bytes(pages.saturating_mul(PAGE));
    let more = |before: Option<u64>, after: Option<u64>| {
        let (Some(before), Some(after)) = (before, after) else { return String::from("unknown") };
        change(after.cast_signed().saturating_sub(before.cast_signed()))
    };
    let (before, after) = (&growth.before, &seen.resident);
    let mut lines = vec![format!(
        "resident memory: {}, then {} after {} ({}): {} of the process's own, {} of files, {} shared",
        size(before.all),
        size(after.all),
        span(seen.after),
        more(before.all, after.all),
        more(before.anon, after.anon),
        more(before.file, after.file),
        more(before.shmem, after.shmem)
    )];
    let came = seen.came();
    // An estimate may be more than there is.
    let share = Some(percent(seen.pages.all(), came)).filter(|_| seen.pages.all() <= came);
    lines.push(format!(
        "of its own, page by page: {} came, and {}{}{} were touched by the sites below; {} of what was there went",
        pages(came),
        pages(seen.pages.all()),
        plus_minus(seen.error, pages),
        share.map(|share| format!(" ({share})")).unwrap_or_default(),
        pages(seen.went)
    ));
    let unexplained: Vec<String> = Place::ALL
        .into_iter()
        .zip(seen.unexplained)
        .filter(|(_, pages)| *pages > 0)
        .map(|(place, number)| format!("{} {}", words_of(place), pages(number)))
        .collect();
    if !unexplained.is_empty() {
        lines.push(format!(
            "not touched by a site ({}): mapped in advance (MAP_POPULATE, mlock), moved by mremap, or touched while this was read",
            unexplained.join(", ")
        ));
    }
    if seen.pages.of_huge > 0 {
        lines
            .push(format!("with huge pages, of which one fault brings 2 MiB: {}", pages(seen.pages.of_huge)));
    } else if !seen.knows_huge_pages {
        lines.push(
            "which pages belong to huge ones is not told here (it takes CAP_SYS_ADMIN): of each, one page is counted".into(),
        );
    }
    let touched = &seen.pages;
    let besides: Vec<String> = [
        (touched.gone, "given back since"),
        (touched.zeros, "only read, which takes no memory"),
        (touched.swapped, "moved to swap"),
        (touched.file, "of files and shared memory"),
        (
            touched.was_there,
            "where there was memory before (copied after a fork, or given back and touched again)",
        ),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{} {what}", pages(number)))
    .collect();
    if !besides.is_empty() {
        lines.push(format!("touched besides: {}", besides.join(", ")));
    }
    if seen.skipped > 0 {
        lines.push(format!(
            "not looked at page by page: {} of address space, where only what was touched is known",
            bytes(seen.skipped)
        ));
    }
    lines
}

fn write_sites(
    growth: &GrowthReport,
    options: &ReportOptions,
    width: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let is_known = growth.seen.is_some();
    let is_estimate = is_known && growth.sites.iter().any(|site| site.error.is_some());
    let row = |[rank, came, error, share, first, again, gone]: [&str; 7]| {
        if is_estimate {
            format!("{rank:>4}  {came:>10} {error:>10}  {share:>6}  {first:>13}  {again:>10}  {gone:>10}")
        } else if is_known {
            format!("{rank:>4}  {came:>10}  {share:>6}  {first:>13}  {again:>10}  {gone:>10}")
        } else {
            format!("{rank:>4}  {first:>13}  {share:>6}  {again:>10}")
        }
    };
    let whole = growth.sites.iter().fold(0_u64, |sum, site| sum.saturating_add(growth.shown(site)));
    let shown: Vec<_> = growth.sites.iter().filter(|site| growth.shown(site) > 0).collect();
    if shown.is_empty() {
        writeln!(out)?;
        return write_wrapped("No memory came by page faults.", "", "", width, out);
    }
    writeln!(out, "\n{}", row(["#", "came", "±", "share", "first touched", "again", "given back"]))?;
    for (i, site) in shown.iter().take(options.sites).enumerate() {
        let numbers = row([
            &(i + 1).to_string(),
            &bytes(site.pages.all().saturating_mul(PAGE)),
            &site.error.map(|pages| bytes(pages.saturating_mul(PAGE))).unwrap_or_default(),
            &percent(growth.shown(site), whole),
            &bytes(site.faults.first().saturating_mul(PAGE)),
            &count(site.faults.again),
            &bytes(site.pages.gone.saturating_mul(PAGE)),
        ]);
        writeln!(out, "{}", cut_middle(&numbers, width))?;
        for line in shorten(&fold(&site.stack, options.full_stacks), width - INDENT.len(), STACK_LINES) {
            writeln!(out, "{INDENT}{line}")?;
        }
        if let Some(line) = places(site) {
            writeln!(out, "{INDENT}{}", cut_middle(&line, width - INDENT.len()))?;
        }
    }
    let rest = shown.get(options.sites..).unwrap_or_default();
    if !rest.is_empty() {
        let space = rest.iter().fold(0_u64, |sum, site| sum.saturating_add(growth.shown(site)));
        writeln!(
            out,
            "\n{} touched {} more.",
            counted(rest.len() as u64, "other site has", "other sites have"),
            bytes(space)
        )?;
    }
    Ok(())
}

/// In which memory a site's pages lie.
fn places(site: &GrowthSiteReport) -> Option<String> {
    let places: Vec<String> = Place::ALL
        .into_iter()
        .zip(site.pages.came)
        .filter(|(_, pages)| *pages > 0)
        .map(|(place, pages)| format!("{} {}", words_of(place), bytes(pages.saturating_mul(PAGE))))
        .collect();
    let huge = site.pages.of_huge;
    let huge = if huge > 0 {
        format!(", {} with huge pages", bytes(huge.saturating_mul(PAGE)))
    } else {
        String::new()
    };
    (!places.is_empty()).then(|| format!("{}{huge}", places.join(", ")))
}

fn write_breaks(
    growth: &GrowthReport,
    options: &ReportOptions,
    width: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let (grown, shrunk, calls) =
        growth.breaks.iter().fold((0_u64, 0_u64, 0_u64), |(grown, shrunk, calls), one| {
            (
                grown.saturating_add(one.site.grown),
                shrunk.saturating_add(one.site.shrunk),
                calls.saturating_add(one.site.calls),
            )
        });
    if calls + growth.breaks_failed == 0 {
        return Ok(());
    }
    let failed = if growth.breaks_failed > 0 {
        format!(", and {} failed", counted(growth.breaks_failed, "call", "calls"))
    } else {
        String::new()
    };
    writeln!(out)?;
    let line = format!(
        "heap (address space, by brk): grew by {}, shrank by {} in {}{failed}",
        bytes(grown),
        bytes(shrunk),
        counted(calls, "call", "calls")
    );
    write_wrapped(&line, "", "  ", width, out)?;
    let row =
        |[rank, grown, shrunk, calls]: [&str; 4]| format!("{rank:>4}  {grown:>10}  {shrunk:>10}  {calls:>8}");
    for (i, site) in growth.breaks.iter().take(options.sites).enumerate() {
        if i == 0 {
            writeln!(out, "\n{}", row(["#", "grew by", "shrank by", "calls"]))?;
        }
        let BreakNumbers { grown, shrunk, calls } = BreakNumbers::of(site.site);
        writeln!(out, "{}", cut_middle(&row([&(i + 1).to_string(), &grown, &shrunk, &calls]), width))?;
        for line in shorten(&fold(&site.stack, options.full_stacks), width - INDENT.len(), STACK_LINES) {
            writeln!(out, "{INDENT}{line}")?;
        }
    }
    Ok(())
}

struct BreakNumbers {
    grown: String,
    shrunk: String,
    calls: String,
}

impl BreakNumbers {
    fn of(site: crate::ledger::breaks::BreakSite) -> Self {
        Self { grown: bytes(site.grown), shrunk: bytes(site.shrunk), calls: count(site.calls) }
    }
}
