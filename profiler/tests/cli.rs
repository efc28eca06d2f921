//! The command line as a person meets it: what it explains, what it refuses, and how it says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a test fails by panicking, and its name says what it tests"
)]

#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/doctor_machine.rs"]
mod doctor_machine;
#[path = "cli/outputs.rs"]
mod outputs;
#[path = "cli/reports.rs"]
mod reports;
#[path = "cli/rights.rs"]
mod rights;
#[allow(dead_code, reason = "two test binaries share it, and neither needs all of it")]
mod support;
#[path = "cli/targets.rs"]
mod targets;
#[path = "cli/usage.rs"]
mod usage;

use std::process::{Command, ExitCode};

use support::{case, heapscope::Heapscope, heapscope::heapscope};

fn main() -> ExitCode {
    case::run(
        &[
            usage::CASES,
            doctor::CASES,
            doctor_machine::CASES,
            outputs::CASES,
            reports::CASES,
            targets::CASES,
            rights::CASES,
        ],
        &[],
    )
}

/// Runs a command that must be refused before anything is traced; what it said.
fn refused(arguments: &[&str]) -> String {
    refusal_of(&mut heapscope(arguments))
}

/// The same for a command line of any form. Every refusal looks alike: status 1, nothing on standard output, and on
/// standard error the program's name, what is wrong, and what to do about it.
fn refusal_of(command: &mut Command) -> String {
    let outcome = Heapscope::start(command).finish();
    let errors = outcome.errors;
    assert_eq!((outcome.status, outcome.output.as_str()), (1, ""), "{command:?}: {errors}");
    assert!(errors.starts_with("heapscope: ") && errors.ends_with('\n'), "{errors}");
    assert!(!errors.contains("attached"), "{errors}");
    let text = errors.trim_start_matches("heapscope: ").trim_end();
    assert!(text.contains(". ") || text.contains(": "), "no advice: {errors}");
    assert!(!text.contains("Error {") && !text.contains("os error 0"), "not for people: {errors}");
    text.to_owned()
}
