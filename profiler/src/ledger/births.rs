//! When the live blocks were born: equal spans of the observation, each site's blocks counted in the span of their birth.
//!
//! The ledger knows no clock: it is told from when to when blocks may have been born. There are two hundred spans at
//! most. Where many sites have blocks in many of them, spans are joined in pairs, so that what is kept is bounded.

use std::collections::HashMap;

use profiler_common::records::Held;

use super::{SiteAccount, add, add_to};

/// Spans at most.
pub const MOST_SPANS: u64 = 200;
/// Entries of all sites together at most, 24 bytes each, as long as there are not as many sites.
const MOST_ENTRIES: usize = 1 << 20;

/// Equal spans of time from the beginning of an observation on; by default none, and no births are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spans {
    begin: u64,
    step: u64,
}

impl Spans {
    /// At most [`MOST_SPANS`] from `begin` to `end`, both in nanoseconds of the clock that `LiveBlock::born` uses.
    #[must_use]
    pub fn between(begin: u64, end: u64) -> Self {
        Self { begin, step: (end.saturating_sub(begin) / MOST_SPANS).saturating_add(1) }
    }

    /// Length of a span in nanoseconds; 0 where births are not counted.
    #[must_use]
    pub const fn step(&self) -> u64 {
        self.step
    }

    /// The span in which a moment lies; of one outside of all, the nearest. `None` where births are not counted.
    fn of(&self, born: u64) -> Option<u64> {
        born.saturating_sub(self.begin).checked_div(self.step).map(|span| span.min(MOST_SPANS - 1))
    }
}

/// How births are counted by now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Births {
    pub(super) spans: Spans,
    entries: usize,
    /// Entries at most.
    most: usize,
}

impl Default for Births {
    fn default() -> Self {
        Self::in_spans(Spans::default())
    }
}

impl Births {
    pub(super) fn in_spans(spans: Spans) -> Self {
        Self { spans, entries: 0, most: MOST_ENTRIES }
    }

    /// None yet, of one of so many shares of the sites.
    pub(super) fn share(&self, shares: usize) -> Self {
        Self { entries: 0, most: self.most / shares.max(1), ..*self }
    }

    /// Notes that the entries of others have been added.
    pub(super) fn add_entries(&mut self, others: &Self) {
        self.entries += others.entries;
    }

    /// Counts blocks of one site that were born at this moment.
    pub(super) fn count(&mut self, account: &mut SiteAccount, born: u64, held: Held) {
        let Some(span) = self.spans.of(born) else { return };
        let before = account.births.len();
        add_to(&mut account.births, span, held);
        self.entries += account.births.len() - before;
    }

    /// Joins spans until what all sites keep is not too much. Ends after eight times: then there is one span.
    pub(super) fn bound(&mut self, sites: &mut HashMap<u64, SiteAccount>) {
        self.bound_to(self.most, sites);
    }

    fn bound_to(&mut self, most: usize, sites: &mut HashMap<u64, SiteAccount>) {
        if self.entries > most.max(2 * sites.len()) {
            // Of sites that were put together, entries were counted twice.
            self.recount(sites);
        }
        while self.entries > most.max(2 * sites.len()) {
            self.join_pairs(sites);
        }
    }

    /// Joins spans until they are no shorter than `step`, which is theirs or came out of it in the same way.
    pub(super) fn join_up_to(&mut self, step: u64, sites: &mut HashMap<u64, SiteAccount>) {
        while self.spans.step > 0 && self.spans.step < step {
            self.join_pairs(sites);
        }
    }

    fn join_pairs(&mut self, sites: &mut HashMap<u64, SiteAccount>) {
        self.spans.step = self.spans.step.saturating_mul(2);
        for account in sites.values_mut() {
            account.births.dedup_by(|later, earlier| {
                let joined = later.0 / 2 == earlier.0 / 2;
                if joined {
                    add(&mut earlier.1, later.1);
                }
                joined
            });
            account.births.iter_mut().for_each(|(span, _)| *span /= 2);
        }
        self.recount(sites);
    }

    /// Counts the entries anew, after some were put together.
    fn recount(&mut self, sites: &HashMap<u64, SiteAccount>) {
        self.entries = sites.values().map(|account| account.births.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_the_time_and_no_more() {
        let spans = Spans::between(1000, 1000 + 60_000_000_000);
        assert_eq!(spans.of(0), Some(0), "born before the beginning");
        assert_eq!(spans.of(1000), Some(0));
        assert_eq!(spans.of(1000 + 60_000_000_000), Some(MOST_SPANS - 1));
        assert_eq!(spans.of(u64::MAX), Some(MOST_SPANS - 1));
        assert_eq!(Spans::between(5, 5).of(5), Some(0), "no time at all");
        assert_eq!(Spans::default().of(7), None);
    }

    #[test]
    fn too_many_entries_are_joined_and_no_block_is_lost() {
        let one = Held { objects: 1, space: 10 };
        let mut births = Births::in_spans(Spans::between(0, MOST_SPANS - 1));
        let mut sites: HashMap<u64, SiteAccount> = HashMap::new();
        for site in 0..3 {
            let account = sites.entry(site).or_default();
            (0..MOST_SPANS).for_each(|born| births.count(account, born, one));
        }
        assert_eq!((births.spans.step, births.entries), (1, 600));
        births.bound_to(100, &mut sites);
        assert_eq!((births.spans.step, births.entries), (8, 75));
        assert_eq!(sites[&2].births[1], (1, Held { objects: 8, space: 80 }));
        // More sites than entries: one for each is left, and that is the end.
        births.bound_to(1, &mut sites);
        assert_eq!(
            (births.entries, sites[&0].births.as_slice()),
            (6, &[(0, Held { objects: 128, space: 1280 }), (1, Held { objects: 72, space: 720 })][..])
        );
    }
}
