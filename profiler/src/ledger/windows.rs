//! What is seen in windows, as a rate, and how far that may be off.
//!
//! Windows are samples of the time (clusters, in the words of survey sampling): of n windows with the lengths t in which a
//! site did y each, the rate is R = sum(y) / sum(t), and the variance of sum(y) is n / (n - 1) times the sum of (y - R t)²
//! (Cochran, Sampling Techniques, 1977, section 9A.1, the ratio estimator). So a site that does the same in all windows has a
//! small error, one that was busy in a few has a large one.
//!
//! A process does less in a window than at other times, because the probes take its time. So what windows stand for is not
//! told by the clock but by the time that it spent in its own code, in which there are no probes. The kernel samples that by
//! its ticks, which adds an error of its own: that of a number of ticks, its root.

/// The windows themselves.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Windows {
    /// How many.
    pub count: u64,
    /// How long they were open together, in seconds.
    pub open: f64,
    /// How long the time is that they are samples of, in seconds.
    pub spanned: f64,
    /// The time that the process spent in its own code while they were open, in seconds, and in the whole time.
    pub worked: [f64; 2],
    /// From one tick to the next, in seconds; 0 where that is not known.
    pub tick: f64,
    squares: f64,
}

/// With fewer ticks than this in windows, the clock tells better what they stand for.
const LEAST_TICKS: f64 = 10.0;

/// What one site did in them: enough for a sum and its error.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct InWindows {
    /// The sum.
    pub sum: f64,
    squares: f64,
    products: f64,
}

impl InWindows {
    /// Adds what was done in a window of so many seconds.
    pub fn add(&mut self, amount: f64, seconds: f64) {
        self.sum += amount;
        self.squares += amount * amount;
        self.products += amount * seconds;
    }
}

impl Windows {
    /// The same time, before there was a window in it.
    #[must_use]
    pub fn without_windows(&self) -> Self {
        Self { count: 0, open: 0.0, squares: 0.0, ..*self }
    }

    /// Adds a window of so many seconds.
    pub fn add(&mut self, seconds: f64) {
        self.count += 1;
        self.open += seconds;
        self.squares += seconds * seconds;
    }

    /// What stands for the whole time, for what was seen in windows: 1 without windows.
    #[must_use]
    pub fn scale(&self) -> f64 {
        let [in_windows, in_all] =
            if self.is_told_by_work() { self.worked } else { [self.open, self.spanned] };
        // Where traps leave hardly a tick to the process's own code, one tick is what can be told.
        let in_windows = if self.is_told_by_work() { in_windows.max(self.tick) } else { in_windows };
        if in_windows > 0.0 { (in_all / in_windows).max(1.0) } else { 1.0 }
    }

    /// How many times less a process does in windows than at other times, by its own time and the clock's.
    #[must_use]
    pub fn slowdown(&self) -> f64 {
        if self.is_told_by_work() && self.open > 0.0 { self.scale() * self.open / self.spanned } else { 1.0 }
    }

    /// The relative standard error of [`Self::scale`].
    fn error_of_scale(&self) -> f64 {
        if self.is_told_by_work() { (self.tick / self.worked[0].max(self.tick)).sqrt() } else { 0.0 }
    }

    fn is_told_by_work(&self) -> bool {
        // As much as there would be if the process were no slower in windows: that there is less tells how slow it is.
        let expected = if self.spanned > 0.0 { self.worked[1] * self.open / self.spanned } else { 0.0 };
        self.tick > 0.0 && self.worked[0].max(expected) >= LEAST_TICKS * self.tick
    }

    /// The standard error of a sum; `None` where two windows are not there to be compared.
    #[must_use]
    pub fn error(&self, of: &InWindows) -> Option<f64> {
        if self.count < 2 || self.open <= 0.0 {
            return None;
        }
        let rate = of.sum / self.open;
        // Windows in which nothing was done are in the squares of all.
        let off = of.squares - 2.0 * rate * of.products + rate * rate * self.squares;
        #[expect(clippy::cast_precision_loss, reason = "far below 2 to the 52nd")]
        let count = self.count as f64;
        Some((off.max(0.0) * count / (count - 1.0)).sqrt())
    }

    /// An estimate for the whole time from what was seen in windows, and its standard error.
    #[must_use]
    pub fn estimate(&self, of: &InWindows) -> (f64, Option<f64>) {
        let scale = self.scale();
        // The part of the time that was seen has no error.
        let unseen = (1.0 - 1.0 / scale).max(0.0).sqrt();
        let of_scale = of.sum * scale * self.error_of_scale();
        (of.sum * scale, self.error(of).map(|error| (error * scale * unseen).hypot(of_scale)))
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a test"
)]
mod tests {
    use super::*;

    /// splitmix64, as a number from 0 to 1.
    fn next(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as f64 / u64::MAX as f64
    }

    /// A site with a load that changes, seen in a tenth of the time: the mean of many estimates is the truth, and the
    /// intervals hold it.
    #[test]
    fn rates_are_unbiased_and_their_errors_right() {
        const ROUNDS: usize = 2000;
        let mut state = 5;
        let load: Vec<f64> =
            (0..4000).map(|at| 50.0 + 40.0 * f64::from(at / 40).sin() + 20.0 * next(&mut state)).collect();
        let truth: f64 = load.iter().sum();
        let (mut mean, mut held) = (0.0, 0);
        for _ in 0..ROUNDS {
            let mut windows = Windows { spanned: 400.0, ..Windows::default() };
            let mut site = InWindows::default();
            for second in load.chunks(40) {
                // Four moments of a tenth of a second each, at a random place in each stretch of time.
                let begin = (next(&mut state) * 36.99) as usize;
                windows.add(0.4);
                site.add(second[begin..begin + 4].iter().sum(), 0.4);
            }
            let (estimate, error) = windows.estimate(&site);
            mean += estimate / ROUNDS as f64;
            held += usize::from((estimate - truth).abs() <= 1.96 * error.unwrap());
        }
        assert!((mean / truth - 1.0).abs() < 0.005, "{mean}, not {truth}");
        // Windows that are spread over the time see its changes better than the formula for random ones says.
        assert!(held >= ROUNDS * 94 / 100, "{held}");
    }

    #[test]
    fn a_process_that_traps_leave_no_time_is_slow() {
        let mut windows = Windows { spanned: 10.0, worked: [0.01, 9.0], tick: 0.004, ..Windows::default() };
        windows.add(0.5);
        assert!(windows.slowdown() > 30.0, "{}", windows.slowdown());
        // So little work in all tells nothing.
        windows.worked = [0.0, 0.1];
        assert!((windows.slowdown() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_always_the_same_has_no_error() {
        let mut windows = Windows { spanned: 10.0, ..Windows::default() };
        let (mut steady, mut once) = (InWindows::default(), InWindows::default());
        assert_eq!(windows.estimate(&steady), (0.0, None));
        for seconds in [0.5, 0.25, 0.25] {
            windows.add(seconds);
            steady.add(100.0 * seconds, seconds);
        }
        once.add(100.0, 0.5);
        let (estimate, error) = windows.estimate(&steady);
        assert!((estimate - 1000.0).abs() < 1e-9 && error.unwrap() < 1e-3, "{estimate} {error:?}");
        let (estimate, error) = windows.estimate(&once);
        assert!((estimate - 1000.0).abs() < 1e-9 && error.unwrap() > 500.0, "{estimate} {error:?}");
    }
}
