//! What the probes cost the target: hits times the calibrated cost of a trap, plus the measured run time of our
//! programs, as a share of the target's CPU time.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use profiler_common::counters::Counter;

use super::{run_time, trap_cost};
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
/// In the beginning, seconds are shorter: so many.
const EARLY: u32 = 3;
/// CPU time of the target below which no share is computed.
const LEAST_CPU_TIME: Duration = Duration::from_millis(50);
/// The kernel's measuring of run time itself costs two clock reads a hit, so it is on for a moment in so many rounds only.
const MEASURED_ONE_IN: u32 = 8;
/// Nanoseconds that the kernel takes for the event of a page fault without what our program does (docs/growth.md).
const FAULT_EVENT: f64 = 100.0;
/// Nanoseconds that it takes where a thread with such events leaves a processor and comes back (docs/growth.md).
pub(super) const SWITCH: f64 = 600.0;
/// Nanoseconds of a trap where it could not be measured, and hits are rare.
const USUAL_TRAP: f64 = 1000.0;
/// Runs after which it is known what one takes: the first are not like those that follow.
const TELLING_RUNS: u64 = 200;
/// Nanoseconds of one run of our program before it has been measured.
const USUAL_RUN: f64 = 300.0;

/// What happened in the target in some stretch of time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Load {
    /// How long that was, in nanoseconds.
    pub(super) elapsed: f64,
    /// CPU time that it used, in nanoseconds.
    pub(super) used: f64,
    /// Of that, what the probes caused, in nanoseconds.
    pub(super) caused: f64,
    /// Of that, what our programs took behind page faults.
    pub(super) in_programs: f64,
    /// Page faults.
    pub(super) faults: f64,
    /// Runs of probes.
    pub(super) hits: f64,
    /// Calls that ask for a block, recorded or not.
    pub(super) calls: f64,
    /// Bytes asked for by those.
    pub(super) bytes: f64,
    /// Blocks recorded.
    pub(super) recorded: f64,
}

impl Load {
    /// The probes' share of the CPU time.
    pub(super) fn share(&self) -> f64 {
        if self.used > 0.0 { (self.caused / self.used).min(1.0) } else { 0.0 }
    }

    /// Adds what came later.
    pub(super) fn add(&mut self, more: &Self) {
        self.elapsed += more.elapsed;
        self.used += more.used;
        self.caused += more.caused;
        self.in_programs += more.in_programs;
        self.faults += more.faults;
        self.hits += more.hits;
        self.calls += more.calls;
        self.bytes += more.bytes;
        self.recorded += more.recorded;
    }

    /// So many times this.
    pub(super) fn times(&self, times: f64) -> Self {
        let Self { elapsed, used, caused, in_programs, faults, hits, calls, bytes, recorded } = self;
        let [elapsed, used, caused, hits] = [elapsed, used, caused, hits].map(|number| number * times);
        let [calls, bytes, recorded] = [calls, bytes, recorded].map(|number| number * times);
        let [in_programs, faults] = [in_programs, faults].map(|number| number * times);
        Self { elapsed, used, caused, in_programs, faults, hits, calls, bytes, recorded }
    }

    /// Whether there is enough of it for a share to mean something.
    pub(super) fn is_telling(&self) -> bool {
        self.used > LEAST_CPU_TIME.as_secs_f64() * 1e9
    }
}

/// Follows the overhead.
#[derive(Debug)]
pub(super) struct OverheadMeter {
    /// Nanoseconds of one trap in a loop, without our program's work.
    calibrated: Option<f64>,
    /// The same in the target, as of late.
    trap: f64,
    /// Nanoseconds of one run of our program, as last measured.
    run: Option<f64>,
    /// In which round that was.
    measured: Option<u32>,
    /// Of how many runs that is the mean.
    runs: u64,
    /// Whether it is to be measured until it is known well.
    is_thorough: bool,
    measuring: Option<(OwnedFd, RunTime)>,
    rounds: u32,
    last: Option<(Counts, Duration, Instant)>,
    /// What came since the last second was over.
    second: Load,
    since: Instant,
    last_percent: Option<f64>,
    total: Load,
}

/// The counters that it looks at.
#[derive(Clone, Copy, Debug)]
struct Counts {
    hits: u64,
    calls: u64,
    bytes: u64,
    recorded: u64,
    faults: u64,
}

impl Counts {
    fn of(counters: &Counters) -> Self {
        let sum = |of: [Counter; 2]| of.iter().map(|counter| counters.get(*counter)).sum();
        let recorded = counters.get(Counter::RecordedBlocks);
        Self {
            hits: counters.get(Counter::ProbeHits),
            calls: recorded
                .saturating_add(sum([Counter::UnsampledAllocations, Counter::MeasuredAllocations])),
            // While every block is recorded, nothing is unsampled; and while not, what is recorded is little.
            bytes: sum([Counter::UnsampledSpace, Counter::MeasuredSpace]),
            recorded,
            faults: counters.get(Counter::PageFaults),
        }
    }
}

impl OverheadMeter {
    /// Calibrates a trap on this machine, in this process.
    pub(super) fn new(probe: &EbpfProbe) -> Self {
        let calibrated = probe.calibrate().ok().flatten();
        Self {
            calibrated,
            trap: calibrated.map_or(0.0, trap_cost::in_a_loop),
            run: None,
            measured: None,
            runs: 0,
            is_thorough: false,
            measuring: None,
            rounds: 0,
            last: None,
            second: Load::default(),
            since: Instant::now(),
            last_percent: None,
            total: Load::default(),
        }
    }

    /// What counts are page faults: it is measured well what our programs take. What a trap takes does not matter, and is taken to
    /// be what it usually is where that could not be measured.
    pub(super) fn of_faults(mut self) -> Self {
        self.calibrated.get_or_insert(USUAL_TRAP);
        self.is_thorough = true;
        self
    }

    /// Adds what came besides, so often at so many nanoseconds; how many these are.
    pub(super) fn charge(&mut self, times: u64, each: f64) -> f64 {
        let caused = count(times) * each;
        self.second.caused += caused;
        self.total.caused += caused;
        caused
    }

    /// Nanoseconds of a hit of a program that does nothing, in the target; `None` where that could not be measured.
    pub(super) fn trap(&self) -> Option<f64> {
        self.calibrated.map(|_| self.trap)
    }

    /// What happened since the last call; nothing the first time, and where the cost of a trap is not known.
    pub(super) fn measure(&mut self, probe: &EbpfProbe, process: &Process, counters: &Counters) -> Load {
        let (Some(calibrated), Ok(cpu)) = (self.calibrated, process.cpu_time()) else {
            return Load::default();
        };
        let now = Counts::of(counters);
        let at = Instant::now();
        let Some((before, cpu_before, began)) = self.last.replace((now, cpu, at)) else {
            return Load::default();
        };
        let since = |part: fn(&Counts) -> u64| count(part(&now).saturating_sub(part(&before)));
        let [hits, faults] = [|counts: &Counts| counts.hits, |counts: &Counts| counts.faults].map(since);
        if self.is_thorough || hits + faults > 0.0 {
            self.measure_run_time(probe);
        }
        let run = self.run.unwrap_or(USUAL_RUN);
        let used = cpu.saturating_sub(cpu_before).as_secs_f64() * 1e9;
        // A return comes right behind its call's entry, and little of the program's own lies between them.
        let recorded = since(|counts| counts.recorded);
        let (behind, apart) = (recorded.min(hits), (hits - recorded).max(0.0));
        let [trap, close] = trap_cost::of_each(calibrated, apart, behind, run, used);
        if apart > 0.0 {
            self.trap = trap;
        }
        let load = Load {
            elapsed: at.saturating_duration_since(began).as_secs_f64() * 1e9,
            used,
            caused: apart * trap + behind * close + hits * run + faults * (FAULT_EVENT + run),
            in_programs: faults * run,
            faults,
            hits,
            calls: since(|counts| counts.calls),
            bytes: since(|counts| counts.bytes),
            recorded,
        };
        self.second.add(&load);
        self.total.add(&load);
        load
    }

    /// The load of the last second, once it is over and tells enough.
    pub(super) fn second(&mut self) -> Option<Load> {
        let every = if self.rounds < EARLY { EVERY / 4 } else { EVERY };
        if self.since.elapsed() < every || !self.second.is_telling() {
            return None;
        }
        self.since = Instant::now();
        self.rounds = self.rounds.wrapping_add(1);
        let second = std::mem::take(&mut self.second);
        self.last_percent = Some(100.0 * second.share());
        Some(second)
    }

    /// Has what comes counted as a new second, in which another program may do other work.
    pub(super) fn begin_second(&mut self) {
        self.second = Load::default();
        self.since = Instant::now();
        (self.rounds, self.measured) = (0, None);
    }

    /// What a run took is not what it will take: has it measured anew.
    pub(super) fn forget_run(&mut self) {
        (self.run, self.runs, self.measuring) = (None, 0, None);
        self.begin_second();
    }

    /// Whether it is known well what a run takes.
    pub(super) fn knows_run(&self) -> bool {
        self.runs >= TELLING_RUNS
    }

    /// The share over the last second or so, in percent.
    pub(super) fn percent(&self) -> Option<f64> {
        self.last_percent
    }

    /// The share over all time, in percent.
    pub(super) fn total_percent(&self) -> Option<f64> {
        (self.calibrated.is_some() && self.total.is_telling()).then(|| 100.0 * self.total.share())
    }

    /// What the probes took of one processor over all time, in percent.
    pub(super) fn processor_percent(&self) -> Option<f64> {
        let Load { elapsed, caused, .. } = self.total;
        (self.calibrated.is_some() && elapsed > 0.0).then(|| 100.0 * caused / elapsed)
    }

    /// Where there are runs, now and then.
    fn measure_run_time(&mut self, probe: &EbpfProbe) {
        if self.is_thorough {
            return self.measure_thoroughly(probe);
        }
        if self.measured.is_some_and(|round| self.rounds.wrapping_sub(round) < MEASURED_ONE_IN) {
            return;
        }
        if let Some(run) = run_time::measure(probe) {
            (self.run, self.measured) = (Some(run), Some(self.rounds));
        }
    }

    /// From one call to the next, until there were runs enough, and now and then.
    fn measure_thoroughly(&mut self, probe: &EbpfProbe) {
        if let Some((statistics, before)) = self.measuring.take() {
            let RunTime { nanoseconds, runs } = probe.run_time();
            drop(statistics);
            let runs = runs.saturating_sub(before.runs);
            if runs > 0 && (runs >= TELLING_RUNS || !self.knows_run()) {
                self.runs = runs;
                self.run = Some(count(nanoseconds.saturating_sub(before.nanoseconds)) / count(runs));
                self.rounds = self.rounds.max(1);
            }
        } else if self.run.is_none() || !self.knows_run() || self.rounds.is_multiple_of(MEASURED_ONE_IN) {
            self.measuring =
                ebpf::enable_run_time_stats().ok().map(|statistics| (statistics, probe.run_time()));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of hits and nanoseconds stay far below 2 to the 52nd")]
fn count(number: u64) -> f64 {
    number as f64
}
