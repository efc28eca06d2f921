//! Prints what the unwind tables of ELF files look like: `cargo run --release --example unwind_rows -- FILE…`.
//!
//! All files together stand for one process, so that the last lines show what its tables take.

use std::{env, fs, process::ExitCode, time::Instant};

use heapscope::unwind::{
    rows::{ModuleRows, rows},
    table::{Capacity, TableBuilder},
};
use profiler_common::limits::{MAX_RULES, ROWS_PER_CHUNK};

fn main() -> anyhow::Result<ExitCode> {
    let files: Vec<_> = env::args_os().skip(1).collect();
    if files.is_empty() {
        eprintln!("usage: unwind_rows FILE…");
        return Ok(ExitCode::from(2));
    }
    let capacity = Capacity { chunks: 4096, pages: 1 << 18, rules: u32::try_from(MAX_RULES)? };
    let mut builder = TableBuilder::new(capacity);
    let begun = Instant::now();
    for file in &files {
        let bytes = fs::read(file)?;
        let file = file.to_string_lossy();
        let start = Instant::now();
        match rows(&bytes) {
            Ok(module) => {
                let parsed = start.elapsed();
                print_module(&file, &module);
                match builder.add_module(&module) {
                    Ok(table) => println!("  pages {} from {}", table.pages, table.svma_base),
                    Err(full) => println!("  no table: {full}"),
                }
                println!("  parsed in {parsed:.1?}, table in {:.1?}", start.elapsed() - parsed);
            }
            Err(error) => println!("{file}: {error}"),
        }
    }
    let pending = builder.pending();
    let chunks = pending.chunks().len();
    println!(
        "together: {} chunks ({} KiB of rows), {} pages, {} rules; {} rules refused, {} pages crowded; {:.1?} with reading",
        chunks,
        chunks * ROWS_PER_CHUNK * 4 / 1024,
        pending.pages.len(),
        pending.rules.len(),
        builder.refused_rules(),
        builder.crowded_pages(),
        begun.elapsed(),
    );
    Ok(ExitCode::SUCCESS)
}

fn print_module(file: &str, module: &ModuleRows) {
    let (seen, coverage) = (&module.statistics, &module.coverage);
    println!("{file}:");
    println!(
        "  FDEs {} (damaged {}, outside text {}, overlapping {}){}",
        seen.fdes,
        seen.damaged_fdes,
        seen.outside_text,
        seen.overlapping_fdes,
        if seen.beyond_budget { ", stopped early: beyond the budget" } else { "" },
    );
    println!("  rows {} of {}, unknown rbp {}", seen.kept_rows, seen.raw_rows, seen.unknown_rbp);
    println!("  unsupported {:?}", seen.unsupported);
    println!(
        "  text {} KiB, described {} KiB, undescribed {} bytes",
        coverage.text / 1024,
        coverage.described / 1024,
        coverage.undescribed
    );
}
