//! What the tests share that run heapscope beside other programs: the programs, heapscope itself, and its reports.
//!
//! Everything waits for a line, a process's end or a byte in memory, never for time to pass; [`HANG`] bounds each wait so
//! that a hang becomes a failure.

pub(crate) mod case;
pub(crate) mod elf;
pub(crate) mod fixture;
pub(crate) mod heapscope;
pub(crate) mod model;
pub(crate) mod needs;
pub(crate) mod program;
pub(crate) mod readers;
pub(crate) mod report;
pub(crate) mod sense;

use std::time::{Duration, Instant};

/// A bound that turns a hang into a failure.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// Looks again and again until `condition` holds, where there is no line or pipe to wait for.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < HANG, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
