//! Ways to look at a profile: another moment, a part of its sites, other groups. Each takes a profile and gives one, or
//! sums of one, without any input or output.
//!
//! Standard errors go along: sites are sampled independently of one another, so that the variances of their sums add up.
//! Where an error cannot be known, the profile says so.

pub mod filter;
pub mod group;
pub mod moment;
pub mod place;

use profiler_common::records::{Held, SIZE_CLASSES, largest_of_class};

use super::{
    history::SiteHistory,
    profile::{Profile, SiteReport, Totals},
};
use crate::ledger::estimate::Variance;

/// Sums of estimates, and of the squares of their errors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// The sum.
    pub totals: Totals,
    squares: [f64; 4],
    estimates: usize,
    others: usize,
}

impl Sums {
    /// Adds a part; its errors are `None` where it is exact.
    pub fn add(&mut self, totals: &Totals, errors: Option<&Totals>) {
        let sum = &mut self.totals;
        sum.inuse_space = sum.inuse_space.saturating_add(totals.inuse_space);
        sum.inuse_objects = sum.inuse_objects.saturating_add(totals.inuse_objects);
        sum.alloc_space = sum.alloc_space.saturating_add(totals.alloc_space);
        sum.alloc_objects = sum.alloc_objects.saturating_add(totals.alloc_objects);
        let Some(errors) = errors else {
            self.others += 1;
            return;
        };
        self.estimates += 1;
        let errors = [errors.inuse_space, errors.inuse_objects, errors.alloc_space, errors.alloc_objects];
        for (square, error) in self.squares.iter_mut().zip(errors) {
            *square += error as f64 * error as f64;
        }
    }

    /// The standard errors of the sum, if it has parts and those of all are known.
    #[must_use]
    pub fn errors(&self) -> Option<Totals> {
        let [inuse_space, inuse_objects, alloc_space, alloc_objects] = self.squares.map(root);
        (self.others == 0 && self.estimates > 0).then_some(Totals {
            inuse_space,
            inuse_objects,
            alloc_space,
            alloc_objects,
        })
    }

    /// The sum over sites.
    #[must_use]
    pub fn of<'a>(sites: impl IntoIterator<Item = &'a SiteReport>) -> Self {
        let mut sums = Self::default();
        for site in sites {
            sums.add(&site.totals, site.errors.as_ref());
        }
        sums
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn root(variance: f64) -> u64 {
    variance.sqrt().ceil() as u64
}

/// Adds one number of blocks to another.
fn add(sum: &mut Held, more: Held) {
    sum.objects = sum.objects.saturating_add(more.objects);
    sum.space = sum.space.saturating_add(more.space);
}

/// How far a part of what a site allocated may be off; nothing where every block was recorded.
fn variance(interval: Option<u64>, site: &SiteReport, held: Held) -> Variance {
    Variance::of(interval.unwrap_or(0), held, &classes(&site.history))
}

/// Standard error of a sum of such parts; `None` where every block was recorded.
fn standard_error<'a>(
    interval: Option<u64>,
    parts: impl Iterator<Item = (&'a SiteReport, Held)>,
) -> Option<Held> {
    interval?;
    let sum: Variance = parts.map(|(site, held)| variance(interval, site, held)).sum();
    let error = sum.standard_error();
    Some(Held { objects: error.objects, space: error.space })
}

/// A site's allocations by size class, as the account has them.
fn classes(history: &SiteHistory) -> [u64; SIZE_CLASSES] {
    let mut classes = [0; SIZE_CLASSES];
    for (class, number) in classes.iter_mut().enumerate() {
        let largest = Some(largest_of_class(class)).filter(|largest| *largest != u64::MAX);
        let same = history.sizes.iter().find(|size| size.largest == largest);
        *number = same.map_or(0, |size| size.alloc_objects);
    }
    classes
}

/// Sorts the sites anew: most live bytes first.
fn sort(profile: &mut Profile) {
    let order = |site: &SiteReport| (site.totals.inuse_space, site.totals.alloc_space);
    profile.sites.sort_by_key(|site| std::cmp::Reverse(order(site)));
}
