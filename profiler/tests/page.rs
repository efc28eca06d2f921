//! The HTML report in a real browser: what a reader does with it, and what a hostile target cannot do with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking, and its name says what it tests"
)]

#[path = "page/browser.rs"]
mod browser;
#[path = "page/hostile.rs"]
mod hostile;
#[path = "page/profiles.rs"]
mod profiles;
#[path = "page/reading.rs"]
mod reading;
#[path = "page/size.rs"]
mod size;
#[allow(dead_code, reason = "several test binaries share it, and none needs all of it")]
mod support;

use std::{fs::File, io::BufWriter, path::PathBuf, process::ExitCode};

use heapscope::report::{html, options::ReportOptions, profile::Profile};
use support::{case, needs::Need};

fn main() -> ExitCode {
    case::run(&[reading::CASES, hostile::CASES, size::CASES], &[Need::Program("chromium")])
}

/// Writes the page of a profile; it is left in target/tmp for people to look at.
fn page(name: &str, profile: &Profile) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.html"));
    let mut out = BufWriter::new(File::create(&path).unwrap());
    html::write(profile, &ReportOptions::default(), &mut out).unwrap();
    path
}
