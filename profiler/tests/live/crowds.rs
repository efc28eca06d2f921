//! Losses that take a crowd of threads: each is provoked, counted, said in words, and leaves the rest of the account right.

use std::process::Command;

use rustix::process::Signal;

use crate::{
    limits::assert_lost,
    support::{
        case::{Case, case, case_with, methods},
        fixture::build,
        heapscope::{Heapscope, Outcome},
        needs::Need,
        program::{Program, send},
        report::{Report, Totals},
    },
};

pub(crate) const CASES: &[Case] = &[
    case("crowds::more_calls_under_way_than_there_is_room_for", more_calls_under_way),
    case("crowds::calls_under_way_when_the_probes_come", calls_under_way_at_the_beginning),
    case("crowds::more_names_of_threads_than_there_is_room_for", more_names_of_threads),
    case_with("crowds::more_walks_under_way_than_there_is_room_for", &[Need::Preemption], more_walks),
];

/// Calls under way that there is room for (`PENDING` of profiler-ebpf, `maps.rs`).
const MOST_CALLS: u64 = 8192;
/// Names of threads (`MAX_THREAD_NAMES` of profiler-common, `records.rs`).
const MOST_NAMES: u64 = 4096;
const SLOW: [&str; 2] = ["--allocator", "alloc=slow_get(size=0);free=slow_put(ptr=0)"];

fn gather(threads: u64) -> Program {
    let mut program = Program::start_until(&mut Command::new(build("crowd.c", &[])), "ready");
    assert_eq!(program.ask(&format!("gather {threads}")), "done");
    program
}

fn end(heapscope: Heapscope) -> (Report, Outcome) {
    send(heapscope.pid(), Signal::INT);
    let mut outcome = heapscope.finish();
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    (outcome.report.take().expect("no report was written"), outcome)
}

/// Where the kernel carries nothing from the entry to the return.
fn without_sessions() -> impl Iterator<Item = &'static str> {
    methods().filter(|method| *method != "session")
}

fn more_calls_under_way() {
    const TOO_MANY: u64 = 123;
    for method in without_sessions() {
        let mut program = gather(MOST_CALLS + TOO_MANY);
        let heapscope =
            Heapscope::attach(program.pid(), &[&SLOW[..], &["--exact", "--probes", method]].concat());
        assert_eq!(program.ask("enter"), "inside");
        assert_eq!(program.ask("leave"), "done");
        // When they have returned, there is room again.
        assert_eq!(program.ask("enter"), "inside");
        assert_eq!(program.ask("leave"), "done");
        let (report, outcome) = end(heapscope);
        assert_eq!(report.quality.lost["pending_map_full"], 2 * TOO_MANY, "{method}");
        // Of such a call the return is seen, and nothing is known of it.
        assert_eq!(report.quality.lost["unpaired_return"], 2 * TOO_MANY, "{method}");
        let blocks = 2 * MOST_CALLS;
        let of_slow = Totals {
            inuse_space: 100 * blocks,
            inuse_objects: blocks,
            alloc_space: 100 * blocks,
            alloc_objects: blocks,
        };
        assert_eq!(report.sum(|site| site.allocator.contains("slow_get")), of_slow, "{method}");
        let said = "246 allocations not recorded: too many calls were under way at once";
        assert!(outcome.output.contains(said), "{}", outcome.output);
    }
}

const THREADS: u64 = 256;

fn calls_under_way_at_the_beginning() {
    for method in without_sessions() {
        // The links come one shortly after the other: what begins in between is a matter of luck.
        assert!((0..30).any(|_| begins_in_between(method)), "{method}: nothing has begun between two links");
    }
}

fn begins_in_between(method: &str) -> bool {
    let mut program = gather(THREADS);
    assert_eq!(program.ask("begin"), "begun");
    let heapscope = Heapscope::attach(program.pid(), &[&SLOW[..], &["--exact", "--probes", method]].concat());
    assert_eq!(program.ask("end"), "done");
    let (report, outcome) = end(heapscope);
    let unpaired = report.quality.lost["unpaired_return"];
    let said = outcome.output.contains("not recorded: the call began before the probes were there");
    assert_eq!(said, unpaired > 0, "{}", outcome.output);
    assert_lost(&report, if said { &["unpaired_return"] } else { &[] });
    // Each thread is in one call at a time.
    assert!(unpaired <= THREADS, "{method}: {unpaired}");
    println!("{method}: {unpaired}");
    said
}

fn more_names_of_threads() {
    const TOO_MANY: u64 = 77;
    const EACH: u64 = 5;
    let mut program = gather(MOST_NAMES + TOO_MANY);
    let heapscope = Heapscope::attach(program.pid(), &["--exact"]);
    assert_eq!(program.ask(&format!("allocate {EACH}")), "done");
    let (report, outcome) = end(heapscope);
    assert_lost(&report, &["thread_name_lost"]);
    let lost = report.quality.lost["thread_name_lost"];
    // Where two threads take a number for the same name at once, one of the numbers is wasted: never here.
    assert_eq!(lost, TOO_MANY * EACH);
    let blocks = (MOST_NAMES + TOO_MANY) * EACH;
    let below = report.below("act");
    assert_eq!((below.alloc_objects, below.inuse_space), (blocks, 24 * blocks));
    let said = "385 allocations without the thread's name: there are too many names";
    assert!(outcome.output.contains(said), "{}", outcome.output);
}

/// Threads that are interrupted in the midst of a walk hold its memory until they go on, which is after all others have had
/// their turn.
fn more_walks() {
    const EACH: u64 = 500;
    let mut program = gather(40);
    let heapscope = Heapscope::attach(program.pid(), &["--exact"]);
    assert_eq!(program.ask(&format!("dig {EACH}")), "done");
    let (report, outcome) = end(heapscope);
    let lost = report.quality.lost["scratch_busy"];
    assert_eq!(report.totals.alloc_objects, 40 * EACH);
    if lost == 0 {
        // 60,000 walks on Linux 6.1 with preempt=full, emulated, have not met either.
        println!("no five walks have met on one processor");
        assert_lost(&report, &[]);
        return;
    }
    assert_lost(&report, &["scratch_busy"]);
    let common = report.sites.iter().find(|site| site.functions()[0].starts_with("[stack not taken"));
    assert_eq!(common.unwrap().totals.alloc_objects, lost);
    let said = "without a stack: every scratch slot was in use";
    assert!(outcome.output.contains(said), "{}", outcome.output);
}
