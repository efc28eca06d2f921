//! heapscope against real processes on the real kernel: programs that make known calls, and programs that everyone
//! knows. Needs root; what it lacks is said, test by test, and counted as skipped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a test fails by panicking, and its name says what it tests"
)]

#[path = "live/allocators.rs"]
mod allocators;
#[path = "live/allocators_custom.rs"]
mod allocators_custom;
#[path = "live/allocators_names.rs"]
mod allocators_names;
#[path = "live/allocators_rust.rs"]
mod allocators_rust;
#[path = "live/allocators_table.rs"]
mod allocators_table;
#[path = "live/budget.rs"]
mod budget;
#[path = "live/calls.rs"]
mod calls;
#[path = "live/changes.rs"]
mod changes;
#[path = "live/children.rs"]
mod children;
#[path = "live/completeness.rs"]
mod completeness;
#[path = "live/crowds.rs"]
mod crowds;
#[path = "live/doctor.rs"]
mod doctor;
#[path = "live/generated.rs"]
mod generated;
#[path = "live/growth.rs"]
mod growth;
#[path = "live/harmless.rs"]
mod harmless;
#[path = "live/held.rs"]
mod held;
#[path = "live/leaderless.rs"]
mod leaderless;
#[path = "live/life.rs"]
mod life;
#[path = "live/limits.rs"]
mod limits;
#[path = "live/mappings.rs"]
mod mappings;
#[path = "live/model.rs"]
mod model;
#[path = "live/moments.rs"]
mod moments;
#[path = "live/narrowing.rs"]
mod narrowing;
#[path = "live/oracle.rs"]
mod oracle;
#[path = "live/programs.rs"]
mod programs;
#[path = "live/python.rs"]
mod python;
#[path = "live/python_embedded.rs"]
mod python_embedded;
#[path = "live/python_pools.rs"]
mod python_pools;
#[path = "live/recordings.rs"]
mod recordings;
#[path = "live/reports.rs"]
mod reports;
#[path = "live/run.rs"]
mod run;
#[path = "live/sampling.rs"]
mod sampling;
#[path = "live/script.rs"]
mod script;
#[path = "live/stacks.rs"]
mod stacks;
#[allow(dead_code, reason = "two test binaries share it, and neither needs all of it")]
mod support;
#[path = "live/terminal.rs"]
mod terminal;
#[path = "live/threads.rs"]
mod threads;
#[path = "live/top.rs"]
mod top;
#[path = "live/twin.rs"]
mod twin;
#[path = "live/usdt.rs"]
mod usdt;
#[path = "live/worker.rs"]
mod worker;

use std::process::ExitCode;

use support::{case, needs::Need};

fn main() -> ExitCode {
    // The longest ones first.
    let cases = [
        harmless::CASES,
        model::CASES,
        mappings::CASES,
        programs::CASES,
        calls::CASES,
        changes::CASES,
        children::CASES,
        generated::CASES,
        growth::CASES,
        held::CASES,
        leaderless::CASES,
        limits::CASES,
        python::CASES,
        python_embedded::CASES,
        python_pools::CASES,
        run::CASES,
        sampling::CASES,
        recordings::CASES,
        budget::CASES,
        reports::CASES,
        moments::CASES,
        narrowing::CASES,
        oracle::CASES,
        completeness::CASES,
        allocators::CASES,
        allocators_custom::CASES,
        allocators_rust::CASES,
        allocators_table::CASES,
        stacks::CASES,
        threads::CASES,
        usdt::CASES,
        top::CASES,
        crowds::CASES,
        doctor::CASES,
        life::CASES,
    ];
    case::run(&cases, &[Need::Probes, Need::Program("cc")])
}
