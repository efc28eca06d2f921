//! The integers of the sampler against the functions that they stand for, and the estimates against what is sampled.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of a test")]

use proptest::prelude::*;

use super::*;
use crate::ledger::Ledger;
use profiler_common::{
    control::{Control, NUMBER_SHIFT, intervals_from},
    records::{LiveBlock, Moments},
};

fn exact_weight(interval: u64, size: u64) -> f64 {
    -1.0 / (-(size.max(1) as f64) / interval as f64).exp_m1()
}

proptest! {
    #[test]
    fn weights_are_those_of_the_formula(interval in 1u64..=sampling::MAX_INTERVAL, bits in 0u32..47, low in any::<u64>()) {
        let size = low & ((1 << bits) - 1);
        let (weight, exact) = (sampling::weight(interval, size) as f64 / ONE as f64, exact_weight(interval, size));
        prop_assert!((weight / exact - 1.0).abs() < 1e-4, "{interval} {size}: {weight}, not {exact}");
    }

    #[test]
    fn distances_are_those_of_the_formula(interval in 1u64..=sampling::MAX_INTERVAL, uniform in any::<u32>()) {
        let exact = -(interval as f64) * ((f64::from(uniform) + 0.5) / 2f64.powi(32)).ln();
        let distance = sampling::distance(interval, uniform) as f64;
        let off = exact - distance;
        // It is rounded down to a byte, and what is computed with is 2^-28 of an interval.
        prop_assert!(off > -8.0 * interval as f64 / 2f64.powi(28) - 1e-6 && off < 1.0 + 8.0 * interval as f64 / 2f64.powi(28));
    }
}

/// splitmix64
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// The account of blocks of these sizes as one thread's sampler sees them.
fn sampled(interval: u64, sizes: &[u64], state: &mut u64) -> (Held, Variance) {
    let mut distance = sampling::distance(interval, next(state) as u32);
    let control = Control { current: 1, intervals: intervals_from(interval), ..Control::EXACT };
    let mut ledger = Ledger::new(None, Vec::new(), Moments::default()).drawn(true, control);
    for size in sizes {
        if distance >= *size {
            distance -= size;
        } else {
            distance = sampling::distance(interval, next(state) as u32);
            ledger.add_blocks(&mut [LiveBlock { size: *size, site: 7, born: 1, thread: 1 << NUMBER_SHIFT }]);
        }
    }
    let totals = ledger.close().totals;
    (totals.inuse, totals.inuse_variance)
}

/// Sizes from far below the interval to far above: the mean of many estimates is the truth, and the intervals hold it.
#[test]
fn estimates_are_unbiased_and_their_errors_right() {
    const ROUNDS: usize = 2000;
    let mut state = 11;
    for (interval, largest) in [(1024, 64), (4096, 16_384), (100, 5000)] {
        let sizes: Vec<u64> = (0..4000).map(|_| 1 + next(&mut state) % largest).collect();
        let truth = [sizes.len() as f64, sizes.iter().sum::<u64>() as f64];
        let mut off = [Vec::new(), Vec::new()];
        let mut held = [0usize; 2];
        for _ in 0..ROUNDS {
            let (estimate, variance) = sampled(interval, &sizes, &mut state);
            let error = variance.standard_error();
            let each = [(estimate.objects, error.objects), (estimate.space, error.space)];
            for (kind, (estimate, error)) in each.into_iter().enumerate() {
                off[kind].push(estimate as f64 - truth[kind]);
                held[kind] += usize::from((estimate as f64 - truth[kind]).abs() <= 1.96 * error as f64);
            }
        }
        for (off, held) in off.iter().zip(held) {
            let mean = off.iter().sum::<f64>() / ROUNDS as f64;
            let variance = off.iter().map(|off| square(off - mean)).sum::<f64>() / (ROUNDS - 1) as f64;
            let error_of_mean = (variance / ROUNDS as f64).sqrt();
            assert!(mean.abs() < 4.0 * error_of_mean, "{interval} {largest}: {mean} +- {error_of_mean}");
            assert!((ROUNDS * 91 / 100..=ROUNDS * 98 / 100).contains(&held), "{interval} {largest}: {held}");
        }
    }
}

/// A hundred thousand blocks of 64 bytes at an interval that leaves some sites without a sample: the bound that stands for a
/// standard error there holds in 95 of 100 cases or more, and is not much larger than it need be.
#[test]
fn what_was_not_sampled_is_bounded() {
    const R: u64 = 65_536;
    let unseen = Unseen { interval: R, space: u64::MAX };
    let one = Held { objects: 1, space: 64 };
    let error = unseen.variance(0, one).standard_error();
    assert_eq!((error.space, error.objects), (R * 3 / 2, R * 3 / 2 / 64));
    let mut state = 5;
    // What was allocated when the first sample came: less than two such errors in 95 of 100 cases.
    let held = (0..20_000).filter(|_| {
        let mut distance = sampling::distance(R, next(&mut state) as u32);
        let mut allocated = 0;
        while distance >= 64 {
            distance -= 64;
            allocated += 64;
        }
        allocated <= 2 * error.space
    });
    let held = held.count();
    assert!((18_900..=19_100).contains(&held), "{held}");
}

#[test]
fn where_a_sample_was_drawn_nothing_is_added() {
    let unseen = Unseen { interval: 4096, space: 1 << 30 };
    let some = Held { objects: 10, space: 10_240 };
    assert_eq!(unseen.variance(4096, some), Variance::default());
    assert_eq!(unseen.variance(8192, some), Variance::default());
    assert_eq!(Unseen::default().variance(0, some), Variance::default());
    let error = unseen.variance(1024, some).standard_error();
    assert_eq!((error.space, error.objects), (6144, 6));
    // No more than what was left out at all.
    let few = Unseen { space: 2048, ..unseen }.variance(0, some).standard_error();
    assert_eq!((few.space, few.objects), (1024, 1));
    let nothing = Unseen { space: 0, ..unseen }.variance(0, some).standard_error();
    assert_eq!(nothing, StandardError::default());
    // Of a site that has recorded nothing, the size is not known: blocks of a byte.
    assert_eq!(unseen.variance(0, Held::NOTHING).standard_error().objects, 6144);
}
