//! `--children`: processes that the target forks, whatever they do then, each with a ledger of its own.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{
    case::{Case, case},
    fixture,
    heapscope::{Heapscope, heapscope},
    program::{Program, send},
    report::Report,
};

pub(crate) const CASES: &[Case] = &[
    case("children::a_copy_of_the_target", a_copy_of_the_target),
    case("children::that_execute_a_program", that_execute_a_program),
    case("children::of_children", of_children),
    case("children::that_are_there_already", that_are_there_already),
    case("children::of_a_program_that_is_run", of_a_program_that_is_run),
    case("children::are_left_alone_unless_asked_for", are_left_alone_unless_asked_for),
];

/// The program with its family.
struct Family(Program);

impl Family {
    fn start() -> Self {
        Self(Program::start_until(&mut Command::new(fixture::build("family.c", &[])), "ready"))
    }

    fn order(&mut self, order: &str) {
        assert_eq!(self.0.ask(order), "done", "{order}");
    }

    /// A child, made by fork, vfork or spawn.
    fn child(&mut self, how: &str) -> u32 {
        self.0.ask(how).parse().unwrap()
    }
}

/// Waits until this process is watched.
fn watched(heapscope: &mut Heapscope, pid: u32) {
    while !heapscope.hear("attached").contains(&format!("(pid {pid})")) {}
}

/// What is said of a process: the blocks of 100 bytes that its `leak` has kept.
fn assert_kept(report: &Report, pid: u32, blocks: u64) {
    assert_eq!(report.target.pid, pid);
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    let leak = report.below("leak");
    assert_eq!((leak.inuse_objects, leak.inuse_space), (blocks, 100 * blocks));
}

fn a_copy_of_the_target() {
    let mut family = Family::start();
    let parent = family.0.pid();
    let mut heapscope = Heapscope::attach(parent, &["--children"]);
    family.order("leak 3 100");
    let child = family.child("fork");
    watched(&mut heapscope, child);
    family.order(&format!("to {child} leak 4 100"));
    // It inherited the first two: their allocation was another process's.
    family.order(&format!("to {child} free 2"));
    family.order("leak 1 100");
    let (report, children) = heapscope.stop_family([child]);
    assert_kept(&report, parent, 4);
    assert_kept(&children[0], child, 4);
    assert_eq!(children[0].quality.unmatched_frees, 2);
    assert_eq!(report.quality.unmatched_frees, 0);
}

fn that_execute_a_program() {
    let mut family = Family::start();
    let parent = family.0.pid();
    let mut heapscope = Heapscope::attach(parent, &["--children"]);
    let children = ["vfork", "spawn", "fork"].map(|how| {
        let child = family.child(how);
        watched(&mut heapscope, child);
        child
    });
    // What it had before the exec is gone.
    family.order(&format!("to {} exec", children[2]));
    watched(&mut heapscope, children[2]);
    for (blocks, child) in (5..).zip(children) {
        family.order(&format!("to {child} leak {blocks} 100"));
    }
    // One ends on its own.
    family.order(&format!("to {} exit", children[0]));
    let [first, second, third] = children;
    let numbers = [first.to_string(), second.to_string(), format!("{third}-2")];
    let (report, reports) = heapscope.stop_family(numbers);
    assert_eq!(report.below("leak").alloc_objects, 0);
    for ((blocks, child), report) in (5..).zip(children).zip(&reports) {
        assert_kept(report, child, blocks);
    }
}

fn of_children() {
    let mut family = Family::start();
    let mut heapscope = Heapscope::attach(family.0.pid(), &["--children"]);
    let child = family.child("spawn");
    watched(&mut heapscope, child);
    let grandchild: u32 = family.0.ask(&format!("to {child} fork")).parse().unwrap();
    watched(&mut heapscope, grandchild);
    family.order(&format!("to {child} to {grandchild} leak 7 100"));
    let (_, reports) = heapscope.stop_family([grandchild]);
    assert_kept(&reports[0], grandchild, 7);
}

fn that_are_there_already() {
    let mut family = Family::start();
    let child = family.child("fork");
    let grandchild: u32 = family.0.ask(&format!("to {child} spawn")).parse().unwrap();
    let pid = family.0.pid();
    let arguments = ["attach", &pid.to_string(), "--exact", "--children", "-o", "report.json"];
    let mut heapscope = Heapscope::start(&mut heapscope(&arguments));
    // In any order.
    let mut unheard = vec![pid, child, grandchild];
    while !unheard.is_empty() {
        let line = heapscope.hear("attached");
        unheard.retain(|pid| !line.contains(&format!("(pid {pid})")));
    }
    family.order(&format!("to {child} leak 2 100"));
    family.order(&format!("to {child} to {grandchild} leak 3 100"));
    let (_, reports) = heapscope.stop_family([child, grandchild]);
    assert_kept(&reports[0], child, 2);
    assert_kept(&reports[1], grandchild, 3);
}

fn of_a_program_that_is_run() {
    let program = fixture::build("family.c", &[]);
    let mut command = heapscope(&["run", "--children", "-o", "report.json", "--"]);
    let mut heapscope = Heapscope::start_with(command.arg(program).stdin(Stdio::piped()));
    assert_eq!(heapscope.hear_output(), "ready");
    // From when it takes marks, children are told of, not looked for.
    heapscope.hear("attached");
    send(heapscope.pid(), Signal::USR1);
    heapscope.hear("mark");
    heapscope.write("spawn\n");
    let child: u32 = heapscope.hear_output().parse().unwrap();
    watched(&mut heapscope, child);
    heapscope.write(&format!("to {child} leak 9 100\nexit\n"));
    let (_, reports) = heapscope.end_of_family([child]);
    assert_kept(&reports[0], child, 9);
}

fn are_left_alone_unless_asked_for() {
    let mut family = Family::start();
    let heapscope = Heapscope::attach(family.0.pid(), &[]);
    let child = family.child("fork");
    family.order(&format!("to {child} leak 4 100"));
    family.order("leak 1 100");
    send(heapscope.pid(), Signal::INT);
    let outcome = heapscope.finish();
    assert_kept(&outcome.report.unwrap(), family.0.pid(), 1);
    // Nothing is said of the child, as it would be if it were watched.
    let said = [outcome.output, outcome.errors];
    assert!(said.iter().all(|text| !text.contains(&format!("(pid {child})"))), "{said:?}");
}
