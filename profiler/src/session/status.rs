//! The one line that changes while a process is watched.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use profiler_common::counters::Counter;

use super::observation::Reading;
use crate::report::{budget::Recorded, growth::PAGE, units};

/// How often rates are computed.
const EVERY: Duration = Duration::from_millis(500);

/// The status line; nothing where standard error is no terminal.
#[derive(Debug)]
pub(super) struct StatusLine {
    bar: ProgressBar,
    shown: Instant,
    allocations: u64,
    frees: u64,
    faults: u64,
}

impl StatusLine {
    /// Begins to show.
    pub(super) fn new(quiet: bool) -> Self {
        let bar = ProgressBar::new_spinner();
        if quiet || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, shown: Instant::now(), allocations: 0, frees: 0, faults: 0 }
    }

    /// Shows a reading, if the last is old enough.
    pub(super) fn show(&mut self, reading: &Reading) {
        let seconds = self.shown.elapsed();
        if seconds < EVERY {
            return;
        }
        let allocations = reading.counters.get(Counter::AllocObjects);
        let frees =
            reading.counters.get(Counter::FreedObjects) + reading.counters.get(Counter::UnmatchedFrees);
        let rate = |now: u64, before: u64| {
            let per_second = u128::from(now.saturating_sub(before)) * 1000 / seconds.as_millis().max(1);
            units::count(u64::try_from(per_second).unwrap_or(u64::MAX))
        };
        let overhead = match reading.overhead_percent {
            Some(percent) => format!("overhead {}", units::overhead(percent)),
            None => "overhead -".to_owned(),
        };
        let budget = &reading.budget;
        let of_budget = match (budget.percent, budget.at_least_percent, budget.processor_percent) {
            (Some(_), Some(_), Some(taken)) => format!(", {taken:.1}% of a processor"),
            (Some(percent), ..) => format!(" of {percent}%"),
            (None, ..) => String::new(),
        };
        if reading.is_of_growth {
            let faults = reading.counters.get(Counter::PageFaults);
            let first = faults.saturating_sub(reading.counters.get(Counter::PageFaultsAgain));
            self.bar.set_message(format!(
                "{} first touched in {} page faults | {overhead} | lost {} | {} sites | {} faults/s",
                units::bytes(first.saturating_mul(PAGE)),
                units::count(faults),
                units::count(super::quality::lost(&reading.counters)),
                units::count(reading.sites as u64),
                rate(faults, self.faults),
            ));
            self.bar.tick();
            (self.faults, self.shown) = (faults, Instant::now());
            return;
        }
        let (live, how) = match reading.recorded {
            Recorded::Every => ("live", String::new()),
            Recorded::Told => ("live", " | as the program tells".to_owned()),
            Recorded::Sampled(interval) => ("live", format!(" | one in {}", units::bytes(interval))),
            Recorded::Windows(_) => ("kept", " | windows".to_owned()),
        };
        self.bar.set_message(format!(
            "{} {live} in {} blocks | {overhead}{of_budget}{how} | lost {} | {} sites | {} allocs/s {} frees/s",
            units::bytes(reading.counters.inuse_space()),
            units::count(reading.counters.inuse_objects()),
            units::count(super::quality::lost(&reading.counters)),
            units::count(reading.sites as u64),
            rate(allocations, self.allocations),
            rate(frees, self.frees),
        ));
        self.bar.tick();
        (self.allocations, self.frees, self.shown) = (allocations, frees, Instant::now());
    }

    /// Prints something above the line.
    pub(super) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
