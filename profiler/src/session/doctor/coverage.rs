//! What the rows of one file say of its text: how much is described, by which rules, and where that ends.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Write},
};

use profiler_common::tables::{cfa, rbp};

use super::names::Names;
use crate::{
    report::units::{bytes, count, counted, percent},
    unwind::{
        Unsupported,
        rows::{ModuleRows, RowStatistics},
    },
};

/// Ranges of text that are listed, at most.
const RANGES: usize = 10;
/// Functions that are named for one reason, at most.
const FUNCTIONS: usize = 8;

/// The kinds of rules as a person calls them, in the order in which they are listed.
const KINDS: [(u8, &str); 10] = [
    (cfa::RSP, "rsp"),
    (cfa::RBP, "rbp"),
    (cfa::RBX, "rbx"),
    (cfa::RSP_DEREF, "*(rsp)"),
    (cfa::RBP_DEREF, "*(rbp)"),
    (cfa::PLT, "PLT stub"),
    (cfa::SIGNAL, "signal frame"),
    (cfa::END, "end of stack"),
    (cfa::NONE, "not described"),
    (cfa::UNSUPPORTED, "unsupported"),
];

/// Writes it.
pub(super) fn write(module: &ModuleRows, names: &Names<'_>, out: &mut dyn Write) -> io::Result<()> {
    let (seen, coverage) = (&module.statistics, &module.coverage);
    writeln!(
        out,
        "  text         {}: {} described, {} not although a call could be there; the rest holds no call",
        bytes(coverage.text),
        percent(coverage.described, coverage.text),
        percent(coverage.undescribed, coverage.text),
    )?;
    write_entries(seen, out)?;
    let rules: HashSet<_> = module.rows.iter().map(|row| row.rule).collect();
    writeln!(
        out,
        "  rows         {} kept of {}, {}",
        count(seen.kept_rows),
        count(seen.raw_rows),
        counted(rules.len() as u64, "different rule", "different rules"),
    )?;
    write_kinds(module, out)?;
    write_unsupported(module, names, out)?;
    write_undescribed(module, names, out)
}

fn write_entries(seen: &RowStatistics, out: &mut dyn Write) -> io::Result<()> {
    let faults = [
        (seen.damaged_fdes, "damaged"),
        (seen.outside_text, "outside the text"),
        (seen.overlapping_fdes, "overlapping another"),
    ];
    let faults: Vec<_> =
        faults.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(*n))).collect();
    let faults = if faults.is_empty() { "none left out".to_owned() } else { faults.join(", ") };
    writeln!(out, "  FDEs         {}; {faults}", count(seen.fdes))?;
    if seen.unreadable_sections > 0 {
        writeln!(out, "  not read     .debug_frame, which could not be decompressed")?;
    }
    if seen.beyond_budget {
        writeln!(out, "  not read     all that follows: the file makes more work than any real one")?;
    }
    Ok(())
}

fn write_kinds(module: &ModuleRows, out: &mut dyn Write) -> io::Result<()> {
    let rows_of = |kind| module.rows.iter().filter(|row| row.rule.cfa_kind == kind).count() as u64;
    let kinds = KINDS.map(|(kind, name)| (name, rows_of(kind)));
    let kinds: Vec<_> = kinds
        .iter()
        .filter(|(_, rows)| *rows > 0)
        .map(|(name, rows)| format!("{name} {}", count(*rows)))
        .collect();
    writeln!(out, "  CFA by       {}", kinds.join(", "))?;
    let lost = module.rows.iter().filter(|row| {
        let follows = !matches!(row.rule.cfa_kind, cfa::SIGNAL | cfa::END | cfa::NONE | cfa::UNSUPPORTED);
        follows && row.rule.rbp_kind == rbp::UNKNOWN
    });
    match lost.count() as u64 {
        0 => Ok(()),
        lost => writeln!(out, "  rbp lost     in {}", counted(lost, "row", "rows")),
    }
}

fn write_unsupported(module: &ModuleRows, names: &Names<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut reasons: BTreeMap<Unsupported, (u64, Vec<String>)> = BTreeMap::new();
    for row in module.rows.iter() {
        let Some(reason) = Unsupported::of(row.rule) else { continue };
        let (rows, functions) = reasons.entry(reason).or_default();
        *rows += 1;
        let function = names.at(row.start.0).unwrap_or_else(|| row.start.to_string());
        if functions.last() != Some(&function) {
            functions.push(function);
        }
    }
    for (reason, (rows, functions)) in reasons {
        let rows = counted(rows, "row", "rows");
        writeln!(out, "  unsupported  {rows}: {reason}: {}", some_of(&functions))?;
    }
    Ok(())
}

fn write_undescribed(module: &ModuleRows, names: &Names<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut ranges: Vec<_> = module.undescribed.iter().map(|range| range.start.0..range.end.0).collect();
    if ranges.is_empty() {
        return Ok(());
    }
    let all = ranges.len();
    ranges.sort_by_key(|range| std::cmp::Reverse(range.end - range.start));
    writeln!(
        out,
        "  undescribed  {}; a frame there is guessed by rbp",
        counted(all as u64, "range", "ranges")
    )?;
    for range in ranges.iter().take(RANGES) {
        let functions = names.within(range);
        let functions = if functions.is_empty() { "no symbol".to_owned() } else { some_of(&functions) };
        writeln!(
            out,
            "    {:#x}..{:#x}  {}  {functions}",
            range.start,
            range.end,
            counted(range.end - range.start, "byte", "bytes"),
        )?;
    }
    match all.saturating_sub(RANGES) as u64 {
        0 => Ok(()),
        more => writeln!(out, "    and {}", counted(more, "smaller range", "smaller ranges")),
    }
}

/// The first few of a list.
fn some_of(names: &[String]) -> String {
    let mut text = names.iter().take(FUNCTIONS).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > FUNCTIONS {
        text.push_str(&format!(" and {} more", count((names.len() - FUNCTIONS) as u64)));
    }
    text
}
