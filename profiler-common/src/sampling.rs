//! Sampling by bytes: each byte that is asked for is sampled with the same small chance, and a block is recorded if one of
//! its bytes is (a Poisson process, as in heapprofd and tcmalloc).
//!
//! A thread draws how many bytes it may ask for until its next sample; such a distance has an exponential distribution,
//! which has no memory: whatever was asked for since, what is left of it is distributed alike. A block of S bytes is so
//! recorded with the probability p = 1 - exp(-S/R), and stands for 1/p blocks (Horvitz and Thompson 1952). Everything here
//! is in integers, because BPF has no others, and because user space must find the same weights to the bit.

use crate::limits::MAX_ALLOCATOR_FUNCTIONS;

/// Bits behind the binary point of a weight.
pub const WEIGHT_BITS: u32 = 16;
/// The weight of a block that stands for itself alone.
pub const ONE: u64 = 1 << WEIGHT_BITS;
/// The largest mean interval, in bytes.
pub const MAX_INTERVAL: u64 = 1 << 30;

/// Bits behind the binary point of the numbers in between.
const BITS: u32 = 28;
/// The natural logarithm of 2.
const LN_2: u64 = 186_065_279;

/// Where functions lie: those of the target's allocators, because a call out of there is part of another call; or those of
/// `--only-caller`. The value of the BPF maps `ALLOCATOR_CODE` and `CALLER_CODE`, which have one each.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy)]
pub struct AllocatorCode {
    /// How many of `functions` are in use.
    pub count: u64,
    /// First address of each, and one past the last (AVMA).
    pub functions: [[u64; 2]; MAX_ALLOCATOR_FUNCTIONS],
}
const _: () = assert!(size_of::<AllocatorCode>() == 8 + 16 * MAX_ALLOCATOR_FUNCTIONS);

/// A distance to the next sample, in bytes: `interval` times a number with the standard exponential distribution, made of
/// a uniform number. `interval` is at most [`MAX_INTERVAL`].
#[inline(always)]
#[must_use]
pub fn distance(interval: u64, uniform: u32) -> u64 {
    // Of the middles of 2^32 equal parts of (0, 1), one: u = odd / 2^33.
    let odd = ((uniform as u64) << 1) | 1;
    let highest = 63 - leading_zeros(odd);
    // odd / 2^highest, from 1 to 2, with 31 bits behind the point; its binary logarithm bit by bit, by squaring.
    let mut mantissa = (odd << 31) >> highest;
    let mut logarithm = highest;
    let mut bit = 0;
    while bit < BITS {
        mantissa = mantissa * mantissa;
        let carry = mantissa >> 63;
        mantissa >>= 31 + carry;
        logarithm = (logarithm << 1) | carry;
        bit += 1;
    }
    let negative = (33 << BITS) - logarithm;
    product(interval, product(negative, LN_2))
}

/// How many blocks a recorded block of so many bytes stands for, in units of 1 / [`ONE`]: 1 / (1 - exp(-size / interval)); one
/// where all are recorded, at an interval of 0.
/// One of no bytes is taken for one of one byte.
#[inline(always)]
#[must_use]
pub fn weight(interval: u64, size: u64) -> u64 {
    if interval == 0 {
        return ONE;
    }
    let size = if size == 0 { 1 } else { size };
    // exp(-12) is less than half of what can be told.
    if size >= 12 * interval {
        return ONE;
    }
    let x = (size << BITS) / interval;
    if x < 1 << (BITS - 1) {
        // 1/x + 1/2 + x/12 - x^3/720 + …: the next term is below 2^-19 here.
        let rest = x / 12 - product(product(x, x), x) / 720;
        return ((interval << WEIGHT_BITS) + size / 2) / size + ONE / 2 + (rest >> (BITS - WEIGHT_BITS));
    }
    // exp(-x) as the sixteenth power of exp(-x/16), which is a short series.
    let y = x >> 4;
    let one = 1 << BITS;
    let mut power = one - y / 7;
    let mut term = 6;
    while term > 0 {
        power = one - product(y, power) / term;
        term -= 1;
    }
    let mut squarings = 0;
    while squarings < 4 {
        power = product(power, power);
        squarings += 1;
    }
    let probability = one - power;
    match ((ONE << BITS) + probability / 2).checked_div(probability) {
        Some(weight) => weight,
        None => ONE,
    }
}

/// What a block of so many bytes and this weight stands for, in bytes.
#[inline(always)]
#[must_use]
pub fn weighted_space(size: u64, weight: u64) -> u64 {
    if weight == ONE { size } else { (size * weight + ONE / 2) >> WEIGHT_BITS }
}

/// The blocks of a sum of weights, rounded; where there is no `sampling`, the sum is that of blocks.
#[must_use]
pub const fn blocks(sampling: bool, sum: u64) -> u64 {
    if sampling { (sum >> WEIGHT_BITS) + (sum >> (WEIGHT_BITS - 1) & 1) } else { sum }
}

/// Of two numbers of which one at least has [`BITS`] behind its point.
#[inline(always)]
fn product(a: u64, b: u64) -> u64 {
    (a * b) >> BITS
}

/// `u64::leading_zeros` of a number that is not 0, in words that BPF has.
#[inline(always)]
fn leading_zeros(number: u64) -> u64 {
    let mut rest = number;
    let mut zeros = 63;
    let mut shift = 32;
    while shift > 0 {
        if rest >> shift != 0 {
            rest >>= shift;
            zeros -= shift;
        }
        shift >>= 1;
    }
    zeros
}
