//! Who touched the page that lies at an address now: the last site to touch it there, unless something else has been mapped there
//! since; or where it lay before mremap moved it.

use std::ops::Range;

use profiler_common::growth::{TouchedPage, is_chosen, is_in_chosen_block};

use crate::{
    ledger::{
        growth::PageState,
        growth_sample::ResidenceSample,
        mappings::Mappings,
        moves::{Move, Moves},
    },
    probe::ebpf::EbpfProbe,
    target::pagemap::PAGE,
};

/// A page that was touched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct By {
    pub(super) page: u64,
    pub(super) site: u64,
    time: u64,
    /// Who touched it before, and when.
    before: (u64, u64),
}

impl By {
    /// Who had touched the page by then.
    fn until(&self, time: u64) -> Option<u64> {
        let of_before = self.before.0 != 0 && self.before.1 < time;
        if self.time < time { Some(self.site) } else { of_before.then_some(self.before.0) }
    }
}

/// All of them, by their numbers, and what has happened to the address space since.
#[derive(Debug)]
pub(super) struct Owners<'a> {
    pub(super) touched: Vec<By>,
    /// log2 of the pages of which one is in the sample.
    pub(super) shift: u64,
    moves: &'a Moves,
    mappings: Option<&'a Mappings>,
}

/// The part of it that is about neighbouring pages.
pub(super) struct OwnersOf<'a> {
    all: &'a Owners<'a>,
    touched: &'a [By],
    /// First page, one past the last, and when they were mapped.
    births: Vec<(u64, u64, u64)>,
    moves: Vec<Move>,
}

impl<'a> Owners<'a> {
    /// Reads what has been noted; `None` where that fails. What was noted of other pages, while more of them were in the sample, is
    /// left out: of those it is not known what has happened to them since.
    pub(super) fn read(probe: &EbpfProbe, moves: &'a Moves, mappings: Option<&'a Mappings>) -> Option<Self> {
        let shift = probe.control().current;
        let mut touched = Vec::new();
        let each = |page, by: &TouchedPage| {
            if !is_chosen(page, shift) && !is_in_chosen_block(page, shift) {
                return;
            }
            touched.push(By { page, site: by.site, time: by.time, before: (by.site_before, by.time_before) });
        };
        probe.touched_pages(each).ok()?;
        touched.sort_unstable();
        Some(Self { touched, shift, moves, mappings })
    }

    /// The part about these pages.
    pub(super) fn of(&'a self, pages: Range<u64>) -> OwnersOf<'a> {
        let from = self.touched.partition_point(|by| by.page < pages.start);
        let to = self.touched.partition_point(|by| by.page < pages.end);
        let (start, end) = (pages.start.saturating_mul(PAGE), pages.end.saturating_mul(PAGE));
        let births = self.mappings.into_iter().flat_map(|mappings| mappings.births(start, end));
        OwnersOf {
            all: self,
            touched: self.touched.get(from..to).unwrap_or_default(),
            births: births.map(|(start, end, born)| (start / PAGE, end / PAGE, born)).collect(),
            moves: self.moves.to(&pages),
        }
    }

    /// Counts pages that lie in no mapping any more, unless they have been moved.
    pub(super) fn unmapped(&self, touched: &[By], residence: &mut ResidenceSample) {
        let gone = touched.iter().filter(|by| !self.moves.took(by.page, by.time));
        gone.for_each(|by| residence.unmapped(by.site, is_chosen(by.page, self.shift)));
    }

    fn at(&self, page: u64) -> Option<&By> {
        self.touched.binary_search_by_key(&page, |by| by.page).ok().and_then(|index| self.touched.get(index))
    }
}

impl OwnersOf<'_> {
    /// Who touched a page, and where it lay then; where nobody did, where it lay when the observation began. What was touched at
    /// its address before something else came there is counted as given back.
    pub(super) fn owner(
        &self,
        page: u64,
        state: PageState,
        residence: &mut ResidenceSample,
    ) -> (Option<u64>, u64) {
        let here = self.touched.binary_search_by_key(&page, |by| by.page).ok();
        if let Some(by) = here.and_then(|index| self.touched.get(index)) {
            let piece = self.births.iter().find(|(first, end, _)| (*first..*end).contains(&page));
            let was_moved = || self.all.moves.took(page, by.time);
            if piece.is_none_or(|(.., born)| by.time >= *born) {
                let is_elsewhere = state == PageState::Absent && was_moved();
                return (Some(by.site).filter(|_| !is_elsewhere), page);
            }
            if !was_moved() {
                residence.unmapped(by.site, is_chosen(page, self.all.shift));
            }
        }
        if self.moves.is_empty() || matches!(state, PageState::Absent | PageState::Zeros) {
            return (None, page);
        }
        let mut origin = page;
        for (place, until) in self.all.moves.places(page, &self.moves) {
            origin = place;
            if let Some(site) = self.all.at(place).and_then(|by| by.until(until)) {
                return (Some(site), place);
            }
        }
        (None, origin)
    }
}
