//! Programs that tell of their allocations by USDT probes of their own: what is reported is what they have told, by their
//! own arithmetic, and their allocator has no probes.

use std::process::Command;

use crate::support::{
    case::{Case, case, methods},
    fixture::build,
    heapscope::{Heapscope, heapscope},
    program::Program,
    report::{Report, Totals},
};

pub(crate) const CASES: &[Case] = &[
    case("usdt::what_is_told_is_what_is_reported", what_is_told_is_what_is_reported),
    case("usdt::listeners_are_counted_and_leave_nothing", listeners_are_counted),
    case("usdt::used_of_its_own_accord_where_a_budget_is_kept", used_of_its_own_accord),
    case("usdt::a_program_from_its_start", a_program_from_its_start),
    case("usdt::what_makes_no_sense_is_counted", what_makes_no_sense_is_counted),
];

fn start(flags: &[&str]) -> Program {
    Program::start_until(&mut Command::new(build("tells.c", flags)), "ready")
}

/// The program's own sums of what it has told.
fn sums(program: &mut Program) -> Totals {
    let sums = program.ask("sum 0 0 0");
    let sums: Vec<u64> = sums.split(' ').map(|sum| sum.parse().unwrap()).collect();
    let [inuse_objects, inuse_space, alloc_objects, alloc_space] = sums[..] else { panic!("{sums:?}") };
    Totals { inuse_space, inuse_objects, alloc_space, alloc_objects }
}

const ORDERS: [&str; 6] = [
    "plain 1000 100 1",
    "plain 3000 48 7",
    "framed 2000 1000 10",
    "drop 1500 0 0",
    "fixed 500 128 3",
    "drop 200 0 0",
];

fn watch(program: &mut Program, options: &[&str]) -> Report {
    let heapscope = Heapscope::attach(program.pid(), options);
    for order in ORDERS {
        assert_eq!(program.ask(order), "done");
    }
    let report = heapscope.stop();
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    report
}

fn assert_told(report: &Report, sums: Totals, what: &str) {
    assert_eq!(report.totals, sums, "{what}");
    assert_eq!(report.mode.sampling, "usdt", "{what}");
    assert!(report.standard_errors.is_none(), "{what}: the program does not say how it samples");
    for site in &report.sites {
        let functions = site.functions();
        let told_in = match functions[0] {
            "tell_of" => functions[1],
            told_in => told_in,
        };
        assert!(["plain", "framed", "fixed"].contains(&told_in), "{functions:?}");
        assert_eq!(site.allocator, "otel_memory");
    }
    let of = |function: &str| report.below(function).alloc_space;
    assert_eq!(of("framed"), 2000 * 1000, "{what}");
    assert_eq!(of("fixed"), 166 * 3 * 128, "{what}");
}

/// Blocks told and freed by [`ORDERS`].
const TOLD: u64 = 1000 + 428 + 200 + 166;
const FREED: u64 = 150 + 66;

fn what_is_told_is_what_is_reported() {
    for method in methods() {
        let mut program = start(&[]);
        let report = watch(&mut program, &["--usdt", "always", "--probes", method]);
        assert_told(&report, sums(&mut program), method);
        // malloc and free do not trap.
        assert_eq!(report.quality.probe_hits, TOLD + FREED, "{method}");
        assert_eq!(report.quality.unmatched_frees, 0, "{method}");
    }
}

fn listeners_are_counted() {
    for method in methods() {
        let mut program = start(&["-DSEMAPHORE"]);
        assert_eq!(program.ask("listeners 0 0 0"), "0 0");
        let heapscope = Heapscope::attach(program.pid(), &["--usdt", "always", "--probes", method]);
        assert_eq!(program.ask("listeners 0 0 0"), "3 1", "{method}");
        for order in ORDERS {
            assert_eq!(program.ask(order), "done");
        }
        let report = heapscope.stop();
        report.assert_nothing_lost();
        assert_told(&report, sums(&mut program), method);
        assert_eq!(program.ask("listeners 0 0 0"), "0 0", "{method}");
    }
}

fn used_of_its_own_accord() {
    let mut program = start(&[]);
    // With a budget, which it keeps itself; the program is idle but for a moment, which may cost half of its time.
    let report = watch(&mut program, &["--budget", "99%"]);
    assert_told(&report, sums(&mut program), "a budget");
    assert_eq!(report.mode.recorded[0].sampling, "usdt");
    // Where every block is asked for, it is malloc that is asked.
    for options in [&["--budget", "off"][..], &["--budget", "99%", "--usdt", "never"], &["--exact"]] {
        let mut program = start(&[]);
        let heapscope = Heapscope::attach(program.pid(), options);
        for order in ORDERS {
            assert_eq!(program.ask(order), "done");
        }
        let report = heapscope.stop();
        assert_ne!(report.mode.sampling, "usdt", "{options:?}");
        assert!(report.sites.iter().all(|site| site.allocator == "glibc"), "{options:?}");
    }
    let program = Program::start_until(&mut Command::new(build("callers.c", &[])), "ready");
    let pid = program.pid().to_string();
    let outcome =
        Heapscope::start(&mut heapscope(&["attach", &pid, "--usdt", "always", "-d", "1s"])).finish();
    assert_eq!(outcome.status, 1);
    assert!(outcome.errors.contains("otel_memory:alloc"), "{}", outcome.errors);
}

fn a_program_from_its_start() {
    for flags in [&[][..], &["-DSEMAPHORE"], &["-static"]] {
        let mut command = heapscope(&["run", "-o", "report.json", "--usdt", "always", "--"]);
        command.arg(build("tells.c", flags)).stdin(std::process::Stdio::piped());
        let mut heapscope = Heapscope::start_with(&mut command);
        heapscope.write(&format!("{}\nsum 0 0 0\n", ORDERS.join("\n")));
        heapscope.close_input();
        let report = heapscope.report();
        report.assert_nothing_lost();
        let mut same = start(&[]);
        ORDERS.iter().for_each(|order| assert_eq!(same.ask(order), "done"));
        assert_told(&report, sums(&mut same), &format!("{flags:?}"));
    }
}

fn what_makes_no_sense_is_counted() {
    let mut program = start(&[]);
    let heapscope = Heapscope::attach(program.pid(), &["--usdt", "always", "--min-size", "64"]);
    for order in ["nonsense 5 100 0", "plain 10 100 1", "plain 20 63 1"] {
        assert_eq!(program.ask(order), "done");
    }
    let report = heapscope.stop();
    assert_eq!(report.quality.lost["told_unreadable"], 5);
    assert_eq!(report.quality.filtered_allocations, 20);
    assert_eq!((report.totals.inuse_objects, report.totals.inuse_space), (10, 1000));
}
