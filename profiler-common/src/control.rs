//! What the user side tells the probes while they run: at which interval they sample, and since when nothing was missed.

use crate::sampling::MAX_INTERVAL;

/// Intervals that one observation can use, a power of two; larger ones have larger numbers. A block's record has the number
/// of the one that it was drawn at, so that its weight stays right when another is in force.
pub const MAX_INTERVALS: usize = 32;
/// Number of the interval 0: every block is recorded.
pub const EXACT: u64 = 0;
/// In place of a number: calls are counted, and none is recorded.
pub const MEASURE_ONLY: u64 = MAX_INTERVALS as u64 - 1;

/// The value of the BPF map `CONTROL`, which has one.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Control {
    /// Number of the interval that is in force, or [`MEASURE_ONLY`]. While growth is watched, log2 of the pages of which one is
    /// in the sample.
    pub current: u64,
    /// Not 0 between two windows, where nothing is recorded and frees are not seen.
    pub paused: u64,
    /// Since when the probes have seen every call: `CLOCK_MONOTONIC` in nanoseconds; 0 for always. Blocks that were born
    /// before may be gone.
    pub unbroken_since: u64,
    /// Mean bytes from one sample to the next, by number.
    pub intervals: [u64; MAX_INTERVALS],
}
const _: () = assert!(size_of::<Control>() == 24 + 8 * MAX_INTERVALS);

impl Control {
    /// Every block is recorded.
    pub const EXACT: Self =
        Self { current: EXACT, paused: 0, unbroken_since: 0, intervals: [0; MAX_INTERVALS] };

    /// The mean bytes of the interval with this number; 0 where every block is recorded.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "a word is an index on both sides")]
    pub fn interval(&self, number: u64) -> u64 {
        self.intervals.get(number as usize).copied().unwrap_or(0)
    }
}

/// The number of an interval has its place above the number of a thread's name in
/// [`LiveBlock::thread`](crate::records::LiveBlock::thread).
pub const NUMBER_SHIFT: u32 = 32;

/// The intervals that follow from a smallest one, each twice the one before, up to the largest; `smallest` has number 1.
#[must_use]
pub const fn intervals_from(smallest: u64) -> [u64; MAX_INTERVALS] {
    let mut intervals = [0; MAX_INTERVALS];
    let mut interval = if smallest < MAX_INTERVAL { smallest } else { MAX_INTERVAL };
    let mut number = 1;
    while number < MAX_INTERVALS - 1 {
        intervals[number] = interval;
        interval = if interval * 2 < MAX_INTERVAL { interval * 2 } else { MAX_INTERVAL };
        number += 1;
    }
    intervals
}
