//! How long a run of our programs takes, as the kernel measures it: by the clock on the wall, so that a run that another process
//! interrupts is as long as it had to wait. So it is measured in slices so short that most of them have no such run.

use std::time::Duration;

use crate::{
    probe::ebpf::{self, EbpfProbe},
    sys::bpf::RunTime,
};

/// Of one slice. A process that is interrupted waits as long or longer.
const SLICE: Duration = Duration::from_millis(2);
const SLICES: usize = 8;
/// After so many slices without a run, no more are waited for.
const IDLE: usize = 2;

/// Nanoseconds of a run in these 16 ms; `None` where there was none, or where the kernel does not tell. The kernel's measuring
/// costs two looks at its clock a run, and is on meanwhile.
pub(super) fn measure(probe: &EbpfProbe) -> Option<f64> {
    let _statistics = ebpf::enable_run_time_stats().ok()?;
    let mut before = probe.run_time();
    let mut slices = Vec::with_capacity(SLICES);
    for number in 1..=SLICES {
        std::thread::sleep(SLICE);
        let now = probe.run_time();
        slices.push(RunTime {
            nanoseconds: now.nanoseconds.saturating_sub(before.nanoseconds),
            runs: now.runs.saturating_sub(before.runs),
        });
        before = now;
        if number == IDLE && slices.iter().all(|slice| slice.runs == 0) {
            return None;
        }
    }
    typical(&slices)
}

/// The mean of the slice in the middle, in which half of the runs lie on either side.
#[expect(clippy::cast_precision_loss, reason = "a mean")]
fn typical(slices: &[RunTime]) -> Option<f64> {
    let mut means: Vec<_> = slices
        .iter()
        .filter(|slice| slice.runs > 0)
        .map(|slice| (slice.nanoseconds as f64 / slice.runs as f64, slice.runs))
        .collect();
    means.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = means.iter().map(|(_, runs)| runs).sum::<u64>().div_ceil(2);
    let mut so_far = 0;
    means.into_iter().find_map(|(mean, runs)| {
        so_far += runs;
        (so_far >= half).then_some(mean)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(runs: u64, nanoseconds: u64) -> RunTime {
        RunTime { nanoseconds, runs }
    }

    #[test]
    fn a_run_that_was_interrupted_does_not_count() {
        let quiet = slice(200, 200 * 400);
        // For 3 ms another process had the processor; what is left of these slices has fewer runs.
        let interrupted = slice(90, 90 * 400 + 3_000_000);
        let slices = [interrupted, quiet, quiet, interrupted, quiet, interrupted, quiet, slice(0, 0)];
        assert_eq!(typical(&slices), Some(400.0));
        assert_eq!(typical(&[slice(1, 3_000_000), slice(10, 4500), slice(10, 4500)]), Some(450.0));
    }

    #[test]
    fn what_is_measured_is_a_mean_and_not_the_least() {
        let slices: Vec<_> = (1..=7).map(|number| slice(100, number * 10_000)).collect();
        assert_eq!(typical(&slices), Some(400.0));
        // A slice with a run or two says less than one with many.
        assert_eq!(typical(&[slice(2, 100), slice(1, 60), slice(300, 90_000)]), Some(300.0));
        assert_eq!(typical(&[slice(0, 0), slice(3, 1200)]), Some(400.0));
        assert_eq!(typical(&[slice(0, 0); 3]), None);
        assert_eq!(typical(&[]), None);
    }
}
