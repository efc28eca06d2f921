//! Threads and child processes.

use std::process::Command;

use crate::{
    script::Script,
    support::{
        case::{Case, case, methods},
        fixture,
        heapscope::Heapscope,
        model::THREAD_CACHE,
        program::Program,
        report::{Quality, Totals},
    },
};

pub(crate) const CASES: &[Case] = &[
    case("threads::allocation_in_threads_that_end", allocation_in_threads_that_end),
    case("threads::freed_by_another_thread", freed_by_another_thread),
    case("threads::hammered_by_four_at_once", hammered_by_four_at_once),
    case("threads::a_child_process_is_not_counted", a_child_process_is_not_counted),
];

fn allocation_in_threads_that_end() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    for slot in 0..20 {
        script.in_thread(&format!("red malloc {slot} {}", 100 + slot));
        script.in_thread(&format!("blue realloc {slot} {}", 5000 + slot));
    }
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
    // Those of a thread begin with the thread.
    assert!(report.sites.iter().filter(|site| site.has("red")).all(|site| !site.has("main")));
}

fn freed_by_another_thread() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.repeat(40, "green", 100, 2000);
    for slot in 100..110 {
        script.free_in_thread(slot);
    }
    script.in_thread("red malloc 1 99");
    script.free(1);
    let report = heapscope.stop();
    script.assert_account(&report);
    assert_eq!(report.below("green").inuse_objects, 30);
    assert_eq!(report.below("red").inuse_objects, 0);
}

fn hammered_by_four_at_once() {
    for method in methods() {
        let mut program =
            Program::start_until(Command::new(fixture::build("hammer.c", &[])).args(["4", "1500"]), "ready");
        let heapscope = Heapscope::attach(program.pid(), &["--probes", method]);
        let answer = program.ask("go");
        let report = heapscope.stop();
        let numbers: Vec<u64> = answer.split(' ').map(|number| number.parse().unwrap()).collect();
        let [inuse_space, inuse_objects, alloc_space, alloc_objects, damaged] = numbers[..] else {
            panic!("{answer}")
        };
        assert_eq!(damaged, 0);
        assert!(alloc_objects > 1000, "{answer}");
        assert_eq!(
            report.below("work"),
            Totals { inuse_space, inuse_objects, alloc_space, alloc_objects },
            "{method}"
        );
        report.assert_nothing_lost();
        report.assert_stacks_whole();
        let Quality { failed_allocations, unmatched_frees, probe_hits, .. } = report.quality;
        assert_eq!(failed_allocations, 0);
        assert!(unmatched_frees <= 4 * THREAD_CACHE, "{unmatched_frees}");
        // An entry and a return of each allocation, those of a call inside another, and each free.
        assert!((2 * alloc_objects..=5 * alloc_objects).contains(&probe_hits), "{probe_hits} {answer}");
    }
}

fn a_child_process_is_not_counted() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&["red malloc 1 100", "red malloc 2 200"]);
    // The child has copies of the blocks; what it does with them is its own affair.
    script.control("fork free 1", "status 0");
    script.control("fork red realloc 2 60000", "status 0");
    script.control("fork repeat 1000 blue malloc 1000 48", "status 0");
    script.orders(&["green malloc 3 300"]);
    script.free(2);
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
}
