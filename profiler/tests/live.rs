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

#[path = "live/calls.rs"]
mod calls;
#[path = "live/case.rs"]
mod case;
#[path = "live/script.rs"]
mod script;
#[allow(dead_code, reason = "two test binaries share it, and neither needs all of it")]
mod support;

use std::{num::NonZero, process::ExitCode, thread::available_parallelism};

use libtest_mimic::Arguments;

/// Two programs and two of heapscope at a time are load enough.
const MOST_AT_ONCE: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let processors = available_parallelism().map_or(1, NonZero::get);
    arguments.test_threads.get_or_insert(processors.min(MOST_AT_ONCE));
    let mut trials = Vec::new();
    for case in [calls::CASES].into_iter().flatten() {
        let (trial, lacking) = case.trial();
        trials.push(trial);
        if let Some(reason) = lacking
            && !arguments.list
        {
            println!("skipped: {}: {reason}", case.name);
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
