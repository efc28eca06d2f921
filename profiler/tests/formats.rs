//! The formats of other tools, each opened by a program that others wrote: it must find the totals that the JSON report of
//! the same observation has. What such a program lacks is said, test by test, and counted as skipped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a test fails by panicking, and its name says what it tests"
)]

#[path = "formats/firefox.rs"]
mod firefox;
#[path = "formats/observed.rs"]
mod observed;
#[path = "formats/other.rs"]
mod other;
#[path = "formats/pprof.rs"]
mod pprof;
#[allow(dead_code, reason = "several test binaries share it, and none needs all of it")]
mod support;

use std::process::ExitCode;

use support::{case, needs::Need};

fn main() -> ExitCode {
    let cases = [firefox::CASES, pprof::CASES, other::CASES];
    case::run(&cases, &[Need::Probes, Need::Program("cc")])
}
