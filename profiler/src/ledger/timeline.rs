//! What each site held, moment after moment.
//!
//! A process may be watched for a minute or for a month, so the number of snapshots is bounded: whenever the bound is
//! reached, every other one is dropped, and they are taken half as often from then on. Of a site only changes are kept.

use std::{collections::HashMap, time::Duration};

use profiler_common::records::Held;

/// Snapshots that are kept at most.
const MAX_SNAPSHOTS: usize = 256;
/// Changes of sites that are kept at most, 16 bytes each.
const MAX_CHANGES: usize = 1 << 20;
/// A snapshot may take one part in so many of the time.
const SHARE: u32 = 50;

/// The state of the whole account at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Time since the account began.
    pub after: Duration,
    /// What lived.
    pub inuse: Held,
    /// The process's resident memory, in bytes, where it could be read.
    pub rss: Option<u64>,
}

/// A site's live bytes from a snapshot on: the snapshot's index, and the bytes.
pub type Change = (usize, u64);

/// The snapshots so far.
#[derive(Clone, Debug)]
pub struct Timeline {
    step: Duration,
    due: Duration,
    snapshots: Vec<Snapshot>,
    sites: HashMap<u64, Vec<Change>>,
    changes: usize,
    /// Changes that there was no room for.
    dropped: u64,
}

impl Timeline {
    /// A timeline with a snapshot every `step`, as long as there is room for them.
    #[must_use]
    pub fn new(step: Duration) -> Self {
        Self {
            step,
            due: Duration::ZERO,
            snapshots: Vec::new(),
            sites: HashMap::new(),
            changes: 0,
            dropped: 0,
        }
    }

    /// Whether it is time for the next snapshot.
    #[must_use]
    pub fn is_due(&self, after: Duration) -> bool {
        after >= self.due
    }

    /// Enters a snapshot, with what each site holds. It was taken in the time `took`, which decides with others when the
    /// next one is due.
    pub fn add(
        &mut self,
        after: Duration,
        rss: Option<u64>,
        took: Duration,
        sites: impl IntoIterator<Item = (u64, Held)>,
    ) {
        while self.snapshots.len() >= MAX_SNAPSHOTS || self.changes >= MAX_CHANGES && self.snapshots.len() > 2
        {
            self.thin();
        }
        let index = self.snapshots.len();
        let mut inuse = Held::NOTHING;
        for (site, held) in sites {
            inuse.objects = inuse.objects.saturating_add(held.objects);
            inuse.space = inuse.space.saturating_add(held.space);
            self.note(site, index, held.space);
        }
        self.snapshots.push(Snapshot { after, inuse, rss });
        self.due = after + self.step.max(took.saturating_mul(SHARE));
    }

    fn note(&mut self, site: u64, index: usize, space: u64) {
        let changes = self.sites.entry(site).or_default();
        match changes.last_mut() {
            Some((_, before)) if *before == space => {}
            None if space == 0 => {}
            // Left by a snapshot that was dropped.
            Some((at, before)) if *at == index => *before = space,
            _ if self.changes >= MAX_CHANGES => self.dropped += 1,
            _ => {
                changes.push((index, space));
                self.changes += 1;
            }
        }
    }

    /// Drops every other snapshot. What changed at one that is dropped is seen at the one behind it.
    fn thin(&mut self) {
        let mut index = 0;
        self.snapshots.retain(|_| {
            index += 1;
            index % 2 == 1
        });
        for changes in self.sites.values_mut() {
            for (at, _) in changes.iter_mut() {
                *at = at.div_ceil(2);
            }
            // Of two that meet, the later one holds.
            changes.reverse();
            changes.dedup_by_key(|(at, _)| *at);
            changes.reverse();
        }
        self.changes = self.sites.values().map(Vec::len).sum();
        self.step = self.step.saturating_mul(2);
    }

    /// The snapshots, in order.
    #[must_use]
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// How a site's live bytes changed: nothing, until the first change.
    #[must_use]
    pub fn changes(&self, site: u64) -> &[Change] {
        self.sites.get(&site).map(Vec::as_slice).unwrap_or_default()
    }

    /// Changes that are missing because there was no room for them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a site held at each snapshot.
    fn replay(timeline: &Timeline, site: u64) -> Vec<u64> {
        let changes = timeline.changes(site);
        let at = |index: usize| changes.iter().rev().find(|(from, _)| *from <= index);
        (0..timeline.snapshots().len()).map(|index| at(index).map_or(0, |(_, space)| *space)).collect()
    }

    proptest! {
        /// However often it was thinned, each snapshot that is left says what every site held at its time.
        #[test]
        fn what_is_left_is_true(history in prop::collection::vec((0u64..4, 0u64..4), 1..1500)) {
            let mut timeline = Timeline::new(Duration::from_secs(1));
            for (second, (a, b)) in (0u64..).zip(&history) {
                let after = Duration::from_secs(second);
                let sites = [(7, Held { objects: *a, space: 10 * a }), (8, Held { objects: *b, space: 10 * b })];
                timeline.add(after, Some(second), Duration::ZERO, sites);
            }
            prop_assert!(timeline.snapshots().len() <= MAX_SNAPSHOTS);
            let (first, second) = (replay(&timeline, 7), replay(&timeline, 8));
            for (index, snapshot) in timeline.snapshots().iter().enumerate() {
                let then = usize::try_from(snapshot.after.as_secs()).unwrap_or(usize::MAX);
                prop_assert_eq!(first[index], 10 * history[then].0);
                prop_assert_eq!(second[index], 10 * history[then].1);
                prop_assert_eq!(snapshot.inuse.space, first[index] + second[index]);
                prop_assert_eq!(snapshot.rss, Some(snapshot.after.as_secs()));
            }
        }
    }

    #[test]
    fn it_comes_when_it_is_due() {
        let mut timeline = Timeline::new(Duration::from_secs(2));
        assert!(timeline.is_due(Duration::ZERO));
        timeline.add(Duration::ZERO, None, Duration::from_millis(1), []);
        assert!(!timeline.is_due(Duration::from_millis(1999)));
        assert!(timeline.is_due(Duration::from_secs(2)));
        // One that takes long comes more rarely.
        timeline.add(Duration::from_secs(2), None, Duration::from_millis(100), []);
        assert!(!timeline.is_due(Duration::from_millis(6900)));
        assert!(timeline.is_due(Duration::from_secs(7)));
    }

    #[test]
    fn a_long_time_is_seen_at_longer_steps() {
        let mut timeline = Timeline::new(Duration::from_secs(1));
        let (mut second, mut taken) = (0, 0);
        while second < 100_000 {
            if timeline.is_due(Duration::from_secs(second)) {
                timeline.add(Duration::from_secs(second), None, Duration::ZERO, []);
                taken += 1;
            }
            second += 1;
        }
        assert!(taken < 2000, "{taken} snapshots were taken");
        assert!(timeline.snapshots().len() > MAX_SNAPSHOTS / 4);
    }
}
