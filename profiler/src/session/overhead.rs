//! What the probes cost the target: hits times the calibrated cost of a trap, plus the measured run time of our
//! programs, as a share of the target's CPU time.

use std::time::{Duration, Instant};

use profiler_common::counters::Counter;

use crate::{
    probe::{
        Counters,
        ebpf::{self, EbpfProbe},
    },
    sys::bpf::RunTime,
    target::process::Process,
};

/// How often the share is computed.
const EVERY: Duration = Duration::from_secs(1);
/// CPU time of the target below which no share is computed.
const LEAST_CPU_TIME: Duration = Duration::from_millis(50);
/// The kernel's measuring of run time itself costs two clock reads a hit, so it is on for every eighth second only.
const MEASURED_ONE_IN: u32 = 8;

/// Follows the overhead.
#[derive(Debug)]
pub(super) struct OverheadMeter {
    /// Nanoseconds of one trap without our program's work.
    trap: Option<f64>,
    /// Nanoseconds of one run of our program, as last measured.
    run: f64,
    since: Instant,
    hits: u64,
    cpu: Duration,
    rounds: u32,
    last_percent: Option<f64>,
    caused: f64,
    used: Duration,
}

impl OverheadMeter {
    /// Calibrates a trap on this machine, in this process.
    pub(super) fn new(probe: &EbpfProbe) -> Self {
        Self {
            trap: probe.calibrate().ok().flatten(),
            run: 0.0,
            since: Instant::now(),
            hits: 0,
            cpu: Duration::MAX,
            rounds: 0,
            last_percent: None,
            caused: 0.0,
            used: Duration::ZERO,
        }
    }

    /// The share over the last second or so, in percent.
    pub(super) fn measure(
        &mut self,
        probe: &EbpfProbe,
        process: &Process,
        counters: &Counters,
    ) -> Option<f64> {
        if self.rounds != 0 && self.since.elapsed() < EVERY {
            return self.last_percent;
        }
        let trap = self.trap?;
        let cpu = process.cpu_time().ok()?;
        if self.run == 0.0 || self.rounds.is_multiple_of(MEASURED_ONE_IN) {
            self.measure_run_time(probe);
        }
        let hits = counters.get(Counter::ProbeHits);
        let used = cpu.saturating_sub(self.cpu);
        self.since = Instant::now();
        if self.rounds > 0 {
            // The clock of CPU time may tick in hundredths of a second: below some ticks the share means nothing, and
            // the next second is added to this one.
            if used <= LEAST_CPU_TIME {
                return self.last_percent;
            }
            let caused = count(hits.saturating_sub(self.hits)) * (trap + self.run);
            self.last_percent = Some(share(caused, used));
            self.caused += caused;
            self.used += used;
        }
        (self.hits, self.cpu) = (hits, cpu);
        self.rounds = self.rounds.wrapping_add(1).max(1);
        self.last_percent
    }

    /// The share over all seconds measured, in percent.
    pub(super) fn total_percent(&self) -> Option<f64> {
        (self.trap.is_some() && self.used > LEAST_CPU_TIME).then(|| share(self.caused, self.used))
    }

    fn measure_run_time(&mut self, probe: &EbpfProbe) {
        let Ok(statistics) = ebpf::enable_run_time_stats() else { return };
        let before = probe.run_time();
        std::thread::sleep(Duration::from_millis(20));
        let RunTime { nanoseconds, runs } = probe.run_time();
        drop(statistics);
        let runs = runs.saturating_sub(before.runs);
        if runs > 0 {
            self.run = count(nanoseconds.saturating_sub(before.nanoseconds)) / count(runs);
        }
    }
}

fn share(caused_nanoseconds: f64, used: Duration) -> f64 {
    (100.0 * caused_nanoseconds / (used.as_secs_f64() * 1e9)).min(100.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of hits and nanoseconds stay far below 2 to the 52nd")]
fn count(number: u64) -> f64 {
    number as f64
}
