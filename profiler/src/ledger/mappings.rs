//! The account of mapped memory, by site: which pieces of the address space a process has mapped and not unmapped.
//!
//! The ends of calls of mmap, munmap and mremap go in, in their order of cause and effect. What munmap and mremap are
//! handed is taken out when they are entered, because the kernel may give it to another thread before they return, and
//! put back if they fail; whether a call that failed has unmapped something all the same, only the kernel's list of
//! mappings tells (`doubt.rs`). What mmap and mremap return comes in place of whatever was there. As with realloc, what
//! mremap returns belongs to its own site, and what it was handed is gone.

use std::collections::{BTreeMap, HashMap};

use profiler_common::{
    mappings::{MappingEvent, RETURNS},
    records::CallKind,
};

use doubt::Doubt;

/// Bytes of a page: x86-64 has no other base size.
const PAGE: u64 = 4096;
/// Bytes of a huge page where `flags` does not say (`MAP_HUGETLB` without a size).
const HUGE_PAGE: u64 = 2 << 20;
/// Flags of include/uapi/asm-generic/mman-common.h and linux/mman.h.
const MAP_FIXED: u32 = 0x10;
const MAP_HUGETLB: u32 = 0x4_0000;
const MAP_HUGE_SHIFT: u32 = 26;
const MREMAP_DONTUNMAP: u32 = 4;
/// A result above this is an error (`IS_ERR_VALUE` of include/linux/err.h).
const LAST_ADDRESS: u64 = u64::MAX - 4095;
/// Pieces that are kept at most: the kernel allows 65,530 mappings by default, but counts neighbours as one.
const MOST_PIECES: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };
/// Calls under way at a time that are kept at most.
const MOST_CALLS: usize = 1 << 14;

/// A piece of the address space that one call has mapped. Its first address is its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    /// One past its last address.
    end: u64,
    site: u64,
    born: u64,
}

/// A call between its entry and its return, with what it is about to give up.
#[derive(Debug)]
struct Call {
    event: MappingEvent,
    taken: Vec<(u64, Piece)>,
}

/// What one site, or all of them, has mapped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MappedSite {
    /// Bytes mapped by all its calls.
    pub alloc_space: u64,
    /// Calls that mapped memory.
    pub alloc_calls: u64,
    /// Bytes of those that are mapped still.
    pub inuse_space: u64,
    /// When the oldest of those was mapped: `CLOCK_MONOTONIC` in nanoseconds.
    pub oldest_born: Option<u64>,
    /// The pieces that are mapped still: first address and one past the last, ascending.
    pub ranges: Vec<(u64, u64)>,
}

/// What is counted over all calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MappingCounts {
    /// Calls of mmap that succeeded.
    pub maps: u64,
    /// Calls of munmap that succeeded.
    pub unmaps: u64,
    /// Calls of mremap that succeeded.
    pub remaps: u64,
    /// Calls of any of them that failed.
    pub failed: u64,
    /// Successful calls of munmap and mremap that were handed no byte that is known: older than the account, or mapped
    /// in a way that is not seen.
    pub unmatched: u64,
    /// Bytes that were mapped anew, without being asked for at that address, while the account still held them: their
    /// end was not seen.
    pub unseen_unmaps: u64,
    /// Returns without their entries, and entries without their returns.
    pub unpaired: u64,
    /// Bytes whose record was changed because a call that failed had unmapped or moved them.
    pub corrected: u64,
    /// Pieces that were not kept, for want of room or because no such addresses exist.
    pub declined: u64,
    /// The most bytes mapped at a time.
    pub peak_space: u64,
}

/// The account.
#[derive(Debug, Default)]
pub struct Mappings {
    pieces: BTreeMap<u64, Piece>,
    calls: HashMap<(u64, u64), Call>,
    sites: HashMap<u64, MappedSite>,
    counts: MappingCounts,
    /// Bytes of all pieces, those of calls under way among them. No two of them overlap.
    space: u64,
    /// Pieces that calls under way have taken.
    taken: usize,
    /// Failed calls that may have unmapped something.
    doubts: Vec<Doubt>,
}

impl Mappings {
    /// What has been counted.
    #[must_use]
    pub const fn counts(&self) -> &MappingCounts {
        &self.counts
    }

    /// Takes in one end of a call.
    pub fn hear(&mut self, event: &MappingEvent) {
        let key = (event.thread, event.sp);
        let earlier = self.calls.remove(&key);
        if event.call & RETURNS == 0 {
            if let Some(earlier) = earlier {
                // It will not return any more: a record is lost, or a signal handler has jumped out of it.
                self.counts.unpaired += 1;
                self.put_back(earlier.taken);
            }
            self.enter(key, event);
            return;
        }
        match earlier {
            Some(call) if call.event.call == event.call & !RETURNS => self.settle(call, event),
            Some(call) => {
                self.counts.unpaired += 1;
                self.put_back(call.taken);
            }
            // At the beginning, a call may be under way.
            None => self.counts.unpaired += 1,
        }
    }

    /// Every site that has mapped anything, most mapped bytes first, then most bytes of all calls, then by key; and
    /// their sum.
    #[must_use]
    pub fn sites(&self) -> (Vec<(u64, MappedSite)>, MappedSite) {
        let mut sites = self.sites.clone();
        let under_way = self.calls.values().flat_map(|call| &call.taken).map(|(start, piece)| (start, piece));
        for (&start, piece) in self.pieces.iter().chain(under_way) {
            let site = sites.entry(piece.site).or_default();
            site.inuse_space = site.inuse_space.saturating_add(piece.end - start);
            site.oldest_born = Some(site.oldest_born.map_or(piece.born, |oldest| oldest.min(piece.born)));
            site.ranges.push((start, piece.end));
        }
        let mut total = MappedSite::default();
        for site in sites.values_mut() {
            site.ranges.sort_unstable();
            total.alloc_space = total.alloc_space.saturating_add(site.alloc_space);
            total.alloc_calls = total.alloc_calls.saturating_add(site.alloc_calls);
            total.inuse_space = total.inuse_space.saturating_add(site.inuse_space);
            total.oldest_born = total.oldest_born.into_iter().chain(site.oldest_born).min();
            total.ranges.extend(&site.ranges);
        }
        total.ranges.sort_unstable();
        let mut sites: Vec<_> = sites.into_iter().collect();
        sites.sort_by_key(|(key, site)| (std::cmp::Reverse((site.inuse_space, site.alloc_space)), *key));
        (sites, total)
    }

    /// The pieces that have any of these addresses: first address, one past the last, and when they were mapped
    /// (`CLOCK_MONOTONIC` in nanoseconds).
    pub fn births(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, u64)> {
        let before = self.pieces.range(..start).next_back();
        let pieces = before.into_iter().chain(self.pieces.range(start..end.max(start)));
        pieces
            .filter(move |(_, piece)| piece.end > start)
            .map(|(first, piece)| (*first, piece.end, piece.born))
    }

    fn enter(&mut self, key: (u64, u64), event: &MappingEvent) {
        if self.calls.len() >= MOST_CALLS {
            // Its return will count as one without entry.
            return;
        }
        let gives_up = match kind_of(event.call) {
            Some(CallKind::Unmap) => event.address.is_multiple_of(PAGE),
            // It keeps the old pages where its flags say so, and fails without a new length.
            Some(CallKind::Remap) => {
                event.address.is_multiple_of(PAGE)
                    && event.flags & MREMAP_DONTUNMAP == 0
                    && event.new_length > 0
            }
            _ => false,
        };
        let taken = match range(event.address, event.length, PAGE) {
            // Without an old length, the pages stay and are mapped a second time.
            Some((start, end)) if gives_up => self.take(start, end),
            _ => Vec::new(),
        };
        self.taken += taken.len();
        self.calls.insert(key, Call { event: *event, taken });
    }

    /// The return of a call. One that fails has changed nothing, or is in doubt.
    fn settle(&mut self, call: Call, returned: &MappingEvent) {
        let Call { event, taken } = call;
        self.taken -= taken.len();
        let kind = kind_of(event.call);
        let failed = if kind == Some(CallKind::Unmap) {
            // An `int`: the upper half of the register says nothing.
            returned.address & 0xffff_ffff != 0
        } else {
            returned.address > LAST_ADDRESS
        };
        if failed {
            self.counts.failed += 1;
            self.insert_all(taken);
            self.doubt(&event, kind == Some(CallKind::Remap), returned.time);
            return;
        }
        let keeps_old = event.flags & MREMAP_DONTUNMAP != 0 || event.length == 0;
        if kind != Some(CallKind::Map) && taken.is_empty() && !(kind == Some(CallKind::Remap) && keeps_old) {
            self.counts.unmatched += 1;
        }
        self.gone(&taken);
        match kind {
            Some(CallKind::Map) => {
                self.counts.maps += 1;
                let page = page_of(event.flags);
                self.map(returned, event.length, page, event.flags & MAP_FIXED != 0);
            }
            Some(CallKind::Unmap) => self.counts.unmaps += 1,
            Some(CallKind::Remap) => {
                self.counts.remaps += 1;
                // Where the caller names the new place (MREMAP_FIXED), what is there gives way.
                self.map(returned, event.new_length, PAGE, true);
            }
            _ => self.counts.unpaired += 1,
        }
    }

    /// Enters what a call has mapped, in place of what was there.
    fn map(&mut self, returned: &MappingEvent, length: u64, page: u64, replaces: bool) {
        let Some((start, end)) = range(returned.address, length, page) else {
            self.counts.declined += 1;
            return;
        };
        self.give_away(start, end);
        let replaced = self.take(start, end);
        if !replaces {
            let unseen = replaced.iter().map(|(start, piece)| piece.end - start).sum();
            self.counts.unseen_unmaps = self.counts.unseen_unmaps.saturating_add(unseen);
        }
        self.gone(&replaced);
        let site = self.sites.entry(returned.site).or_default();
        site.alloc_calls += 1;
        site.alloc_space = site.alloc_space.saturating_add(end - start);
        self.space = self.space.saturating_add(end - start);
        self.insert(start, Piece { end, site: returned.site, born: returned.time });
        self.counts.peak_space = self.counts.peak_space.max(self.space);
    }

    /// Takes out what is known between two addresses; pieces that reach beyond are split.
    fn take(&mut self, start: u64, end: u64) -> Vec<(u64, Piece)> {
        let first = self.pieces.range(..start).next_back().map(|(&first, piece)| (first, *piece));
        if let Some((first, piece)) = first
            && piece.end > start
        {
            self.pieces.insert(first, Piece { end: start, ..piece });
            self.insert(start, piece);
        }
        let last = self.pieces.range(start..end).next_back().map(|(&last, piece)| (last, *piece));
        if let Some((last, piece)) = last
            && piece.end > end
        {
            self.pieces.insert(last, Piece { end, ..piece });
            self.insert(end, piece);
        }
        let taken: Vec<_> = self.pieces.range(start..end).map(|(&start, piece)| (start, *piece)).collect();
        for (start, _) in &taken {
            self.pieces.remove(start);
        }
        taken
    }

    /// Enters a piece where there is none, if there is room for one more.
    fn insert(&mut self, start: u64, piece: Piece) {
        if self.pieces.len() + self.taken >= MOST_PIECES {
            self.counts.declined += 1;
            self.gone(&[(start, piece)]);
            return;
        }
        self.pieces.insert(start, piece);
    }

    /// What a call was handed is as it was; what has come to its place since was cut out of it.
    fn put_back(&mut self, taken: Vec<(u64, Piece)>) {
        self.taken -= taken.len();
        self.insert_all(taken);
    }

    fn insert_all(&mut self, pieces: Vec<(u64, Piece)>) {
        for (start, piece) in pieces {
            self.insert(start, piece);
        }
    }

    /// What calls under way have given up between two addresses is gone, whatever comes of the calls: something else has
    /// been mapped there.
    fn give_away(&mut self, start: u64, end: u64) {
        if self.taken == 0 {
            return;
        }
        for call in self.calls.values_mut() {
            let overlaps = |(first, piece): &(u64, Piece)| *first < end && piece.end > start;
            let outside: Vec<_> = call.taken.extract_if(.., |taken| overlaps(taken)).collect();
            self.taken -= outside.len();
            for (first, piece) in outside {
                self.space = self.space.saturating_sub(piece.end - first);
                let parts = [(first, piece.end.min(start)), (first.max(end), piece.end)];
                for (first, end) in parts.into_iter().filter(|(first, end)| first < end) {
                    if self.pieces.len() + self.taken >= MOST_PIECES {
                        self.counts.declined += 1;
                        continue;
                    }
                    self.taken += 1;
                    self.space += end - first;
                    call.taken.push((first, Piece { end, ..piece }));
                }
            }
        }
    }

    /// These pieces are unmapped.
    fn gone(&mut self, pieces: &[(u64, Piece)]) {
        let bytes: u64 = pieces.iter().map(|(start, piece)| piece.end - start).sum();
        self.space = self.space.saturating_sub(bytes);
    }
}

fn kind_of(call: u32) -> Option<CallKind> {
    [CallKind::Map, CallKind::Unmap, CallKind::Remap].into_iter().find(|kind| *kind as u32 == call)
}

/// The whole pages from an address on that a length covers; `None` where there are none.
fn range(address: u64, length: u64, page: u64) -> Option<(u64, u64)> {
    let length = length.checked_next_multiple_of(page).filter(|length| *length > 0)?;
    Some((address, address.checked_add(length)?))
}

/// The size of the pages that these flags of mmap ask for, in bytes.
fn page_of(flags: u32) -> u64 {
    match (flags & MAP_HUGETLB, flags >> MAP_HUGE_SHIFT) {
        (0, _) => PAGE,
        (_, 0) => HUGE_PAGE,
        (_, shift) => 1_u64.checked_shl(shift).unwrap_or(HUGE_PAGE).max(PAGE),
    }
}

mod doubt;
#[cfg(test)]
mod tests;
