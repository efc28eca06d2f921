//! `--sample`: estimates beside what the drivers have counted. The bounds are so wide that chance alone exceeds them less than
//! once in a hundred thousand runs, and so narrow that a block that counts twice, or without its weight, does.
//!
//! `cargo xtask bench sampling` looks at many runs, and at what the stated errors are worth.

use std::process::Command;

use crate::{
    allocators::{LIBRARY_JEMALLOC, LIBRARY_MIMALLOC, LIBRARY_TCMALLOC, MUSL, VARIANTS},
    script::{Script, path_of},
    support::{
        case::{Case, case, case_with, methods},
        fixture,
        heapscope::Heapscope,
        model::{Record, path_of_site},
        needs::Need,
        program::Program,
        report::{Site, Totals},
    },
};

pub(crate) const CASES: &[Case] = &[
    case("sampling::estimates_are_true_within_their_errors", estimates_are_true),
    case("sampling::large_blocks_are_counted_exactly", large_blocks),
    case("sampling::calls_inside_calls_in_glibc", || calls_inside_calls(0)),
    case_with("sampling::calls_inside_calls_in_musl", &[MUSL], || calls_inside_calls(2)),
    case_with("sampling::calls_inside_calls_in_jemalloc", &[Need::Library(LIBRARY_JEMALLOC)], || {
        calls_inside_calls(4)
    }),
    case_with("sampling::calls_inside_calls_in_tcmalloc", &[Need::Library(LIBRARY_TCMALLOC)], || {
        calls_inside_calls(6)
    }),
    case_with("sampling::calls_inside_calls_in_mimalloc", &[Need::Library(LIBRARY_MIMALLOC)], || {
        calls_inside_calls(9)
    }),
    case("sampling::calls_inside_calls_of_a_wrapper", || {
        let wrapper = fixture::build("wrap.c", &["-shared", "-fPIC"]);
        assert_calls_count_once("a wrapper", Command::new(fixture::calls()).env("LD_PRELOAD", wrapper));
    }),
];

/// Standard errors that an estimate may be off by.
const BOUND: u64 = 6;

fn assert_within(what: &str, estimate: u64, error: u64, truth: u64) {
    assert!(estimate.abs_diff(truth) <= BOUND * error, "{what}: {estimate} ± {error}, and not {truth}");
}

fn assert_all_within(what: &str, estimate: Totals, error: Totals, truth: Totals) {
    assert_within(what, estimate.inuse_space, error.inuse_space, truth.inuse_space);
    assert_within(what, estimate.inuse_objects, error.inuse_objects, truth.inuse_objects);
    assert_within(what, estimate.alloc_space, error.alloc_space, truth.alloc_space);
    assert_within(what, estimate.alloc_objects, error.alloc_objects, truth.alloc_objects);
}

fn estimates_are_true() {
    const BLOCKS: &str = "200000";
    let ledger = fixture::build("ledger.c", &["-fno-builtin"]);
    for method in methods() {
        let mut program = Program::start_until(Command::new(&ledger).args([BLOCKS, "16"]), "ready");
        let heapscope = Heapscope::attach(program.pid(), &["--sample", "8KiB", "--probes", method]);
        program.ask(&format!("fill {BLOCKS}"));
        program.ask("any 100000");
        let report = heapscope.stop();
        report.assert_nothing_lost();
        program.say("record");
        let record = Record::hear(&program, |_| {});
        let mut all = Totals::default();
        for totals in record.sites().values() {
            all.add(*totals);
        }
        assert_all_within(method, report.totals, report.standard_errors.unwrap(), all);
        // One in some 250 is recorded.
        let unsampled = report.quality.unsampled_allocations;
        assert!((298_000..300_000).contains(&unsampled), "{unsampled}");
        assert_eq!(report.sites.len(), 16);
        for site in &report.sites {
            let path = path_of_site(&site.functions()).unwrap();
            assert_all_within(&path, site.totals, site.standard_errors.unwrap(), record.sites()[&path]);
            // Of some 400,000 bytes.
            let error = site.standard_errors.unwrap().inuse_space;
            assert!((30_000..90_000).contains(&error), "{path}: {error}");
        }
    }
}

/// Many times the interval: each is sampled, and stands for itself.
fn large_blocks() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &["--sample", "1KiB"]);
    script.watched();
    script.orders(&["red malloc 1 100000", "green calloc 2 10 3000", "blue realloc 3 50000"]);
    script.orders(&["blue realloc 3 200000", "red posix_memalign 4 64 70000"]);
    script.free(2);
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let [red, green, blue] =
        ["red", "green", "blue"].map(|path| report.sum(|site| path_of(site).as_deref() == Some(path)));
    assert_eq!((red.inuse_space, green.inuse_space, green.alloc_space), (170_000, 0, 30_000));
    assert_eq!((blue.inuse_space, blue.alloc_space), (200_000, 250_000));
    assert_eq!((report.totals.inuse_objects, report.totals.alloc_objects), (3, 5));
    assert_eq!(report.standard_errors.unwrap(), Totals::default());
    assert_eq!(report.quality.unsampled_allocations, 0);
}

/// Each kind of call on a path of its own: the path, and what it is called with. musl's realloc calls malloc.
const KINDS: [(&str, &[&str]); 6] = [
    ("red", &["malloc SLOT 10", "realloc SLOT 100"]),
    ("green", &["calloc SLOT 10 10"]),
    ("blue", &["realloc SLOT 100"]),
    ("deep", &["reallocarray SLOT 10 10"]),
    ("variable", &["posix_memalign SLOT 64 100"]),
    ("aligned", &["aligned_alloc SLOT 32 96"]),
];
const CALLS: u64 = 2000;

/// A block of a hundred bytes is recorded 63 times of a hundred. If a call inside the call could be recorded in its place,
/// it would be 86 times, and the estimate a third too high.
fn calls_inside_calls(variant: usize) {
    assert_calls_count_once(VARIANTS[variant].name, &mut (VARIANTS[variant].command)());
}

fn assert_calls_count_once(allocator: &str, command: &mut Command) {
    let mut script = Script::of(command);
    let heapscope = Heapscope::attach(script.pid(), &["--sample", "100"]);
    let mut slot = 0;
    for (path, calls) in KINDS {
        for _ in 0..CALLS {
            slot += 1;
            for call in calls {
                script.order(&format!("{path} {}", call.replace("SLOT", &slot.to_string())));
            }
        }
    }
    let report = heapscope.stop();
    report.assert_nothing_lost();
    for (path, calls) in KINDS {
        let mut error = Totals::default();
        let here = |site: &Site| path_of(site).as_deref() == Some(path);
        for site in report.sites.iter().filter(|site| here(site)) {
            let of_site = site.standard_errors.unwrap();
            // Errors add up by their squares; by themselves they are an upper bound.
            error.add(of_site);
        }
        let sum = report.sum(here);
        let what = format!("{path} of {allocator}");
        assert_within(&what, sum.inuse_objects, error.inuse_objects, CALLS);
        assert_within(&what, sum.alloc_objects, error.alloc_objects, CALLS * calls.len() as u64);
        // Six standard errors are far from a third.
        assert!(BOUND * error.inuse_objects < CALLS / 6, "{what}: ± {}", error.inuse_objects);
    }
}
