//! From what was seen in windows to what an account says of the whole time.

use std::time::Duration;

use profiler_common::{records::Held, sampling::ONE};

use super::{observation::Observation, windows::Windowed};
use crate::{
    ledger::{Account, SiteAccount, windows::InWindows},
    report::budget::{Kept, Windowed as WindowedReport},
};

impl Windowed {
    /// Has what was allocated in windows stand for the time between them too, with its error.
    pub(super) fn apply(&self, account: &mut Account, sampling: bool) {
        if !self.any() {
            return;
        }
        let unit = if sampling { ONE as f64 } else { 1.0 };
        let mut all = SiteAccount::default();
        for (site, sums) in &mut account.sites {
            self.stretch(sums, self.of_site(*site), unit);
            all.alloc_objects = all.alloc_objects.saturating_add(sums.alloc_objects);
            all.alloc_space = all.alloc_space.saturating_add(sums.alloc_space);
            all.temporary_objects = all.temporary_objects.saturating_add(sums.temporary_objects);
            all.alloc_sizes.iter_mut().zip(&sums.alloc_sizes).for_each(|(sum, more)| *sum += more);
        }
        let totals = &mut account.totals;
        (totals.alloc_objects, totals.alloc_space) = (all.alloc_objects, all.alloc_space);
        (totals.temporary_objects, totals.alloc_sizes) = (all.temporary_objects, all.alloc_sizes);
        totals.alloc_error = Some(self.errors(self.of_all(), unit, [all.alloc_objects, all.alloc_space]));
    }

    fn stretch(&self, sums: &mut SiteAccount, [objects, space]: [InWindows; 2], unit: f64) {
        let more = |seen: &InWindows, unit: f64| self.windows.estimate(seen).0 / unit - seen.sum / unit;
        let before = sums.alloc_objects;
        sums.alloc_objects = before.saturating_add(whole(more(&objects, unit)));
        sums.alloc_space = sums.alloc_space.saturating_add(whole(more(&space, 1.0)));
        sums.alloc_error = Some(self.errors([objects, space], unit, [sums.alloc_objects, sums.alloc_space]));
        let factor = sums.alloc_objects as f64 / before.max(1) as f64;
        for part in sums.alloc_sizes.iter_mut().chain([&mut sums.temporary_objects]) {
            *part = whole(*part as f64 * factor);
        }
    }

    /// The errors of what was allocated in all; as large as that itself where there is nothing to compare.
    fn errors(
        &self,
        [objects, space]: [InWindows; 2],
        unit: f64,
        [all_objects, all_space]: [u64; 2],
    ) -> Held {
        let error = |seen: &InWindows, unit: f64, all: u64| match self.windows.estimate(seen).1 {
            Some(error) => whole((error / unit).ceil()),
            None => all,
        };
        Held { objects: error(&objects, unit, all_objects), space: error(&space, 1.0, all_space) }
    }

    /// Where the parts of time begin that kept blocks are told apart by: two for each stretch, a window's first part and its
    /// rest.
    pub(super) fn boundaries(&self) -> Vec<u64> {
        self.stretches.iter().flat_map(|stretch| [stretch.began, stretch.until]).collect()
    }

    /// What was not seen freed, without what was born in the rest of a window.
    pub(super) fn kept_of(&self, sums: &SiteAccount) -> Held {
        let mut kept = sums.kept();
        for (number, held) in &sums.windows {
            let stretch = usize::try_from(number.saturating_sub(1) / 2).unwrap_or(usize::MAX);
            let is_window = self.stretches.get(stretch).is_some_and(|stretch| stretch.is_window);
            if *number > 0 && number.is_multiple_of(2) && is_window {
                kept.space = kept.space.saturating_sub(held.space);
                kept.objects = kept.objects.saturating_sub(held.objects);
            }
        }
        kept
    }

    /// What a site, or all of them, have kept of so much time.
    pub(super) fn kept(&self, sums: &SiteAccount, lasted: Duration) -> Kept {
        let held = self.kept_of(sums);
        let seconds = lasted.as_secs_f64().max(1e-9);
        let (mut windows, mut in_windows) = (self.windows.without_windows(), InWindows::default());
        let mut seen = 0.0;
        for (index, stretch) in self.stretches.iter().enumerate().filter(|(_, stretch)| stretch.is_window) {
            windows.add(stretch.seconds);
            let number = 2 * index as u64 + 1;
            let born = sums.windows.binary_search_by_key(&number, |(window, _)| *window).ok();
            let born = born.and_then(|at| sums.windows.get(at)).map_or(0, |(_, held)| held.space);
            seen += born as f64;
            // The rest of the window would have kept as much.
            let of_all = stretch.seconds / stretch.deciding.max(f64::MIN_POSITIVE);
            in_windows.add(born as f64 * of_all, stretch.seconds);
        }
        let (of_windows, error) = windows.estimate(&in_windows);
        let rate = (held.space as f64 - seen + of_windows) / seconds;
        Kept { held, rate, rate_error: error.map(|error| error / seconds) }
    }
}

impl Observation {
    /// How long calls were seen.
    pub(super) fn observed(&self) -> Duration {
        let windows = &self.governor.windowed.windows;
        let unseen = (windows.spanned - windows.open).max(0.0);
        self.duration().saturating_sub(Duration::try_from_secs_f64(unseen).unwrap_or_default())
    }

    /// What the report says of windows, if there were any.
    pub(super) fn windowed(&self, account: &Account, gone: u64) -> Option<WindowedReport> {
        let windowed = &self.governor.windowed;
        let snapshots = self.history.timeline.snapshots().iter();
        windowed.any().then(|| WindowedReport {
            count: windowed.windows.count,
            observed: self.observed(),
            slowdown: windowed.windows.slowdown(),
            kept: windowed.kept(&account.totals, self.duration()),
            gone,
            resident: snapshots.filter_map(|snapshot| Some((snapshot.after, snapshot.rss?))).collect(),
        })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}
