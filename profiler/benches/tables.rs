//! What the unwind tables of a compiler cost: the time to make them on one core, and their size in the kernel.
//!
//! `cargo bench -p heapscope --bench tables [-- PROGRAM…]`. A program stands for a process that has mapped all libraries
//! that ldd(1) names for it. Without names it is clang. The files are read before the clock starts, as they are in the
//! page cache of a machine where the process runs.

#![allow(clippy::unwrap_used, missing_docs, reason = "a program for developers")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use heapscope::unwind::{
    rows::rows,
    table::{Capacity, TableBuilder},
};
use profiler_common::limits::MAX_RULES;

/// Runs of which the median is shown.
const RUNS: usize = 5;
/// What the design promises for a compiler of 2.7 million rows.
const MOST_TIME: Duration = Duration::from_secs(2);
const MOST_BYTES: u64 = 4 << 20;

fn main() {
    // cargo says --bench to every bench.
    let mut programs: Vec<String> =
        env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if programs.is_empty() {
        programs.push("clang".to_owned());
    }
    println!(
        "{:<10} {:>6} {:>8} {:>10} {:>9} {:>6} {:>6} {:>8} {:>8} {:>9}  promise",
        "program", "files", "text", "rows", "kept", "rules", "pages", "best", "median", "kernel"
    );
    for program in programs {
        match on_path(&program) {
            Some(path) => measure(&program, &path),
            None => println!("{program:<10} is not installed: nothing was measured"),
        }
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let found = env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())?;
    fs::canonicalize(found).ok()
}

/// The program and its libraries.
fn files(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    std::iter::once(program.to_owned()).chain(libraries).collect()
}

fn measure(name: &str, program: &Path) {
    let files: Vec<Vec<u8>> = files(program).iter().map(|path| fs::read(path).unwrap()).collect();
    let capacity = Capacity { chunks: 4096, pages: 1 << 19, rules: u32::try_from(MAX_RULES).unwrap() };
    let mut times = Vec::new();
    let (mut raw, mut kept, mut text) = (0, 0, 0);
    let mut last = TableBuilder::new(capacity);
    for _ in 0..RUNS {
        (raw, kept, text) = (0, 0, 0);
        let mut builder = TableBuilder::new(capacity);
        let begun = Instant::now();
        for file in &files {
            let module = rows(file).unwrap();
            builder.add_module(&module).unwrap();
            raw += module.statistics.raw_rows;
            kept += module.statistics.kept_rows;
            text += module.coverage.text;
        }
        times.push(begun.elapsed());
        last = builder;
    }
    times.sort();
    let (best, median, size) = (times[0], times[RUNS / 2], last.kernel_bytes());
    println!(
        "{name:<10} {:>6} {:>4} MiB {raw:>10} {kept:>9} {:>6} {:>6} {:>5} ms {:>5} ms {:>5} KiB  {}",
        files.len(),
        text >> 20,
        last.rules().len(),
        last.pages().len(),
        best.as_millis(),
        median.as_millis(),
        size >> 10,
        if best < MOST_TIME && size < MOST_BYTES { "kept" } else { "BROKEN" },
    );
}
