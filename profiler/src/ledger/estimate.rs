//! How far a sampled account may be off.
//!
//! A block that is recorded with the probability p and counted 1/p times adds (1-p)/p² to the variance of a number of
//! blocks, and as often the square of its size to that of bytes (Horvitz and Thompson 1952, for independent draws): one over
//! p once more, because only recorded blocks are seen. A standard error is the variance's root; the true value lies
//! within 1.96 of them 95 times of a hundred, if there are more than a few samples.
//!
//! Where there is none, that sum is nothing, and yet something may have been allocated: see [`Unseen`].

use profiler_common::{
    records::{Held, SIZE_CLASSES, largest_of_class},
    sampling::{self, ONE},
};

/// The variance of a number of blocks and of their bytes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Variance {
    /// Of blocks.
    pub objects: f64,
    /// Of bytes.
    pub space: f64,
}

/// What an estimate may be off by: one standard error each, rounded up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StandardError {
    /// Blocks.
    pub objects: u64,
    /// Bytes.
    pub space: u64,
}

impl Variance {
    /// Adds that of one recorded block; none where all are, at an interval of 0.
    pub(super) fn add_block(&mut self, interval: u64, size: u64) {
        if interval > 0 {
            let weight = weight(interval, size as f64);
            *self += Self { objects: 1.0, space: square(size as f64) } * (weight * (weight - 1.0));
        }
    }

    /// That of what recorded blocks of a site stand for of which the sizes are not known any more. That of bytes is as if
    /// all had their mean size, that of blocks as if their sizes were those of the site's allocations (`sizes`, by class).
    #[must_use]
    pub fn of(interval: u64, held: Held, sizes: &[u64; SIZE_CLASSES]) -> Self {
        if interval == 0 || held.objects == 0 {
            return Self::default();
        }
        let objects = held.objects as f64;
        let size = held.space as f64 / objects;
        let (mut of_sizes, mut more_of_sizes) = (0.0, 0.0);
        for (class, number) in sizes.iter().enumerate() {
            let largest = if class + 1 < SIZE_CLASSES { largest_of_class(class) as f64 } else { size };
            // Classes go by powers of two, but for the first.
            let typical = if class == 0 { largest / 4.0 } else { largest / std::f64::consts::SQRT_2 };
            of_sizes += *number as f64;
            more_of_sizes += *number as f64 * (weight(interval, typical) - 1.0);
        }
        let more = if of_sizes > 0.0 { more_of_sizes / of_sizes } else { 0.0 };
        Self { objects: objects * more, space: objects * square(size) * (weight(interval, size) - 1.0) }
    }

    /// Its root.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
    pub fn standard_error(self) -> StandardError {
        let root = |variance: f64| variance.max(0.0).sqrt().ceil() as u64;
        StandardError { objects: root(self.objects), space: root(self.space) }
    }
}

/// What may have been allocated though no sample of it was drawn.
///
/// At a mean of R bytes from one sample to the next, none is drawn of B bytes with the probability exp(-B/R), which is one in
/// twenty at B = 3 R. So there are less than 3 R bytes in 95 of 100 cases: two times 1.5 R, which stands where the standard error does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unseen {
    /// R; 0 where every block was recorded.
    pub interval: u64,
    /// Bytes that were not recorded in all, which is known.
    pub space: u64,
}

/// -ln(0.05) / 2, nearly.
const INTERVALS: f64 = 1.5;

impl Unseen {
    /// As a variance, of blocks of this mean size; nothing where a sample was drawn at this interval.
    #[must_use]
    pub fn variance(&self, drawn_at: u64, sums: Held) -> Variance {
        if drawn_at >= self.interval {
            return Variance::default();
        }
        let space = (INTERVALS * self.interval as f64).min(self.space as f64 / 2.0);
        let size = if sums.objects > 0 { sums.space as f64 / sums.objects as f64 } else { 1.0 };
        Variance { objects: square(space / size.max(1.0)), space: square(space) }
    }
}

impl std::ops::AddAssign for Variance {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.space += other.space;
    }
}

impl std::ops::Add for Variance {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::ops::Mul<f64> for Variance {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self { objects: self.objects * times, space: self.space * times }
    }
}

impl std::iter::Sum for Variance {
    fn sum<I: Iterator<Item = Self>>(variances: I) -> Self {
        variances.fold(Self::default(), |mut sum, variance| {
            sum += variance;
            sum
        })
    }
}

fn square(number: f64) -> f64 {
    number * number
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn weight(interval: u64, size: f64) -> f64 {
    sampling::weight(interval, size.round() as u64) as f64 / ONE as f64
}

#[cfg(test)]
mod tests;
