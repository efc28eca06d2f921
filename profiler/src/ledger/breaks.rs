//! The account of brk: by which site the heap grew, in whole pages, as the kernel maps them.

use std::collections::HashMap;

use profiler_common::{
    mappings::{MappingEvent, RETURNS},
    records::CallKind,
};

/// Bytes of a page: x86-64 has no other base size.
const PAGE: u64 = 4096;
/// Calls under way at a time that are kept at most.
const MOST_CALLS: usize = 1 << 12;
/// Sites that are kept at most.
const MOST_SITES: usize = 1 << 16;

/// What one site has done to the heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BreakSite {
    /// Bytes by which it grew.
    pub grown: u64,
    /// Bytes by which it shrank.
    pub shrunk: u64,
    /// Calls that moved the end of the heap to another page.
    pub calls: u64,
}

/// The account.
#[derive(Clone, Debug, Default)]
pub struct Breaks {
    /// The end of the heap, at the end of a page; `None` while it is not known.
    end: Option<u64>,
    /// The ends that calls under way ask for, by thread and stack pointer.
    calls: HashMap<(u64, u64), u64>,
    sites: HashMap<u64, BreakSite>,
    /// Calls that failed.
    pub failed: u64,
    /// Returns without their entries, and calls that there was no room for.
    pub lost: u64,
}

impl Breaks {
    /// An account of a heap that ends here.
    #[must_use]
    pub fn new(end: Option<u64>) -> Self {
        Self { end: end.map(page_end), ..Self::default() }
    }

    /// Whether an event is one of ours.
    #[must_use]
    pub fn is_of(event: &MappingEvent) -> bool {
        event.call & !RETURNS == CallKind::Break as u32
    }

    /// Takes in one end of a call.
    pub fn hear(&mut self, event: &MappingEvent) {
        let key = (event.thread, event.sp);
        if event.call & RETURNS == 0 {
            if self.calls.len() < MOST_CALLS {
                self.calls.insert(key, event.address);
            }
            return;
        }
        let Some(asked) = self.calls.remove(&key) else {
            self.lost += 1;
            return;
        };
        // `int brk(void *)`: the upper half of the register says nothing. The C library asks for 0 to learn where the heap ends.
        if event.address & 0xffff_ffff != 0 {
            self.failed += 1;
            return;
        }
        if asked == 0 {
            return;
        }
        let asked = page_end(asked);
        let Some(before) = self.end.replace(asked).filter(|before| *before != asked) else { return };
        if self.sites.len() >= MOST_SITES && !self.sites.contains_key(&event.site) {
            self.lost += 1;
            return;
        }
        let site = self.sites.entry(event.site).or_default();
        site.calls += 1;
        site.grown = site.grown.saturating_add(asked.saturating_sub(before));
        site.shrunk = site.shrunk.saturating_add(before.saturating_sub(asked));
    }

    /// The sites, those by which it grew most first.
    #[must_use]
    pub fn sites(&self) -> Vec<(u64, BreakSite)> {
        let mut sites: Vec<_> = self.sites.iter().map(|(key, site)| (*key, *site)).collect();
        sites.sort_by_key(|(key, site)| (std::cmp::Reverse((site.grown, site.shrunk)), *key));
        sites
    }
}

fn page_end(address: u64) -> u64 {
    address.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX - (PAGE - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(breaks: &mut Breaks, address: u64, answer: u64, site: u64) {
        let entry = MappingEvent { call: CallKind::Break as u32, sp: 8, address, ..MappingEvent::default() };
        breaks.hear(&entry);
        breaks.hear(&MappingEvent { call: entry.call | RETURNS, address: answer, site, ..entry });
    }

    #[test]
    fn the_heap_grows_by_pages_and_shrinks_again() {
        let mut breaks = Breaks::new(Some(0x1000_0800));
        call(&mut breaks, 0x1000_0900, 0, 1);
        assert!(breaks.sites().is_empty(), "within the page that is mapped");
        call(&mut breaks, 0x1000_1001, 0, 1);
        call(&mut breaks, 0x1000_5000, 0, 2);
        call(&mut breaks, 0x1000_9000, 0xffff_ffff, 2);
        call(&mut breaks, 0x1000_3000, 0, 1);
        call(&mut breaks, 0, 0, 3);
        breaks.hear(&MappingEvent { call: CallKind::Break as u32 | RETURNS, ..MappingEvent::default() });
        let one = BreakSite { grown: 0x1000, shrunk: 0x2000, calls: 2 };
        let two = BreakSite { grown: 0x3000, shrunk: 0, calls: 1 };
        assert_eq!(breaks.sites(), [(2, two), (1, one)]);
        assert_eq!((breaks.failed, breaks.lost), (1, 1));
    }

    #[test]
    fn the_first_call_says_where_the_heap_ends_where_nobody_knows() {
        let mut breaks = Breaks::new(None);
        call(&mut breaks, 0x5000, 0, 1);
        call(&mut breaks, 0x7000, 0, 1);
        call(&mut breaks, u64::MAX, 0, 1);
        assert_eq!(breaks.sites()[0].1.calls, 2);
    }
}
