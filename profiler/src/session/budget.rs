//! What the probes may cost, and how much is recorded so that they do not cost more. Numbers in, decisions out: what is done
//! about them is in [`super::governor`].
//!
//! A call costs two things: its traps, at the entry and at the free, which nothing but taking the probes out avoids; and, if
//! its block is recorded, a trap at the return and the work. So the less is recorded, the less it costs, down to the traps.

use profiler_common::control::{EXACT, MAX_INTERVALS, MEASURE_ONLY};

use super::overhead::Load;

/// Nanoseconds that a block costs beyond the traps of its two calls, if it is recorded and nothing better is known: the trap at
/// the return, and the work.
const RECORDING: f64 = 3000.0;
/// Nanoseconds of work at a trap where nothing is recorded.
const PASSING: f64 = 150.0;
/// What is chosen is to take this part of the budget, so that not every change of the load breaks it.
const AIM: f64 = 0.8;
/// What records more than now is chosen only if it takes less than this.
const AIM_UP: f64 = 0.55;

/// How much is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Blocks at the interval with this number; [`EXACT`] for all.
    Recording(u64),
    /// The same, in windows alone.
    Windows,
}

impl Mode {
    /// Whether it records less than blocks at the interval with this number.
    pub(super) fn is_less_than(self, number: u64) -> bool {
        match self {
            Self::Recording(other) => other > number,
            Self::Windows => true,
        }
    }
}

/// What is allowed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Limits {
    /// Of the target's CPU time, from 0 to 1.
    pub(super) budget: f64,
    /// Of the time of one processor, from 0 to 1: so much may be taken of a target that uses little CPU time itself.
    pub(super) at_least: f64,
    /// The user wants every block or nothing.
    pub(super) exact_only: bool,
    /// The smallest number of an interval: [`EXACT`], or what the user asked for.
    pub(super) least: u64,
    /// Mean bytes by number.
    pub(super) intervals: [u64; MAX_INTERVALS],
}

impl Limits {
    /// What to begin with, by what was measured with probes that record nothing.
    pub(super) fn first(&self, load: &Load, trap: f64) -> Mode {
        if self.exact_only {
            return Mode::Recording(EXACT);
        }
        let floor = load.hits * (trap + PASSING);
        let exact = floor + load.calls * RECORDING;
        if self.least == EXACT
            && (!load.is_telling() && load.hits < 1000.0 || exact <= AIM * self.allowed(load))
        {
            return Mode::Recording(EXACT);
        }
        let rate = |number| self.recorded(load.bytes, number).min(load.calls);
        self.cheapest(load, floor, AIM, |number| rate(number) * RECORDING)
    }

    /// What is better than blocks at the interval with this number, if anything is.
    pub(super) fn next(&self, number: u64, load: &Load, trap: f64) -> Option<Mode> {
        if self.exact_only || !load.is_telling() {
            return None;
        }
        let floor = ((load.hits - load.recorded) * (trap + PASSING)).min(load.caused);
        let each = if load.recorded >= 100.0 {
            ((load.caused - floor) / load.recorded).max(500.0)
        } else {
            RECORDING
        };
        let over = load.caused > self.allowed(load);
        if number == EXACT {
            // The bytes are not counted then; one block in two is what the first interval takes of small ones.
            let halved = |number: u64| load.recorded / 2_f64.powi(i32::try_from(number).unwrap_or(i32::MAX));
            return over.then(|| self.cheapest(load, floor, AIM, |number| halved(number) * each));
        }
        let of = |other: u64| load.recorded * self.ratio(number, other);
        let mode = self
            .cheapest(load, floor, if over { AIM } else { AIM_UP }, |other| of(other).min(load.calls) * each);
        match mode {
            Mode::Recording(other) if over && other > number || !over && other < number => Some(mode),
            Mode::Windows if over => Some(mode),
            _ => None,
        }
    }

    /// The number of the interval to record at in windows: samples that cost no more than half of what the traps do.
    pub(super) fn in_windows(&self, load: &Load) -> u64 {
        let floor = load.caused / 2.0;
        let fits = |number: &u64| self.recorded(load.bytes, *number) * RECORDING <= floor;
        (self.least.max(1)..MEASURE_ONLY).find(fits).unwrap_or(MEASURE_ONLY - 1)
    }

    /// Whether the probes may stay where windows have shown this load.
    pub(super) fn may_stay(&self, load: &Load) -> bool {
        load.is_telling() && load.caused <= AIM_UP * self.allowed(load)
    }

    /// What may be caused while the target does what it did under this load by itself: where less is caused, the same takes it
    /// less time.
    fn allowed(&self, load: &Load) -> f64 {
        let own = (load.used - load.caused).max(0.0);
        (own * self.budget / (1.0 - self.budget)).max(self.at_least * load.elapsed)
    }

    fn recorded(&self, bytes: f64, number: u64) -> f64 {
        bytes / self.interval(number)
    }

    /// How much more often one interval records than another, at most.
    fn ratio(&self, now: u64, other: u64) -> f64 {
        self.interval(now) / self.interval(other)
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2 to the 52nd")]
    fn interval(&self, number: u64) -> f64 {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.intervals.get(index).copied().unwrap_or(0).max(1) as f64
    }

    /// The smallest interval that takes no more than this part of the budget.
    fn cheapest(&self, load: &Load, floor: f64, part: f64, recording: impl Fn(u64) -> f64) -> Mode {
        let fits = |number: &u64| floor + recording(*number) <= part * self.allowed(load);
        match (self.least.max(1)..MEASURE_ONLY).find(fits) {
            Some(number) => Mode::Recording(number),
            None => Mode::Windows,
        }
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::control::intervals_from;

    use super::*;

    const TRAP: f64 = 700.0;

    fn limits(budget: f64) -> Limits {
        Limits { budget, at_least: 0.0, exact_only: false, least: EXACT, intervals: intervals_from(1024) }
    }

    /// A second of a thread that makes so many pairs of calls, for 100 bytes each.
    fn measured(pairs: f64) -> Load {
        let hits = 2.0 * pairs;
        Load {
            elapsed: 1e9,
            used: 1e9,
            caused: hits * 850.0,
            hits,
            calls: pairs,
            bytes: 100.0 * pairs,
            ..Load::default()
        }
    }

    fn recording(pairs: f64, recorded: f64) -> Load {
        Load {
            elapsed: 1e9,
            caused: 2.0 * pairs * 850.0 + recorded * 3000.0,
            hits: 2.0 * pairs + recorded,
            recorded,
            ..measured(pairs)
        }
    }

    #[test]
    fn it_begins_with_as_much_as_the_budget_allows() {
        let first = |budget, pairs| limits(budget).first(&measured(pairs), TRAP);
        assert_eq!(first(0.1, 10.0), Mode::Recording(EXACT));
        assert_eq!(first(0.1, 15_000.0), Mode::Recording(EXACT));
        assert!(matches!(first(0.1, 30_000.0), Mode::Recording(1..)), "{:?}", first(0.1, 30_000.0));
        assert_eq!(first(0.1, 200_000.0), Mode::Windows);
        assert_eq!(first(0.01, 30_000.0), Mode::Windows);
        // A target that does nothing may begin to.
        assert_eq!(limits(0.1).first(&Load::default(), TRAP), Mode::Recording(EXACT));
        let never_exact = Limits { least: 3, ..limits(0.1) };
        assert_eq!(never_exact.first(&measured(10.0), TRAP), Mode::Recording(3));
        let nothing_else = Limits { exact_only: true, ..limits(0.01) };
        assert_eq!(nothing_else.first(&measured(1e6), TRAP), Mode::Recording(EXACT));
    }

    #[test]
    fn it_records_less_when_the_load_grows_and_more_when_it_falls() {
        let next = |number, pairs, recorded| limits(0.1).next(number, &recording(pairs, recorded), TRAP);
        assert_eq!(next(EXACT, 10_000.0, 10_000.0), None);
        assert!(matches!(next(EXACT, 30_000.0, 30_000.0), Some(Mode::Recording(1..))));
        assert_eq!(next(EXACT, 100_000.0, 100_000.0), Some(Mode::Windows));
        // Twice as many samples as there may be: half as many.
        assert_eq!(next(5, 30_000.0, 20_000.0), Some(Mode::Recording(7)));
        assert_eq!(next(5, 30_000.0, 10_000.0), None);
        assert!(matches!(next(5, 5_000.0, 1_000.0), Some(Mode::Recording(1..5))));
        assert_eq!(next(1, 100.0, 5.0), None);
        assert_eq!(next(5, 100_000.0, 0.0), Some(Mode::Windows));
    }

    #[test]
    fn what_was_decided_does_not_swing() {
        for pairs in [16_000.0, 25_000.0, 40_000.0, 55_000.0] {
            let Mode::Recording(number) = limits(0.1).first(&measured(pairs), TRAP) else { continue };
            let recorded =
                if number == EXACT { pairs } else { 100.0 * pairs / 512.0 / f64::from(1 << number) };
            assert_eq!(
                limits(0.1).next(number, &recording(pairs, recorded.min(pairs)), TRAP),
                None,
                "{pairs}"
            );
        }
    }

    #[test]
    fn a_process_that_does_little_may_be_recorded_whole() {
        // It uses a hundredth of a processor, and the probes would take two thirds of that.
        let load = Load { used: 1e7, elapsed: 1e9, ..measured(1000.0) };
        let strict = limits(0.1);
        let default = Limits { at_least: 0.02, ..strict };
        let second =
            |limits: &Limits| limits.first(&Load { used: 1e8, elapsed: 1e10, ..load.times(10.0) }, TRAP);
        assert_ne!(second(&strict), Mode::Recording(EXACT));
        assert_eq!(second(&default), Mode::Recording(EXACT));
        // Of a busy one, the other bound is the larger.
        assert_eq!(default.first(&measured(100_000.0), TRAP), strict.first(&measured(100_000.0), TRAP));
    }
}
