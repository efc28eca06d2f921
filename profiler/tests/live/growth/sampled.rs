//! Pages in samples, held against what the program knows of all.

use super::{attach_with, start, stop, told::Report};
use crate::support::{heapscope::Heapscope, program::Program};

/// Has the program touch pages in vain until a budget that it does not fit has made a sample of them.
fn until_sampled(program: &mut Program, heapscope: &mut Heapscope) {
    assert_eq!(program.ask("busy 0"), "done");
    heapscope.hear("overhead ");
    assert_eq!(program.ask("rest 0"), "done");
}

/// How far what came by a function is off, in standard errors.
fn assert_near(report: &Report, function: &str, truth: u64) {
    let by = report.by(function);
    let one_in = report.growth.sampling.one_in;
    assert!(by.error > 0 && by.error < truth / 2, "{function}: {by:?}");
    assert!(by.resident.abs_diff(truth) <= 5 * by.error + one_in, "{function}: {truth}, and not {by:?}");
}

pub(super) fn below_the_budget_all_is_exact() {
    let mut program = start();
    let heapscope = attach_with(program.pid(), &["--budget", "90%"]);
    for order in ["heap 3000", "gone 2000", "mapped 500"] {
        assert_eq!(program.ask(order), "done");
    }
    let (outcome, report) = stop(heapscope);
    report.assert_whole();
    assert_eq!((report.by("grow_heap").resident, report.by("grow_mapped").resident), (3000, 500));
    assert!(outcome.output.contains("exact: every page fault with its stack"), "{}", outcome.output);
}

pub(super) fn a_sample_of_pages() {
    let mut program = start();
    let mut heapscope = attach_with(program.pid(), &["--budget", "0.1%", "-o", "growth.svg"]);
    until_sampled(&mut program, &mut heapscope);
    for order in ["heap 60000", "mapped 30000", "gone 20000", "threads 4000"] {
        assert_eq!(program.ask(order), "done");
    }
    // What is given back and touched again is the same pages of the sample.
    assert_eq!(program.ask("again 30000"), "done");
    let (outcome, report) = stop(heapscope);
    let sampling = &report.growth.sampling;
    assert!(!sampling.exact && sampling.one_in > 1 && sampling.one_in.is_power_of_two(), "{sampling:?}");
    assert!(sampling.stacks < sampling.faults, "{sampling:?}");
    assert!(sampling.steps.len() > 1 && sampling.steps.last().unwrap().one_in == sampling.one_in);
    assert!(sampling.context_switches > 0);
    for (function, truth) in [("grow_heap", 60_000), ("touch_again", 30_000), ("in_thread", 16_000)] {
        assert_near(&report, function, truth);
    }
    assert_eq!(report.by("give_back").resident, 0);
    // What came in all is no estimate; nor are all page faults.
    let seen = report.seen();
    let came = &seen.came_pages_by_kind;
    assert!((60_000..60_050).contains(&came["heap"]), "{came:?}");
    assert!((46_000..46_200).contains(&came["anonymous"]), "{came:?}");
    assert!(seen.faults_not_told.unwrap() <= 50, "{seen:?}");
    let explained = report.explained();
    assert!((90.0..110.0).contains(&explained), "{explained}%");
    let words = format!("estimates from one page in {}", sampling.one_in);
    assert!(outcome.output.contains(&words), "{words}: {}", outcome.output);
    assert!(outcome.output.contains("±"), "{}", outcome.output);
}

pub(super) fn a_sample_of_huge_pages() {
    let mut program = start();
    let mut heapscope = attach_with(program.pid(), &["--budget", "1%"]);
    until_sampled(&mut program, &mut heapscope);
    for order in ["huge 100", "mapped 20000"] {
        assert_eq!(program.ask(order), "done");
    }
    let (outcome, report) = stop(heapscope);
    let one_in = report.growth.sampling.one_in;
    assert!(one_in > 1);
    assert_near(&report, "grow_mapped", 20_000);
    let came = report.seen().came_pages_by_kind["anonymous"];
    assert!((71_200..71_500).contains(&came), "{came}");
    // Each block of huge pages that is in the sample stands for so many.
    let huge = report.by("grow_huge");
    let error = 512.0 * (100.0 * one_in as f64).sqrt();
    assert!(huge.resident.abs_diff(51_200) as f64 <= 5.0 * error, "{huge:?} ± {error}: {}", outcome.output);
}

pub(super) fn a_budget_that_cannot_be_kept_is_said() {
    let mut program = start();
    let mut heapscope = attach_with(program.pid(), &["--budget", "0.01%"]);
    until_sampled(&mut program, &mut heapscope);
    let (outcome, report) = stop(heapscope);
    assert!(report.growth.sampling.one_in > 1);
    assert!(outcome.output.contains("The budget of 0.01% could not be kept"), "{}", outcome.output);
}
