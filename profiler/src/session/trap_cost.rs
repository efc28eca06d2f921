//! What a trap costs in the midst of a program, by what it costs in a loop that does nothing else.
//!
//! Behind a trap, caches and branch predictors are no longer the program's own, and its code runs slower until they are. Where the
//! next trap comes soon there is not much that could run slower. So what a trap costs depends on how much the program does
//! in between (docs/budget.md has the measurements that this follows).

/// A trap between calls that come one upon the other, in calibrated ones.
const CLOSE: f64 = 1.4;
/// What comes on top where the program does a lot in between.
const APART: f64 = 4.2;
/// Nanoseconds of the program's own work after which two thirds of that are due.
const RECOVERY: f64 = 6000.0;
/// Halvings of the interval in which the solution lies.
const STEPS: usize = 24;

/// Nanoseconds of a trap where nothing is known of the program.
pub(super) fn in_a_loop(calibrated: f64) -> f64 {
    CLOSE * calibrated
}

/// Nanoseconds of each of so many traps that come from the program's own code, and of each of those that come right behind
/// another, if it has used so many nanoseconds in all, those of the traps and of our programs' runs among them; `calibrated` is
/// a trap in a loop.
pub(super) fn of_each(calibrated: f64, traps: f64, behind: f64, run: f64, used: f64) -> [f64; 2] {
    let close = in_a_loop(calibrated);
    if traps < 1.0 {
        return [close; 2];
    }
    let on_top = |gap: f64| APART * calibrated * -(-gap / RECOVERY).exp_m1();
    // What a trap, what comes on top of it and the program's work up to the next one take together.
    let known = used / traps - (close + run) * (traps + behind) / traps;
    let (mut least, mut most) = (0.0, known.max(0.0));
    for _ in 0..STEPS {
        let gap = f64::midpoint(least, most);
        if gap + on_top(gap) > known { most = gap } else { least = gap }
    }
    [close + on_top(least), close]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAP: f64 = 380.0;
    const RUN: f64 = 93.0;

    /// What was measured with a Python program that does ever more between two calls (docs/budget.md): microseconds of its
    /// own work up to the next trap, and nanoseconds that this one took.
    const MEASURED: [(f64, f64); 5] =
        [(0.06, 639.0), (0.24, 685.0), (1.29, 905.0), (3.79, 1410.0), (14.28, 2150.0)];

    #[test]
    fn it_follows_what_was_measured() {
        for (gap, took) in MEASURED {
            let traps = 1e5;
            let used = traps * (1000.0 * gap + took);
            let [trap, _] = of_each(TRAP, traps, 0.0, RUN, used);
            let off = (trap + RUN) / took - 1.0;
            assert!(off.abs() < 0.08, "{gap} us: {trap} + {RUN}, and not {took}");
        }
    }

    #[test]
    fn a_trap_right_behind_another_finds_nothing_to_spoil() {
        let [trap, behind] = of_each(TRAP, 1000.0, 500.0, RUN, 1e9);
        assert_eq!(behind.round(), (CLOSE * TRAP).round());
        assert!(trap > behind + 0.99 * APART * TRAP);
    }

    #[test]
    fn it_never_takes_more_than_was_used_because_of_what_comes_on_top() {
        // All time goes into traps.
        assert_eq!(of_each(TRAP, 1000.0, 0.0, RUN, 1000.0), [CLOSE * TRAP; 2]);
        assert_eq!(of_each(TRAP, 0.0, 0.0, RUN, 1e9), [CLOSE * TRAP; 2]);
        for used in [1e6, 2e6, 5e6, 1e7] {
            let [trap, _] = of_each(TRAP, 1000.0, 0.0, RUN, used);
            assert!(1000.0 * (trap + RUN) <= used, "{used}: {trap}");
        }
    }
}
