//! The diagnosis for people: a word and a sentence for each thing looked at, and below it what to do.

use std::io::{self, Write};

use super::{
    Diagnosis,
    allocators::AllocatorFacts,
    checks::{Check, Verdict},
    files::FileFacts,
};
use crate::{
    report::{
        units::{bytes, counted, percent},
        wrap::wrapped,
    },
    symbolize::{fold::cut_middle, label::clean},
};

/// Columns of the output.
const WIDTH: usize = 100;
/// Columns before a sentence.
const INDENT: usize = 24;
/// Files that are listed.
const FILES: usize = 12;

/// Writes it.
pub(super) fn write(diagnosis: &Diagnosis, out: &mut dyn Write) -> io::Result<()> {
    let machine = &diagnosis.machine;
    let distribution =
        machine.distribution.as_ref().map_or_else(String::new, |name| format!(", {}", clean(name)));
    writeln!(out, "This machine{distribution}")?;
    machine.checks.iter().try_for_each(|check| write_check(check, out))?;
    if let Some(target) = &diagnosis.target {
        writeln!(out, "\nThe process")?;
        target.checks.iter().try_for_each(|check| write_check(check, out))?;
        target.allocators.iter().try_for_each(|allocator| write_allocator(allocator, out))?;
        if !target.files.is_empty() {
            write_files(&target.files, target.table_bytes, out)?;
        }
    }
    let all = || machine.checks.iter().chain(diagnosis.target.iter().flat_map(|target| &target.checks));
    let number = |verdict| all().filter(|check| check.verdict == verdict).count() as u64;
    let (no, warn) = (number(Verdict::No), counted(number(Verdict::Warn), "warning", "warnings"));
    let what = if diagnosis.target.is_some() { "attach" } else { "attach to a process" };
    match (diagnosis.works, machine.probes) {
        (true, Some(probes)) => writeln!(out, "\nheapscope can {what}, by {probes} probes; {warn}."),
        _ => writeln!(
            out,
            "\nheapscope cannot {what}: {} in its way, {warn}.",
            counted(no, "thing stands", "things stand")
        ),
    }
}

fn write_check(check: &Check, out: &mut dyn Write) -> io::Result<()> {
    let head = format!("  {:<5} {:<15}", check.verdict.word(), check.name);
    let lines = wrapped(&check.says, WIDTH - INDENT);
    for (index, line) in lines.iter().enumerate() {
        let head = if index == 0 { head.as_str() } else { "" };
        writeln!(out, "{head:<INDENT$}{}", cut_middle(line, WIDTH - INDENT))?;
    }
    let Some(remedy) = &check.remedy else { return Ok(()) };
    for (index, line) in wrapped(remedy, WIDTH - INDENT - 2).iter().enumerate() {
        let arrow = if index == 0 { "→ " } else { "  " };
        writeln!(out, "{:INDENT$}{arrow}{line}", "")?;
    }
    Ok(())
}

/// A line for each function: where its probe will sit.
fn write_allocator(allocator: &AllocatorFacts, out: &mut dyn Write) -> io::Result<()> {
    let file = cut_middle(&clean(&allocator.file), WIDTH - 30);
    writeln!(out, "\nProbes on {} in {file}", clean(&allocator.name))?;
    writeln!(out, "  {:<28} {:>5} {:>10}  {:<10} instruction", "function", "at", "in file", "cost")?;
    for function in &allocator.functions {
        let name = cut_middle(&clean(&function.name), 28);
        match &function.place {
            Some(place) => writeln!(
                out,
                "  {name:<28} {:>5} {:>#10x}  {:<10} {}",
                format!("+{}", place.offset_in_function),
                place.file_offset,
                if place.emulated { "emulated" } else { "stepped" },
                cut_middle(&clean(&place.instruction), WIDTH - 60),
            )?,
            None => writeln!(out, "  {name:<28} {:>5} {:>10}  no place for a probe", "-", "-")?,
        }
    }
    if !allocator.wrappers.is_empty() {
        let text = format!("not needed, since they hand their calls on: {}", allocator.wrappers.join(", "));
        for line in wrapped(&clean(&text), WIDTH - 2) {
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

fn write_files(files: &[FileFacts], table_bytes: u64, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nFiles with code; {} of unwind tables in the kernel", bytes(table_bytes))?;
    writeln!(out, "  {:>10} {:>9} {:>8}  {:<12} file", "code", "described", "guessed", "names")?;
    for file in files.iter().take(FILES) {
        let names = match (&file.names.debug_file, file.names.best) {
            (Some(_), _) => "debug file",
            (None, best) => best,
        };
        let described = match &file.no_unwind {
            Some(_) => "none".to_owned(),
            None => percent(file.described_bytes, file.text_bytes),
        };
        let deleted = if file.deleted { " (deleted)" } else { "" };
        writeln!(
            out,
            "  {:>10} {described:>9} {:>8}  {names:<12} {}{}",
            bytes(file.text_bytes),
            percent(file.undescribed_bytes, file.text_bytes),
            cut_middle(&clean(&file.path), WIDTH - 46 - deleted.len()),
            deleted,
        )?;
        if let Some(path) = &file.names.debug_file {
            writeln!(out, "  {:>44}{}", "→ ", cut_middle(&clean(path), WIDTH - 46))?;
        }
    }
    match files.len().saturating_sub(FILES) as u64 {
        0 => Ok(()),
        more => writeln!(out, "  and {} (--json has all)", counted(more, "smaller file", "smaller files")),
    }
}
