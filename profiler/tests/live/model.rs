//! The ledger against a model: thousands of random histories of allocator calls by many threads, recorded by the program
//! that makes them (the fixture `model.c`), must come out equal to the byte.
//!
//! `cargo xtask soak` does the same with heapscope's release build for ten minutes.

use std::process::Command;

use crate::support::{
    case::{Case, case, methods},
    fixture,
    heapscope::Heapscope,
    model::{Driver, Record, UNBOUNDED, path_of_site, site_function},
    program::Program,
};

pub(crate) const CASES: &[Case] = &[
    case("model::random_histories_are_counted_exactly", || histories(&[])),
    // Buckets for 102,400 blocks of some 180,000 at the end: nearly all are full, and the rest is behind them.
    case("model::also_where_the_buckets_are_full", || histories(&["--max-memory", "40MiB"])),
    case("model::so_many_blocks_that_several_threads_read_them", many_blocks),
];

/// Histories for each way to attach, of some 370 calls each.
const HISTORIES: u64 = 1200;
/// Threads that work on histories side by side; each history has up to three more.
const THREADS: u64 = 4;

/// `HEAPSCOPE_SEED` asks for other histories.
fn histories(options: &[&str]) {
    let seed: u64 = std::env::var("HEAPSCOPE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for (seed, method) in (seed..).zip(methods()) {
        let mut driver = Driver::start(seed, HISTORIES, THREADS, UNBOUNDED);
        let heapscope = Heapscope::attach(driver.pid(), &[&["--probes", method], options].concat());
        let record = driver.work(|_| {});
        let report = heapscope.stop();
        println!(
            "{method}, seed {seed}: {} calls, {} frees, {} failed, {} threads, {} sites",
            record.calls,
            record.frees,
            record.failed,
            record.threads,
            report.sites.len()
        );
        assert!(record.calls > 100_000 && record.failed > 1000 && record.threads > 100);
        record.assert_equals(&report, site_function);
    }
}

/// The program of `cargo xtask bench ledger`, which asks for more.
fn many_blocks() {
    const BLOCKS: &str = "700000";
    let ledger = fixture::build("ledger.c", &["-fno-builtin"]);
    let mut program = Program::start_until(Command::new(ledger).args([BLOCKS, "4096"]), "ready");
    let heapscope = Heapscope::attach(program.pid(), &[]);
    program.ask(&format!("fill {BLOCKS}"));
    let report = heapscope.stop();
    program.say("record");
    Record::hear(&program, |_| {}).assert_equals(&report, path_of_site);
}
