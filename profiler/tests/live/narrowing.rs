//! `--only-caller`, `--min-size` and `--max-size`: what is left out is left out before it costs anything, and what is not
//! is counted to the byte.

use std::{collections::BTreeSet, process::Command};

use crate::support::{
    case::{Case, case, case_with, methods},
    fixture::build,
    heapscope::{Heapscope, heapscope},
    needs::Need,
    program::Program,
    report::{Report, Site, Totals},
};

pub(crate) const CASES: &[Case] = &[
    case("narrowing::calls_are_probed_where_they_are_made", calls_are_probed_where_they_are_made),
    case("narrowing::calls_through_pointers_are_told_by_their_return", through_pointers),
    case("narrowing::jumps_count_as_calls", jumps_count_as_calls),
    case("narrowing::others_may_resize_and_free", others_may_resize_and_free),
    case("narrowing::failures_and_paths_that_meet", failures_and_paths_that_meet),
    case("narrowing::calls_without_plt_and_in_static_programs", other_builds),
    case("narrowing::methods_by_their_readable_names", methods_by_readable_names),
    case("narrowing::a_program_from_its_start", a_program_from_its_start),
    case("narrowing::samples_of_one_function", samples_of_one_function),
    case("narrowing::what_is_not_there_is_said", what_is_not_there_is_said),
    case_with("narrowing::names_from_a_debug_file", &[Need::Program("objcopy")], names_from_a_debug_file),
    case("narrowing::a_size_filter_skips_the_return", a_size_filter_skips_the_return),
];

fn start(flags: &[&str]) -> Program {
    let mut program = Program::start_until(&mut Command::new(build("callers.c", flags)), "ready");
    // stdin has its buffer by now.
    assert_eq!(program.ask("drop 0 0"), "done");
    program
}

/// What a program does while it is watched.
fn watch(program: &mut Program, options: &[&str], orders: &[&str]) -> Report {
    let heapscope = Heapscope::attach(program.pid(), options);
    for order in orders {
        assert_eq!(program.ask(order), "done");
    }
    let report = heapscope.stop();
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    report
}

fn totals(inuse_objects: u64, inuse_space: u64, alloc_objects: u64, alloc_space: u64) -> Totals {
    Totals { inuse_space, inuse_objects, alloc_space, alloc_objects }
}

/// Of 100 bytes by malloc, calloc (twice as many), posix_memalign and aligned_alloc.
const KINDS: u64 = 100 + 200 + 100 + 128;

fn calls_are_probed_where_they_are_made() {
    for method in methods() {
        let mut program = start(&[]);
        let options = ["--only-caller", "direct_*", "--probes", method];
        let orders = ["foreign 1000 50", "direct_kinds 20 100", "direct_checked 10 33", "foreign 1000 50"];
        let report = watch(&mut program, &options, &orders);
        assert_eq!(report.totals, totals(90, 20 * KINDS + 330, 90, 20 * KINDS + 330), "{method}");
        // Two probes for each call of ours; those of others do not trap.
        assert_eq!(report.quality.probe_hits, 2 * 90, "{method}");
        let only = report.mode.only_caller.as_ref().unwrap();
        assert!(
            only.by_calls && only.how.contains("direct_kinds (") && only.how.contains("direct_checked (")
        );
        assert!(only.how.contains("2 × malloc") && only.how.contains("1 × posix_memalign"), "{}", only.how);
        for site in &report.sites {
            assert!(
                ["direct_kinds", "direct_checked"].contains(&site.functions()[0]),
                "{:?}",
                site.functions()
            );
            assert_eq!(site.allocator, "glibc");
        }
        assert_eq!(report.sites.len(), 5, "each call is a site");
        // The stacks are those that probes on malloc see, to the byte.
        let seen_at_malloc =
            watch(&mut program, &["--probes", method], &["direct_kinds 1 100", "direct_checked 1 33"]);
        assert_eq!(stacks(&report), stacks(&seen_at_malloc), "{method}");
    }
}

/// The return addresses of each site, the caller's first.
fn stacks(report: &Report) -> BTreeSet<Vec<u64>> {
    report.sites.iter().map(Site::return_addresses).collect()
}

fn through_pointers() {
    for method in methods() {
        let mut program = start(&[]);
        let options = ["--only-caller", "pointing", "--probes", method];
        let report =
            watch(&mut program, &options, &["foreign 1000 50", "pointing 30 10", "foreign_resize 20 70"]);
        let blocks = totals(60 - 20, 600 - 200, 60, 600);
        assert_eq!(report.totals, blocks, "{method}");
        let only = report.mode.only_caller.as_ref().unwrap();
        assert!(!only.by_calls && only.how.contains("pointer"), "{}", only.how);
        // malloc, and the reallocs of somebody else.
        assert_eq!(report.quality.other_callers, 1000 + 20, "{method}");
        assert_eq!(report.sites.len(), 2);
        assert!(report.sites.iter().all(|site| site.functions()[0] == "pointing"));
        if method == "session" {
            // Who is left at the entry has no return run; of ours, there are both.
            assert_eq!(report.quality.probe_hits, 1000 + 2 * 60 + 2 * 20);
        }
    }
}

fn jumps_count_as_calls() {
    for method in methods() {
        let mut program = start(&[]);
        let options = ["--only-caller", "jumping", "--only-caller", "resize_by_jump", "--probes", method];
        let orders = ["foreign 1000 50", "jumping 30 10", "resize_by_jump 1 1000", "resize_by_jump 1 20"];
        let report = watch(&mut program, &options, &orders);
        // A jump leaves no frame behind: the stack begins with who called the function.
        assert!(report.sites.iter().all(|site| !site.has("jumping")), "{method}");
        assert_eq!(report.totals, totals(30, 29 * 10 + 20, 32, 300 + 1000 + 20), "{method}");
        assert!(report.mode.only_caller.as_ref().unwrap().by_calls);
    }
}

fn others_may_resize_and_free() {
    for method in methods() {
        let mut program = start(&[]);
        let options = ["--only-caller", "direct_checked", "--only-caller", "resizing", "--probes", method];
        let orders =
            ["direct_checked 50 100", "foreign_resize 10 200", "drop 15 0", "resizing 7 64", "drop 2 0"];
        let report = watch(&mut program, &options, &orders);
        // Of 50, 10 became somebody else's; these and 5 more were freed. `resizing` makes a block, and of it another.
        let blocks = totals(35 + 5, 3500 + 5 * 128, 50 + 14, 5000 + 7 * (64 + 128));
        assert_eq!(report.totals, blocks, "{method}");
        assert_eq!(report.quality.unmatched_frees, 10, "{method}");
    }
}

fn failures_and_paths_that_meet() {
    let mut program = start(&[]);
    let report = watch(&mut program, &["--only-caller", "failing"], &["failing 10 100"]);
    assert_eq!((report.totals, report.quality.failed_allocations), (totals(10, 1000, 10, 1000), 10));
    let report = watch(&mut program, &["--only-caller", "twice"], &["twice 11 100", "twice 11 101"]);
    assert_eq!(report.totals, totals(44, 22 * 201, 44, 22 * 201));
}

fn other_builds() {
    for flags in
        [&["-fno-plt"][..], &["-static"], &["-static-pie", "-fPIE"], &["-no-pie", "-fno-pie"], &["-O0"]]
    {
        let mut program = start(flags);
        let options = ["--only-caller", "direct_kinds"];
        let report = watch(&mut program, &options, &["foreign 500 50", "direct_kinds 20 100"]);
        assert_eq!(report.totals, totals(80, 20 * KINDS, 80, 20 * KINDS), "{flags:?}");
        assert!(report.mode.only_caller.as_ref().unwrap().by_calls, "{flags:?}");
        assert_eq!(report.quality.probe_hits, 2 * 80, "{flags:?}");
    }
}

fn methods_by_readable_names() {
    let program = || {
        let mut program = Program::start_until(&mut Command::new(build("callers.cpp", &[])), "ready");
        assert_eq!(program.ask("0 0"), "done");
        program
    };
    let by = |name, functions: u64| {
        let report = watch(&mut program(), &["--only-caller", name], &["100 40"]);
        let blocks = 100 * functions;
        assert_eq!(report.totals, totals(blocks, 40 * blocks, blocks, 40 * blocks), "{name}");
        report
    };
    for (name, functions) in [
        ("Cache::insert", 2),
        ("Cache::insert(int)", 1),
        ("_ZN5Cache6insertEPKc", 1),
        ("Cache::put", 1),
        ("void Cache::put<long>(long)", 1),
    ] {
        let report = by(name, functions);
        assert!(report.mode.only_caller.as_ref().unwrap().by_calls, "{name}");
    }
    // A virtual function may be anything: the operators are asked who calls.
    let report = by("Cache::visit", 1);
    assert!(!report.mode.only_caller.as_ref().unwrap().by_calls);
    let report = by("Cache::*", 4);
    // Each operator of others calls malloc, which is asked too.
    assert_eq!(report.quality.other_callers % 100, 0);
    assert!(report.sites.iter().all(|site| site.functions()[0].starts_with("Cache::") || site.has("main")));
}

fn a_program_from_its_start() {
    let program = build("callers.c", &[]);
    let options = ["run", "-o", "report.json", "--only-caller", "direct_kinds", "--"];
    let mut command = heapscope(&options);
    command.arg(&program).stdin(std::process::Stdio::piped());
    let mut heapscope = Heapscope::start_with(&mut command);
    heapscope.write("foreign 100 50\ndirect_kinds 20 100\n");
    heapscope.close_input();
    let report = heapscope.report();
    report.assert_nothing_lost();
    assert_eq!(report.totals, totals(80, 20 * KINDS, 80, 20 * KINDS));
    assert!(report.mode.only_caller.as_ref().unwrap().by_calls);
}

/// Blocks of many times the interval: each is sampled, and stands for itself.
fn samples_of_one_function() {
    let mut program = start(&[]);
    for function in ["direct_checked", "pointing"] {
        let options = ["--only-caller", function, "--sample", "1KiB"];
        let report = watch(&mut program, &options, &["foreign 500 50000", &format!("{function} 20 100000")]);
        let blocks = if function == "pointing" { 40 } else { 20 };
        assert_eq!(report.totals, totals(blocks, blocks * 100_000, blocks, blocks * 100_000), "{function}");
    }
    // Small ones of two functions, one of which is meant: all that is sampled is its own.
    let report = watch(
        &mut program,
        &["--only-caller", "twice", "--sample", "400"],
        &["foreign 2000 40", "twice 2000 40"],
    );
    let error = report.standard_errors.unwrap().alloc_objects;
    assert!(
        report.totals.alloc_objects.abs_diff(4000) <= 6 * error && error < 300,
        "{:?} ± {error}",
        report.totals
    );
    let seen = report.quality.unsampled_allocations;
    assert!((3_400..3_900).contains(&seen), "{seen}");
}

fn refused(program: &Program, options: &[&str]) -> String {
    let pid = program.pid().to_string();
    let outcome =
        Heapscope::start(&mut heapscope(&[&["attach", &pid, "-d", "1s"], options].concat())).finish();
    assert_eq!(outcome.status, 1);
    outcome.errors
}

fn what_is_not_there_is_said() {
    let program = start(&[]);
    let text = refused(&program, &["--only-caller", "direct_kind"]);
    assert!(text.contains("`direct_kind`") && text.contains("`direct_kinds`"), "{text}");
    let text = refused(&program, &["--only-caller", "nothing_like_it_at_all"]);
    assert!(text.contains("no function"), "{text}");
    let text = refused(&program, &["--only-caller", "innocent"]);
    assert!(text.contains("`innocent` calls no allocator itself"), "{text}");
    let text = refused(&program, &["--only-caller", "direct_kinds", "--only-caller", "dirct_checked"]);
    assert!(text.contains("`direct_checked`"), "{text}");
}

fn names_from_a_debug_file() {
    let folder = tempfile::TempDir::new().unwrap();
    let whole = build("callers.c", &[]);
    let [stripped, debug] = ["callers", "callers.debug"].map(|name| folder.path().join(name));
    let objcopy = |arguments: &[&std::ffi::OsStr]| {
        assert!(Command::new("objcopy").args(arguments).status().unwrap().success());
    };
    objcopy(&["--only-keep-debug".as_ref(), whole.as_os_str(), debug.as_os_str()]);
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&debug);
    objcopy(&["--strip-all".as_ref(), link.as_os_str(), whole.as_os_str(), stripped.as_os_str()]);
    let mut program = Program::start_until(&mut Command::new(&stripped), "ready");
    let report =
        watch(&mut program, &["--only-caller", "direct_checked"], &["direct_checked 20 100", "foreign 20 9"]);
    assert_eq!(report.totals, totals(20, 2000, 20, 2000));
    assert!(report.mode.only_caller.as_ref().unwrap().by_calls);
}

fn a_size_filter_skips_the_return() {
    for method in methods() {
        let mut program = start(&[]);
        let options = ["--min-size", "100", "--max-size", "1000", "--probes", method];
        let orders = ["foreign 1000 99", "foreign 1000 1001", "foreign 50 100", "foreign 50 1000"];
        let report = watch(&mut program, &options, &orders);
        assert_eq!(report.totals, totals(100, 55_000, 100, 55_000), "{method}");
        assert_eq!(report.quality.filtered_allocations, 2000, "{method}");
        // Where the kernel asks the entry, the return of a call that is left out is not run; elsewhere it finds nothing.
        let returns = if method == "session" { 100 } else { 2100 };
        assert_eq!(report.quality.probe_hits, 2100 + returns, "{method}");
    }
}
