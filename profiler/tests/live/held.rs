//! Targets that somebody else holds: stopped, in a debugger, confined by a filter of system calls; and one that ends in the
//! midst of its allocations.

use std::process::Command;

use rustix::process::Signal;

use crate::{
    script::Script,
    support::{
        case::{Case, case, case_with, methods},
        fixture,
        heapscope::{Heapscope, heapscope},
        needs::Need,
        program::{Program, send, state},
        until,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("held::stopped_by_a_signal", stopped_by_a_signal),
    case_with("held::by_a_debugger", &[Need::Program("gdb")], by_a_debugger),
    case("held::by_a_filter_of_system_calls", by_a_filter_of_system_calls),
    case("held::ends_in_the_midst_of_its_calls", ends_in_the_midst_of_its_calls),
];

fn stopped_by_a_signal() {
    for method in methods() {
        let mut script = Script::start();
        script.orders(&["red malloc 1 10"]);
        send(script.pid(), Signal::STOP);
        until("it is stopped", || state(script.pid()) == "T");
        // It is found, probed, and let go, without a step of its own.
        let first = Heapscope::attach(script.pid(), &["--probes", method]);
        let second = Heapscope::attach(script.pid(), &["--probes", method]);
        assert_eq!(first.stop().totals.alloc_objects, 0);
        assert_eq!(state(script.pid()), "T");
        send(script.pid(), Signal::CONT);
        script.watched();
        script.orders(&["red malloc 2 1000", "blue realloc 1 200"]);
        // Stopped while it is watched, it stays so.
        send(script.pid(), Signal::STOP);
        until("it is stopped", || state(script.pid()) == "T");
        let report = second.stop();
        assert_eq!(state(script.pid()), "T", "{method}");
        send(script.pid(), Signal::CONT);
        script.assert_account(&report);
        script.orders(&["green malloc 3 10"]);
    }
}

/// The debugger has breakpoints of its own, one on a function that allocates, and steps over them while the probes are
/// hit.
fn by_a_debugger() {
    for method in methods() {
        let mut script = Script::start();
        let mut gdb = Program::start(
            Command::new("gdb").args(["-q", "-batch", "-nx", "-p", &script.pid().to_string()]).args([
                "-ex",
                "dprintf green,\"green\\n\"",
                "-ex",
                "echo traced\\n",
                "-ex",
                "continue",
            ]),
        );
        while gdb.hear() != "traced" {}
        until("the debugger lets it run", || state(script.pid()) == "S");
        let heapscope = Heapscope::attach(script.pid(), &["--probes", method]);
        script.watched();
        script.orders(&[
            "red malloc 1 100",
            "green malloc 2 200",
            "blue calloc 3 10 30",
            "green realloc 1 5000",
        ]);
        script.repeat(50, "green", 100, 30);
        script.free(2);
        let report = heapscope.stop();
        script.assert_account(&report);
        report.assert_stacks_whole();
        // Nor is the debugger the worse for it: it has seen each of the calls.
        script.orders(&["green malloc 4 10"]);
        for _ in 0..54 {
            while gdb.hear() != "green" {}
        }
        assert!(gdb.is_alive(), "{method}");
        send(gdb.pid(), Signal::TERM);
        gdb.wait();
    }
}

/// A call that the filter does not know would end the target by SIGSYS: probes of returns use one.
fn by_a_filter_of_system_calls() {
    for method in methods() {
        let mut script = Script::start();
        script.control("confine", "done");
        let heapscope = Heapscope::attach(script.pid(), &["--probes", method]);
        script.watched();
        script.orders(&["red malloc 1 100", "blue realloc 1 200000", "green posix_memalign 2 64 1000"]);
        script.repeat(1000, "blue", 100, 64);
        script.free_range(100, 1000);
        let report = heapscope.stop();
        script.assert_account(&report);
        report.assert_stacks_whole();
        script.orders(&["red malloc 5 100"]);
        script.program.close_input();
        assert_eq!(script.program.wait().code(), Some(0), "{method}");
    }
}

/// Whatever call the end cuts off, no more than the block that each thread may hold is live.
fn ends_in_the_midst_of_its_calls() {
    let program = fixture::build("exits.c", &["-pthread"]);
    for (round, method) in methods().collect::<Vec<_>>().into_iter().cycle().take(12).enumerate() {
        let options = ["run", "-o", "report.json", "--probes", method, "--"];
        let microseconds = (1000 + 700 * round).to_string();
        let outcome = Heapscope::start(heapscope(&options).arg(&program).arg(microseconds)).finish();
        assert_eq!(outcome.status, 7, "{}", outcome.errors);
        let report = outcome.report.expect("no report was written");
        report.assert_nothing_lost();
        let held = report.below("hold");
        assert!(held.inuse_objects <= 4 && held.inuse_space <= 4 * 50_000, "{method}: {held:?}");
    }
}
