//! Calls that failed and may have unmapped something first, and what the kernel's own list says of them.
//!
//! A call that names its place clears it before it can know whether it succeeds: `mremap_to` of mm/mremap.c unmaps the
//! destination of `MREMAP_FIXED`, and the end of the old memory where that shrinks, before it looks whether the process
//! may have more; since 6.17 such a call moves several mappings, and may fail after the first. mmap with `MAP_FIXED` does
//! the like where a driver declines (mm/vma.c, and before 6.12 also where memory is short). The probes see the failure
//! alone. So what such a call named is in doubt until somebody has read which addresses are mapped.

use std::mem;

use profiler_common::mappings::MappingEvent;

use super::{MAP_FIXED, Mappings, PAGE, Piece, page_of, range};

/// Flag of include/uapi/linux/mman.h.
const MREMAP_FIXED: u32 = 2;
/// Failed calls in doubt that are kept at most.
const MOST_DOUBTS: usize = if cfg!(test) { 4 } else { 1 << 12 };

/// First address and one past the last.
type Range = (u64, u64);

/// What a failed call may have unmapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    /// When it was entered and when it returned: `CLOCK_MONOTONIC` in nanoseconds.
    entered: u64,
    returned: u64,
    /// The memory that was to be moved; `None` for mmap.
    old: Option<Range>,
    /// The place that it named.
    place: Range,
}

impl Doubt {
    /// Of a call that has failed; `None` where it can have changed nothing.
    fn of(event: &MappingEvent, is_remap: bool, returned: u64) -> Option<Self> {
        let flag = if is_remap { MREMAP_FIXED } else { MAP_FIXED };
        if event.flags & flag == 0 {
            return None;
        }
        let (place, old) = if is_remap {
            (range(event.new_address(), event.new_length, PAGE)?, range(event.address, event.length, PAGE))
        } else {
            (range(event.address, event.length, page_of(event.flags))?, None)
        };
        let is_whole = |(start, _): &Range| start.is_multiple_of(PAGE);
        // The kernel looks at that first.
        let may_have_begun = is_whole(&place) && old.iter().all(is_whole);
        may_have_begun.then_some(Self { entered: event.time, returned, old, place })
    }

    fn ranges(&self) -> impl Iterator<Item = Range> {
        self.old.into_iter().chain([self.place])
    }
}

impl Mappings {
    /// A call has failed.
    pub(super) fn doubt(&mut self, event: &MappingEvent, is_remap: bool, returned: u64) {
        let Some(doubt) = Doubt::of(event, is_remap, returned) else { return };
        if self.doubts.len() < MOST_DOUBTS {
            self.doubts.push(doubt);
        } else if let Some(last) = self.doubts.last_mut() {
            // What is between them is looked at too, which does no harm; what was moved is not found any more.
            let (start, end) = doubt.ranges().chain(last.ranges()).fold(doubt.place, hull);
            *last = Doubt { entered: last.entered, returned, old: None, place: (start, end) };
        }
    }

    /// Whether it has to be read which addresses are mapped.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        !self.doubts.is_empty()
    }

    /// Bytes that the account still has and that a failed call may have unmapped.
    #[must_use]
    pub fn bytes_in_doubt(&self) -> u64 {
        let mut ranges: Vec<_> = self.doubts.iter().flat_map(Doubt::ranges).collect();
        ranges.sort_unstable();
        let mut seen = 0;
        let mut bytes = 0_u64;
        for (start, end) in ranges {
            let start = start.max(seen);
            seen = seen.max(end);
            bytes = bytes.saturating_add(self.known(start, end));
        }
        bytes
    }

    /// Takes in which addresses are mapped: `mapped` has all of them, ascending, as they were at some moment after
    /// `before`, and all events up to that moment have been heard. Calls that failed before it are not in doubt any more.
    pub fn reconcile(&mut self, mapped: &[Range], before: u64) {
        let (settled, later): (Vec<_>, Vec<_>) =
            mem::take(&mut self.doubts).into_iter().partition(|doubt| doubt.returned < before);
        self.doubts = later;
        for doubt in settled {
            if let Some(old) = doubt.old
                && old.1 - old.0 == doubt.place.1 - doubt.place.0
            {
                self.find_moved(old, &doubt, mapped);
            }
            for range in doubt.ranges() {
                for (start, end) in gaps(mapped, range) {
                    self.clear(start, end, doubt.returned);
                }
            }
        }
    }

    /// Where a call of mremap failed after it had moved a part, this part is gone from its old place and is in the new
    /// one. It was mapped where it always was: no call has succeeded.
    fn find_moved(&mut self, old: Range, doubt: &Doubt, mapped: &[Range]) {
        for gap in gaps(mapped, old) {
            let to = |address: u64| address - old.0 + doubt.place.0;
            for (start, end) in common(mapped, (to(gap.0), to(gap.1))) {
                let back = |address: u64| address - doubt.place.0 + old.0;
                let is_later = |(_, piece): &(u64, Piece)| piece.born >= doubt.entered;
                let there = self.take(start, end);
                let (later, earlier): (Vec<_>, Vec<_>) = there.into_iter().partition(is_later);
                if !later.is_empty() {
                    // Somebody has mapped this place since.
                    self.insert_all(later);
                    self.insert_all(earlier);
                    continue;
                }
                self.correct(&earlier);
                let (later, moved): (Vec<_>, Vec<_>) =
                    self.take(back(start), back(end)).into_iter().partition(is_later);
                self.insert_all(later);
                self.counts.corrected = self.counts.corrected.saturating_add(bytes_of(&moved));
                let at_new_place = moved
                    .into_iter()
                    .map(|(start, piece)| (to(start), Piece { end: to(piece.end), ..piece }));
                self.insert_all(at_new_place.collect());
            }
        }
    }

    /// Nothing is mapped here. What has come since the call is left to its own end, which will be told.
    fn clear(&mut self, start: u64, end: u64, returned: u64) {
        let (later, gone): (Vec<_>, Vec<_>) =
            self.take(start, end).into_iter().partition(|(_, piece)| piece.born > returned);
        self.insert_all(later);
        self.correct(&gone);
    }

    fn correct(&mut self, pieces: &[(u64, Piece)]) {
        self.counts.corrected = self.counts.corrected.saturating_add(bytes_of(pieces));
        self.gone(pieces);
    }

    /// Bytes of pieces between two addresses.
    fn known(&self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let first = self.pieces.range(..start).next_back();
        let overlapping = first.into_iter().chain(self.pieces.range(start..end));
        overlapping.map(|(&first, piece)| piece.end.min(end).saturating_sub(first.max(start))).sum()
    }
}

fn bytes_of(pieces: &[(u64, Piece)]) -> u64 {
    pieces.iter().map(|(start, piece)| piece.end - start).sum()
}

fn hull(a: Range, b: Range) -> Range {
    (a.0.min(b.0), a.1.max(b.1))
}

/// What a range has in common with these, which ascend.
fn common(ranges: &[Range], within: Range) -> impl Iterator<Item = Range> {
    let first = ranges.partition_point(|(_, end)| *end <= within.0);
    let overlapping = ranges[first..].iter().take_while(move |(start, _)| *start < within.1);
    overlapping.map(move |(start, end)| ((*start).max(within.0), (*end).min(within.1)))
}

/// What a range does not have in common with these, which ascend.
fn gaps(ranges: &[Range], within: Range) -> impl Iterator<Item = Range> {
    let ends = common(ranges, within).chain([(within.1, within.1)]);
    let mut reached = within.0;
    ends.filter_map(move |(start, end)| {
        let gap = (reached, start);
        reached = reached.max(end);
        (gap.0 < gap.1).then_some(gap)
    })
}
