//! What a program that heapscope starts is given in advance: every block of its beginning is recorded, however many those are,
//! as long as the account of the budget has credit.

use super::overhead::Load;

/// What counts of an earlier tick in what happened last, so that about five of them do.
const FADING: f64 = 0.8;

/// The account.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Advance {
    /// Of the target's CPU time, from 0 to 1, what is paid in.
    budget: f64,
    /// Nanoseconds that the probes may take now.
    credit: f64,
    /// What it began with, which is also the most that is ever there.
    most: f64,
    /// What happened last.
    recent: Load,
}

impl Advance {
    /// An account that begins with what the budget pays in for so many seconds of CPU time.
    pub(super) fn new(budget: f64, seconds: f64) -> Self {
        let most = budget * seconds * 1e9;
        Self { budget, credit: most, most, recent: Load::default() }
    }

    /// Takes in what happened since the last call. What happened last, if the credit was used up by that.
    pub(super) fn pay(&mut self, load: &Load) -> Option<Load> {
        let had = self.is_left();
        self.credit = (self.credit + self.budget * load.used - load.caused).min(self.most);
        self.recent = self.recent.times(FADING);
        self.recent.add(load);
        (had && !self.is_left()).then_some(self.recent)
    }

    /// Whether nothing need be recorded less.
    pub(super) fn is_left(&self) -> bool {
        self.credit > 0.0
    }

    /// What was taken beyond the credit, as a negative number of nanoseconds.
    pub(super) fn debt(&self) -> f64 {
        self.credit.min(0.0)
    }

    /// Nanoseconds that it began with.
    pub(super) fn most(&self) -> f64 {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: f64 = 50e6;

    /// A tick of a thread that computes all the time, of which the probes take this share.
    fn tick(share: f64) -> Load {
        Load { elapsed: TICK, used: TICK, caused: share * TICK, ..Load::default() }
    }

    /// Ticks of which all blocks are recorded.
    fn lasts(budget: f64, share: f64) -> Option<u32> {
        let mut advance = Advance::new(budget, 2.0);
        (1..1000).find(|_| advance.pay(&tick(share)).is_some())
    }

    #[test]
    fn the_beginning_is_recorded_however_much_that_takes() {
        // 0.5 s in advance, of which 0.55 in each second is used up.
        assert_eq!(lasts(0.25, 0.8), Some(19));
        assert_eq!(lasts(0.25, 0.5), Some(40));
        assert_eq!(lasts(0.25, 0.25), None);
        assert_eq!(lasts(0.05, 0.8), Some(3));
        assert_eq!(Advance::new(0.25, 0.0).pay(&tick(0.8)), None);
    }

    #[test]
    fn a_long_rest_pays_for_no_more_than_the_beginning_had() {
        let mut advance = Advance::new(0.25, 2.0);
        for _ in 0..1000 {
            assert_eq!(advance.pay(&tick(0.0)), None);
        }
        let last = (0..1000).find_map(|_| advance.pay(&tick(0.8)));
        assert_eq!(advance.debt().round(), (500e6 - 19.0 * 0.55 * TICK).round());
        // It tells of the load that used it up.
        let share = last.map(|load| load.share()).unwrap_or_default();
        assert!(share > 0.75 && last.is_some_and(|load| load.is_telling()), "{last:?}");
    }

    #[test]
    fn what_came_back_may_be_used_up_again() {
        let mut advance = Advance::new(0.25, 2.0);
        assert!((0..40).any(|_| advance.pay(&tick(0.9)).is_some()));
        assert!(!advance.is_left());
        assert!((0..200).all(|_| advance.pay(&tick(0.1)).is_none()));
        assert!(advance.is_left());
        assert!((0..40).any(|_| advance.pay(&tick(0.9)).is_some()));
    }
}
