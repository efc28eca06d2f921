//! heaptrack's file tells every block's birth and death; a profile has sums. Here is which lives of a site's blocks make
//! these sums: how many were live at the peak, at the end, at both, at neither.

use profiler_common::records::Held;

use crate::report::profile::SiteReport;

/// A site's blocks by when they were live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lives {
    /// At the peak and at the end.
    pub(super) both: Held,
    /// At the peak only.
    pub(super) peak: Held,
    /// At the end only.
    pub(super) end: Held,
    /// At neither, so many of them freed by their thread before it allocated another one.
    pub(super) gone: Held,
    pub(super) temporary: u64,
    /// Whether the site's numbers contradict each other, as those of samples and of a moment's reading can: then what was
    /// live at the peak is left out, and nothing else.
    pub(super) without_peak: bool,
}

impl Lives {
    /// There may be many answers; any is as good, because heaptrack adds up again what it reads.
    pub(super) fn of(site: &SiteReport) -> Self {
        let end = Held { objects: site.totals.inuse_objects, space: site.totals.inuse_space };
        let all = Held {
            objects: site.totals.alloc_objects.max(end.objects),
            space: site.totals.alloc_space.max(end.space),
        };
        let peak = site.history.peak;
        let both = both(all, peak, end);
        let (both, peak) = both.map_or((Held::NOTHING, Held::NOTHING), |both| (both, minus(peak, both)));
        let end = minus(end, both);
        let gone = minus(minus(minus(all, both), peak), end);
        let temporary = site.history.temporary_objects.min(gone.objects);
        let without_peak =
            site.history.peak != Held::NOTHING && both == Held::NOTHING && peak == Held::NOTHING;
        Self { both, peak, end, gone, temporary, without_peak }
    }
}

/// How much may have been live at both moments, given what was allocated in all: of objects and bytes the fewest that
/// leave no part with bytes but without blocks. `None` where no number does.
fn both(all: Held, peak: Held, end: Held) -> Option<Held> {
    let fewest = (peak.objects.checked_add(end.objects)?).saturating_sub(all.objects);
    let most = peak.objects.min(end.objects);
    let least = (peak.space.checked_add(end.space)?).saturating_sub(all.space);
    // Between the two ends every number of blocks is as good as any other.
    [fewest, fewest.checked_add(1)?, most]
        .into_iter()
        .filter(|objects| (fewest..=most).contains(objects))
        .find_map(|objects| {
            // A part without blocks has no bytes.
            let mut bytes = least..=peak.space.min(end.space);
            let exactly = |bytes: &mut std::ops::RangeInclusive<u64>, number: u64| {
                *bytes = (*bytes.start()).max(number)..=(*bytes.end()).min(number);
            };
            if objects == 0 {
                exactly(&mut bytes, 0);
            }
            if objects == peak.objects {
                exactly(&mut bytes, peak.space);
            }
            if objects == end.objects {
                exactly(&mut bytes, end.space);
            }
            if peak.objects + end.objects - objects == all.objects {
                // Nothing is gone: all bytes are accounted for.
                if peak.space + end.space < all.space {
                    return None;
                }
                exactly(&mut bytes, peak.space + end.space - all.space);
            }
            (!bytes.is_empty()).then_some(Held { objects, space: *bytes.start() })
        })
}

fn minus(from: Held, part: Held) -> Held {
    Held { objects: from.objects.saturating_sub(part.objects), space: from.space.saturating_sub(part.space) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::{
        history::SiteHistory,
        profile::{SiteReport, Totals},
    };

    fn held(blocks: &[u64]) -> Held {
        Held { objects: blocks.len() as u64, space: blocks.iter().sum() }
    }

    fn site(all: Held, peak: Held, end: Held) -> SiteReport {
        SiteReport {
            totals: Totals {
                inuse_space: end.space,
                inuse_objects: end.objects,
                alloc_space: all.space,
                alloc_objects: all.objects,
            },
            errors: None,
            kept: None,
            oldest: None,
            allocator: String::new(),
            stack: Vec::new(),
            history: SiteHistory { peak, temporary_objects: 1, ..SiteHistory::default() },
        }
    }

    /// No part has bytes without blocks, and the parts add up to what they came from.
    fn check(lives: &Lives, all: Held, peak: Held, end: Held) {
        let parts = [lives.both, lives.peak, lives.end, lives.gone];
        assert!(parts.iter().all(|part| part.objects > 0 || part.space == 0), "{lives:?}");
        let sum = |parts: &[Held]| Held {
            objects: parts.iter().map(|part| part.objects).sum(),
            space: parts.iter().map(|part| part.space).sum(),
        };
        assert_eq!(sum(&parts), all, "{lives:?}");
        assert_eq!(sum(&[lives.both, lives.peak]), peak, "{lives:?}");
        assert_eq!(sum(&[lives.both, lives.end]), end, "{lives:?}");
        assert!(!lives.without_peak && lives.temporary <= lives.gone.objects);
    }

    proptest! {
        /// Whatever the blocks were, some lives are found that tell the same.
        #[test]
        fn sums_of_real_blocks(blocks in proptest::collection::vec((0u64..5, 0u8..4), 0..12)) {
            let of = |wanted: fn(u8) -> bool| {
                let sizes: Vec<u64> = blocks.iter().filter(|(_, when)| wanted(*when)).map(|(size, _)| *size).collect();
                held(&sizes)
            };
            let (all, peak, end) = (of(|_| true), of(|when| when & 1 > 0), of(|when| when & 2 > 0));
            check(&Lives::of(&site(all, peak, end)), all, peak, end);
        }

        /// Numbers that contradict each other break nothing, and what is live at the end stays as it is.
        #[test]
        fn any_numbers(numbers: [u64; 6]) {
            let [a, b, c, d, e, f] = numbers;
            let held = |objects, space| Held { objects, space };
            let lives = Lives::of(&site(held(a, b), held(c, d), held(e, f)));
            prop_assert_eq!(lives.both.objects + lives.end.objects, e);
            prop_assert_eq!(lives.both.space + lives.end.space, f);
        }
    }
}
