//! The unwind tables of large libraries against other readers of the same unwind information, at every call in them.
//!
//! In the usual run a sample of the calls of the smaller files is compared, and the large files are skipped. All calls
//! of all files, with a table of the counts:
//!
//! ```sh
//! HEAPSCOPE_ALL=1 cargo test --release -p heapscope --test oracle -- --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking, and its name says what it tests"
)]

#[path = "oracle/by_framehop.rs"]
mod by_framehop;
#[path = "oracle/by_readelf.rs"]
mod by_readelf;
#[path = "oracle/compared.rs"]
mod compared;
#[path = "oracle/files.rs"]
mod files;
#[path = "oracle/pruning.rs"]
mod pruning;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

use crate::files::{LIBRARIES, Subject, find};

type Check = (&'static str, fn(&Subject));

/// What is done with each file.
const CHECKS: [Check; 3] =
    [("pruning", pruning::compare), ("framehop", by_framehop::compare), ("readelf", by_readelf::compare)];

/// Files of more than this are compared only if all is asked for: they take minutes where nothing is optimised.
const LARGE: u64 = 32 << 20;
/// Addresses that are compared of each file if not all is asked for.
const SAMPLE: usize = 8_000;

/// Whether everything is compared.
fn all() -> bool {
    std::env::var_os("HEAPSCOPE_ALL").is_some()
}

/// Every n-th of so many addresses is compared; n is odd, so that of pairs both have their turn.
fn every(addresses: usize) -> usize {
    if all() { 1 } else { addresses.div_ceil(SAMPLE) | 1 }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let has_readelf = Command::new(by_readelf::PROGRAM).arg("--version").output().is_ok();
    let mut trials = Vec::new();
    for library in LIBRARIES {
        let path = find(library);
        for (check, compare) in CHECKS {
            let name = format!("{check}::{library}");
            let lacking = match &path {
                None => Some(format!("there is no {library} on this machine")),
                Some(_) if check == "readelf" && !has_readelf => {
                    Some(format!("{} is not installed", by_readelf::PROGRAM))
                }
                Some(path) if path.metadata().unwrap().len() > LARGE && !all() => {
                    Some("a large file takes minutes; HEAPSCOPE_ALL=1 and --release compare it".to_owned())
                }
                Some(_) => None,
            };
            if let Some(reason) = &lacking
                && !arguments.list
            {
                println!("skipped: {name}: {reason}");
            }
            let path = path.clone();
            let trial = Trial::test(name, move || {
                compare(&Subject::read(&path.expect("found above")));
                Ok(())
            });
            trials.push(trial.with_ignored_flag(lacking.is_some()));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
