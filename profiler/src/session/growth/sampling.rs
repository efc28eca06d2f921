//! How many pages are sampled, so that what page faults cost stays within the budget. Once fewer are, it stays so: what is known
//! of the others ends there.

use std::time::{Duration, Instant};

use profiler_common::{counters::Counter, growth::MAX_SAMPLING_SHIFT};

use super::switches::Switches;
use crate::{
    probe::Counters,
    report::{budget::BudgetReport, growth::Sampling, units},
    session::{
        observation::Observation,
        options::BudgetOptions,
        overhead::{Load, SWITCH},
    },
};

/// Nanoseconds of our program at a fault that it leaves at once.
const LEAVING: f64 = 60.0;
/// What is chosen is to take this part of the budget, so that not every change of the load breaks it.
const AIM: f64 = 0.7;
/// A coarser sample is worth nothing where stacks take no more than this part of what all else takes.
const BESIDE: f64 = 0.2;
/// Nanoseconds that page faults may take beyond the budget before something is done: a burst that is over soon is worth more than
/// it costs.
const CREDIT: f64 = 50e6;
/// How often it is decided, and threads are asked for their context switches.
const EVERY: Duration = Duration::from_millis(250);

/// What is decided, and what led to it.
#[derive(Debug)]
pub(in crate::session) struct FaultSampling {
    /// Percent of the target's CPU time, and of one processor.
    limits: Option<(f64, f64)>,
    /// log2 of the pages of which one is in the sample, since when; first the beginning.
    steps: Vec<(Duration, u64)>,
    switches: Switches,
    /// How often the target's threads came to a processor.
    switched: u64,
    asked: Instant,
    /// Whether it has not been measured yet what faults cost since the last decision.
    is_settling: bool,
    /// What has happened since the last decision was thought about.
    recent: Load,
    /// Stacks that had been taken by then.
    stacks: u64,
    /// Nanoseconds that one takes.
    each: f64,
    /// Nanoseconds that were taken beyond the budget and not made up for since.
    debt: f64,
    /// The most, in percent of the CPU time, that was taken beside stacks where the budget could not be kept.
    beyond: Option<f64>,
}

/// What a second, or so, has shown.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Shown {
    /// Nanoseconds that may be taken.
    allowed: f64,
    /// That were taken, with everything.
    caused: f64,
    /// Of those, by stacks, and by noting whose they are.
    stacks: f64,
}

/// What to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Decision {
    Stay,
    /// From now on so many, as log2; whether that keeps the budget.
    Sample(u64, bool),
}

impl Shown {
    /// Of a load in which stacks took so many nanoseconds.
    fn of(load: &Load, limits: (f64, f64), stacks: f64) -> Self {
        let allowed = (limits.0 / 100.0 * load.used).max(limits.1 * load.elapsed);
        Self { allowed, caused: load.caused, stacks: stacks.clamp(0.0, load.caused) }
    }

    /// What was taken beside stacks, in percent of the load's CPU time.
    fn rest_percent(&self, load: &Load) -> f64 {
        100.0 * (self.caused - self.stacks) / load.used.max(1.0)
    }

    fn decide(&self, shift: u64) -> Decision {
        if self.caused <= self.allowed {
            return Decision::Stay;
        }
        let rest = self.caused - self.stacks;
        let at = |other: u64| self.stacks * share(other) / share(shift);
        let fits = |other: &u64| rest + at(*other) <= AIM * self.allowed || at(*other) <= BESIDE * rest;
        let chosen = (shift..=MAX_SAMPLING_SHIFT).find(fits).unwrap_or(MAX_SAMPLING_SHIFT);
        Decision::Sample(chosen, rest + at(chosen) <= self.allowed)
    }
}

/// What part of all pages has its stack taken: those in the sample of pages, and those in the sample of blocks.
fn share(shift: u64) -> f64 {
    let chosen = 0.5_f64.powi(i32::try_from(shift).unwrap_or(i32::MAX));
    1.0 - (1.0 - chosen).powi(2)
}

impl FaultSampling {
    pub(super) fn new(budget: &BudgetOptions) -> Self {
        Self {
            limits: budget.percent.map(|percent| (percent, budget.at_least)),
            steps: vec![(Duration::ZERO, 0)],
            switches: Switches::default(),
            switched: 0,
            asked: Instant::now(),
            is_settling: true,
            recent: Load::default(),
            stacks: 0,
            each: 0.0,
            debt: 0.0,
            beyond: None,
        }
    }

    /// What a report says of it.
    pub(super) fn report(&self, counters: &Counters) -> Sampling {
        Sampling {
            one_in: 1 << self.shift(),
            faults: counters.get(Counter::PageFaults),
            stacks: counters.get(Counter::PageFaultsSampled),
            steps: self.steps.iter().map(|(after, shift)| (*after, 1 << shift)).collect(),
            switches: self.switched,
        }
    }

    /// Takes in what has happened.
    fn owe(&mut self, load: &Load, limits: (f64, f64)) {
        self.recent.add(load);
        let Shown { allowed, caused, .. } = Shown::of(load, limits, 0.0);
        self.debt = (self.debt + caused - allowed).max(0.0);
    }

    /// Nanoseconds that so many stacks took. What one takes is learnt while all faults have theirs: later, it is too small a part.
    #[expect(clippy::cast_precision_loss, reason = "numbers of stacks stay far below 2 to the 52nd")]
    fn took(&mut self, recent: &Load, stacks: u64) -> f64 {
        if self.shift() == 0 && recent.faults > 0.0 {
            self.each = (recent.in_programs / recent.faults - LEAVING).max(0.0);
        }
        stacks as f64 * self.each
    }

    fn decide(&self, shown: &Shown) -> Decision {
        if self.debt <= CREDIT { Decision::Stay } else { shown.decide(self.shift()) }
    }

    /// Says where the budget was not kept.
    pub(super) fn warning(&self) -> Option<String> {
        let ((percent, _), beyond) = self.limits.zip(self.beyond)?;
        Some(format!(
            "The budget of {percent}% could not be kept: page faults that were left at once, and context switches, took up to \
             {beyond:.1}% of the process's CPU time. It has too many of them."
        ))
    }

    fn shift(&self) -> u64 {
        self.steps.last().map_or(0, |(_, shift)| *shift)
    }

    /// What a report says of the budget.
    pub(super) fn budget(&self, processor_percent: Option<f64>) -> BudgetReport {
        BudgetReport {
            percent: self.limits.map(|(percent, _)| percent),
            at_least_percent: self.limits.map(|(_, at_least)| 100.0 * at_least).filter(|part| *part > 0.0),
            processor_percent,
            advance: None,
            steps: Vec::new(),
        }
    }
}

impl Observation {
    /// Follows the cost of page faults, and samples fewer pages if it is too high.
    pub(in crate::session) fn govern_growth(&mut self, counters: &Counters) -> anyhow::Result<()> {
        let mut load = self.meter.measure(&self.probe, &self.process, counters);
        // For the share that is shown.
        self.meter.second();
        let after = self.duration();
        let Some(growth) = &mut self.growth else { return Ok(()) };
        let sampling = &mut growth.sampling;
        let mut is_time = false;
        if sampling.asked.elapsed() >= EVERY {
            sampling.asked = Instant::now();
            is_time = true;
            let switched = sampling.switches.since_last(&self.process);
            sampling.switched = sampling.switched.saturating_add(switched);
            load.caused += self.meter.charge(switched, SWITCH);
        }
        let stacks = counters.get(Counter::PageFaultsSampled);
        if sampling.is_settling && self.meter.knows_run() {
            sampling.is_settling = false;
            (sampling.recent, sampling.stacks) = (Load::default(), stacks);
        }
        let Some(limits) = sampling.limits else { return Ok(()) };
        sampling.owe(&load, limits);
        if !is_time || sampling.is_settling {
            return Ok(());
        }
        let recent = std::mem::take(&mut sampling.recent);
        let taken = stacks.saturating_sub(std::mem::replace(&mut sampling.stacks, stacks));
        let shown = Shown::of(&recent, limits, sampling.took(&recent, taken));
        let Decision::Sample(shift, keeps) = sampling.decide(&shown) else { return Ok(()) };
        if !keeps {
            let rest = shown.rest_percent(&recent);
            sampling.beyond = Some(sampling.beyond.map_or(rest, |most| most.max(rest)));
        }
        if shift > sampling.shift() {
            self.probe.record_at(shift)?;
            sampling.steps.push((after, shift));
            sampling.is_settling = true;
            self.meter.forget_run();
            self.governor.say(format!(
                "overhead {:.1}% ({:.1}% of a processor), budget {}%: from now on one page in {} is sampled",
                100.0 * recent.share(),
                100.0 * recent.caused / recent.elapsed.max(1.0),
                limits.0,
                units::count(1 << shift)
            ));
        }
        Ok(())
    }

    /// What reports say of the budget.
    pub(in crate::session) fn budget_report(&self) -> BudgetReport {
        match &self.growth {
            Some(growth) => growth.sampling.budget(self.processor_percent()),
            None => self.governor.report(self.processor_percent()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    /// A second of one thread that has so many faults, of which each takes so many nanoseconds in our programs.
    fn second(faults: f64, run: f64) -> Load {
        Load {
            elapsed: 1e9,
            used: 1e9,
            caused: faults * (100.0 + run),
            in_programs: faults * run,
            faults,
            ..Load::default()
        }
    }

    fn shown(load: &Load, limits: (f64, f64)) -> Shown {
        Shown::of(load, limits, load.in_programs - LEAVING * load.faults)
    }

    fn decide(load: &Load, shift: u64) -> Decision {
        shown(load, (1.0, 0.01)).decide(shift)
    }

    #[test]
    fn what_costs_little_is_seen_whole() {
        assert_eq!(decide(&second(20_000.0, 300.0), 0), Decision::Stay);
        assert_eq!(decide(&Load::default(), 0), Decision::Stay);
    }

    #[test]
    fn what_costs_more_is_sampled_so_that_it_does_not() {
        // Ten times what may be, almost all of it stacks.
        let Decision::Sample(shift, true) = decide(&second(20_000.0, 5_000.0), 0) else { panic!() };
        let after = 20_000.0 * (160.0 + 4_940.0 * share(shift));
        assert!(after < 0.8e7 && 2.0 * after > 0.5e7, "{shift}: {after}");
        let load = second(20_000.0, 60.0 + 4_940.0 * share(shift));
        assert_eq!(decide(&load, shift), Decision::Stay);
        // Three times as many: coarser, and never finer.
        let load = second(60_000.0, 60.0 + 4_940.0 * share(shift));
        assert!(matches!(decide(&load, shift), Decision::Sample(coarser, _) if coarser > shift));
        assert_eq!(decide(&second(10.0, 200.0), 7), Decision::Stay);
    }

    #[test]
    fn where_faults_that_are_left_cost_too_much_it_says_so() {
        let Decision::Sample(shift, false) = decide(&second(700_000.0, 400.0), 0) else { panic!() };
        assert!((3..12).contains(&shift), "{shift}");
        let load = second(700_000.0, 60.0 + 340.0 * share(shift));
        assert_eq!(decide(&load, shift), Decision::Sample(shift, false), "it does not go on for ever");
    }

    #[test]
    fn a_burst_is_seen_whole() {
        let limits = (1.0, 0.01);
        let mut sampling = FaultSampling::new(&BudgetOptions {
            percent: Some(limits.0),
            at_least: limits.1,
            ..BudgetOptions::default()
        });
        // 40 ms in a second, of which 10 are allowed: in two, 60 too many.
        let burst = second(8_000.0, 4_900.0);
        for over in [false, true] {
            sampling.owe(&burst, limits);
            assert_eq!(sampling.decide(&shown(&burst, limits)) != Decision::Stay, over);
        }
        // What is over is over; and it is made up for.
        assert_eq!(sampling.decide(&shown(&second(0.0, 0.0), limits)), Decision::Stay);
        (0..3).for_each(|_| sampling.owe(&second(0.0, 0.0), limits));
        sampling.owe(&second(4_000.0, 4_900.0), limits);
        assert_eq!(sampling.decide(&shown(&burst, limits)), Decision::Stay);
        assert_eq!(sampling.warning(), None);
    }

    #[test]
    fn a_process_that_does_little_may_be_seen_whole() {
        let little = Load { used: 1e8, ..second(10_000.0, 500.0) };
        assert_eq!(decide(&little, 0), Decision::Stay);
        assert_ne!(shown(&little, (1.0, 0.0)).decide(0), Decision::Stay);
    }
}
