//! Where pages were before mremap moved them: what was touched at one address may lie at another.

use std::{collections::HashMap, ops::Range};

use profiler_common::{
    mappings::{MappingEvent, RETURNS},
    records::CallKind,
};

/// Bytes of a page: x86-64 has no other base size.
const PAGE: u64 = 4096;
/// A result above this is an error (`IS_ERR_VALUE` of include/linux/err.h).
const LAST_ADDRESS: u64 = u64::MAX - 4095;
/// Calls under way, and moves, that are kept at most; the oldest moves go first.
const MOST_CALLS: usize = 1 << 12;
const MOST_MOVES: usize = 1 << 12;
/// Moves of one page that are followed at most.
const MOST_STEPS: usize = 64;

/// Pages that a call of mremap has moved, or left where they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    from: u64,
    to: u64,
    pages: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    time: u64,
}

/// All of them, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Moves {
    calls: HashMap<(u64, u64), MappingEvent>,
    moves: Vec<Move>,
    /// Moves that were forgotten because there were too many.
    pub forgotten: u64,
}

impl Moves {
    /// Takes in one end of a call; those that are not of mremap are of no interest.
    pub fn hear(&mut self, event: &MappingEvent) {
        if event.call & !RETURNS != CallKind::Remap as u32 {
            return;
        }
        let key = (event.thread, event.sp);
        if event.call & RETURNS == 0 {
            if self.calls.len() < MOST_CALLS {
                self.calls.insert(key, *event);
            }
            return;
        }
        let Some(entry) = self.calls.remove(&key).filter(|_| event.address <= LAST_ADDRESS) else { return };
        let pages = entry.length.min(entry.new_length).div_ceil(PAGE);
        let (from, to) = (entry.address / PAGE, event.address / PAGE);
        if pages == 0 || from.checked_add(pages).is_none() || to.checked_add(pages).is_none() {
            return;
        }
        if self.moves.len() >= MOST_MOVES {
            self.moves.drain(..MOST_MOVES / 2);
            self.forgotten += (MOST_MOVES / 2) as u64;
        }
        self.moves.push(Move { from, to, pages, time: event.time });
    }

    /// Those that led to any of these pages, the youngest first.
    #[must_use]
    pub fn to(&self, pages: &Range<u64>) -> Vec<Move> {
        let leads = |step: &&Move| step.to < pages.end && pages.start < step.to + step.pages;
        self.moves.iter().rev().filter(leads).copied().collect()
    }

    /// Whether a page that was touched at this time has been moved since, or was part of a mapping that was resized in its place.
    #[must_use]
    pub fn took(&self, page: u64, touched: u64) -> bool {
        let takes = |step: &Move| step.time > touched && (step.from..step.from + step.pages).contains(&page);
        self.moves.iter().rev().any(takes)
    }

    /// The places at which a page has been, each with the time until when, the last one first. `first` are the moves that led to
    /// its neighbours, as [`Self::to`] has them.
    pub fn places<'a>(&'a self, page: u64, first: &[Move]) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let step_to = |step: &Move, page: u64, before: u64| {
            (step.time < before && (step.to..step.to + step.pages).contains(&page))
                .then(|| (page - step.to + step.from, step.time))
        };
        let begin = first.iter().find_map(|step| step_to(step, page, u64::MAX));
        std::iter::successors(begin, move |(page, before)| {
            self.moves.iter().rev().find_map(|step| step_to(step, *page, *before))
        })
        .take(MOST_STEPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remap(moves: &mut Moves, from: u64, old: u64, to: u64, new: u64, time: u64) {
        let entry = MappingEvent {
            call: CallKind::Remap as u32,
            address: from * PAGE,
            length: old * PAGE,
            new_length: new * PAGE,
            ..MappingEvent::default()
        };
        moves.hear(&entry);
        moves.hear(&MappingEvent { call: entry.call | RETURNS, address: to * PAGE, time, ..entry });
    }

    #[test]
    fn a_page_is_followed_back_to_where_it_was_touched() {
        let mut moves = Moves::default();
        remap(&mut moves, 100, 4, 200, 8, 10);
        remap(&mut moves, 200, 8, 300, 16, 20);
        remap(&mut moves, 300, 16, 300, 32, 30);
        // The address is given out again, which is no concern of the page's.
        remap(&mut moves, 900, 4, 100, 4, 40);
        let places = |page: u64| moves.places(page, &moves.to(&(page..page + 1))).collect::<Vec<_>>();
        assert_eq!(places(302), [(302, 30), (202, 20), (102, 10)]);
        assert_eq!(places(306), [(306, 30), (206, 20)], "it came with the first growth");
        assert_eq!(places(320), []);
        assert_eq!(places(101), [(901, 40)]);
        assert!(moves.took(102, 9) && !moves.took(102, 11) && !moves.took(104, 9));
        let known = moves.moves.len();
        let entry = MappingEvent {
            call: CallKind::Remap as u32,
            length: 1,
            new_length: 1,
            ..MappingEvent::default()
        };
        moves.hear(&entry);
        let failed = MappingEvent { call: entry.call | RETURNS, address: u64::MAX, ..entry };
        moves.hear(&failed);
        moves.hear(&MappingEvent { address: PAGE, ..failed });
        assert_eq!(moves.moves.len(), known, "one that failed, and one without an entry");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut moves = Moves::default();
        for time in 0..=MOST_MOVES as u64 {
            remap(&mut moves, 1, 1, 2, 1, time);
        }
        assert_eq!((moves.moves.len(), moves.forgotten), (MOST_MOVES / 2 + 1, MOST_MOVES as u64 / 2));
    }
}
