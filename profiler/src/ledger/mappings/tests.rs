//! The account of mapped memory against a model that knows every page by itself.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// Pages of the model's address space, and where it lies.
const PAGES: u64 = 48;
const BASE: u64 = 0x7000_0000_0000;
const FAILED: u64 = u64::MAX;

/// One whole call, as a program makes it.
#[derive(Clone, Debug)]
enum Step {
    Map { page: u64, pages: u64, odd: u64, fixed: bool },
    Unmap { page: u64, pages: u64, odd: u64 },
    Remap { page: u64, pages: u64, to: u64, new_pages: u64, keep: bool },
    Fail { kind: CallKind, page: u64, pages: u64 },
}

/// What the kernel would do: the site of each page, and when it came.
#[derive(Default)]
struct Model {
    pages: HashMap<u64, (u64, u64)>,
    alloc: HashMap<u64, (u64, u64)>,
    most: u64,
}

impl Model {
    fn map(&mut self, first: u64, pages: u64, site: u64, time: u64) {
        for page in first..first + pages {
            self.pages.insert(page, (site, time));
        }
        let (calls, space) = self.alloc.entry(site).or_default();
        *calls += 1;
        *space += pages * PAGE;
        self.most = self.most.max(self.pages.len() as u64 * PAGE);
    }

    fn unmap(&mut self, first: u64, pages: u64) {
        for page in first..first + pages {
            self.pages.remove(&page);
        }
    }
}

/// The account, fed with both ends of calls.
#[derive(Default)]
struct Fed {
    mappings: Mappings,
    time: u64,
}

impl Fed {
    fn enter(
        &mut self,
        thread: u64,
        kind: CallKind,
        (address, length, new_length): (u64, u64, u64),
        flags: u32,
    ) {
        self.time += 1;
        let (call, time, sp) = (kind as u32, self.time, 0x1000);
        let event = MappingEvent { call, flags, thread, sp, time, address, length, new_length, site: 0 };
        self.mappings.hear(&event);
    }

    fn leave(&mut self, thread: u64, kind: CallKind, address: u64, site: u64) {
        self.time += 1;
        let (call, time) = (kind as u32 | RETURNS, self.time);
        self.mappings.hear(&MappingEvent {
            call,
            thread,
            sp: 0x1000,
            time,
            address,
            site,
            ..MappingEvent::default()
        });
    }

    fn map(&mut self, site: u64, page: u64, pages: u64) {
        self.enter(1, CallKind::Map, (0, pages * PAGE, 3), 0);
        self.leave(1, CallKind::Map, at(page), site);
    }

    fn ranges(&self, site: u64) -> Vec<(u64, u64)> {
        let (sites, _) = self.mappings.sites();
        let found = sites.into_iter().find(|(key, _)| *key == site);
        let ranges = found.map(|(_, site)| site.ranges).unwrap_or_default();
        ranges.into_iter().map(|(start, end)| ((start - BASE) / PAGE, (end - BASE) / PAGE)).collect()
    }
}

fn at(page: u64) -> u64 {
    BASE + page * PAGE
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let span = || (0..PAGES, 1..PAGES).prop_map(|(page, pages)| (page, pages.min(PAGES - page)));
    let step = prop_oneof![
        4 => (span(), 0..PAGE, any::<bool>())
            .prop_map(|((page, pages), odd, fixed)| Step::Map { page, pages, odd, fixed }),
        4 => (span(), 0..PAGE).prop_map(|((page, pages), odd)| Step::Unmap { page, pages, odd }),
        3 => (span(), span(), any::<bool>()).prop_map(|((page, pages), (to, new_pages), keep)| Step::Remap {
            page, pages, to, new_pages, keep
        }),
        1 => (span(), 0..3_usize).prop_map(|((page, pages), kind)| {
            let kinds = [CallKind::Map, CallKind::Unmap, CallKind::Remap];
            Step::Fail { kind: kinds[kind], page, pages }
        }),
    ];
    prop::collection::vec((step, 1..6_u64), 0..60)
}

proptest! {
    #[test]
    fn equals_a_model_page_by_page(steps in steps()) {
        let (mut model, mut fed) = (Model::default(), Fed::default());
        for (step, site) in steps {
            match step {
                Step::Map { page, pages, odd, fixed } => {
                    let flags = if fixed { MAP_FIXED } else { 0 };
                    fed.enter(1, CallKind::Map, (at(page), pages * PAGE - odd, 3), flags);
                    fed.leave(1, CallKind::Map, at(page), site);
                    model.unmap(page, pages);
                    model.map(page, pages, site, fed.time);
                }
                Step::Unmap { page, pages, odd } => {
                    fed.enter(1, CallKind::Unmap, (at(page), pages * PAGE - odd, 0), 0);
                    fed.leave(1, CallKind::Unmap, 0, 0);
                    model.unmap(page, pages);
                }
                Step::Remap { page, pages, to, new_pages, keep } => {
                    let flags = if keep { MREMAP_DONTUNMAP } else { 0 };
                    fed.enter(1, CallKind::Remap, (at(page), pages * PAGE, new_pages * PAGE), flags);
                    fed.leave(1, CallKind::Remap, at(to), site);
                    if !keep {
                        model.unmap(page, pages);
                    }
                    model.unmap(to, new_pages);
                    model.map(to, new_pages, site, fed.time);
                }
                Step::Fail { kind, page, pages } => {
                    fed.enter(1, kind, (at(page), pages * PAGE, 2 * PAGE), MAP_FIXED);
                    fed.leave(1, kind, FAILED, 0);
                }
            }
            let (sites, total) = fed.mappings.sites();
            let mut pages = HashMap::new();
            for (key, site) in &sites {
                for page in site.ranges.iter().flat_map(|(start, end)| (*start..*end).step_by(4096)) {
                    let earlier = pages.insert((page - BASE) / PAGE, *key);
                    prop_assert!(earlier.is_none(), "a page of two sites");
                }
                let (calls, space) = model.alloc.get(key).copied().unwrap_or_default();
                prop_assert_eq!((site.alloc_calls, site.alloc_space), (calls, space));
                let born = model.pages.values().filter(|(site, _)| site == key).map(|(_, time)| *time).min();
                prop_assert_eq!(site.oldest_born, born);
            }
            let expected: HashMap<u64, u64> = model.pages.iter().map(|(page, (site, _))| (*page, *site)).collect();
            prop_assert_eq!(&pages, &expected);
            prop_assert_eq!(total.inuse_space, pages.len() as u64 * PAGE);
            prop_assert_eq!(fed.mappings.space, total.inuse_space);
        }
        prop_assert_eq!(fed.mappings.counts().peak_space, model.most);
        prop_assert_eq!((fed.mappings.counts().unpaired, fed.mappings.counts().declined), (0, 0));
    }

    #[test]
    fn whatever_comes_is_borne(events in prop::collection::vec(
        (0..12_u32, any::<bool>(), 0..3_u64, any::<[u64; 3]>(), any::<[bool; 3]>(), any::<u32>()), 0..200
    )) {
        let mut mappings = Mappings::default();
        for (call, returns, thread, numbers, aligned, flags) in events {
            let [address, length, new_length] =
                std::array::from_fn(|i| if aligned[i] { numbers[i] & !0xfff & u64::MAX >> (numbers[i] & 31) } else { numbers[i] });
            let call = call | if returns { RETURNS } else { 0 };
            mappings.hear(&MappingEvent { call, flags, thread, sp: 0, time: 0, address, length, new_length, site: 1 });
            if aligned[0] && aligned[1] {
                mappings.reconcile(&[(0, address), (length.max(address), u64::MAX)], u64::from(flags & 1));
            }
            let (_, total) = mappings.sites();
            let mut end = 0;
            for (start, next) in total.ranges {
                prop_assert!(end <= start && start < next);
                end = next;
            }
            prop_assert_eq!(mappings.space, total.inuse_space);
        }
    }
}

#[test]
fn a_place_that_is_given_away_before_the_call_returns() {
    for (kind, result) in [(CallKind::Unmap, 0), (CallKind::Remap, at(40))] {
        let mut fed = Fed::default();
        fed.map(7, 0, 4);
        // The kernel has done its work, and gives the place to another thread before the call returns.
        fed.enter(1, kind, (at(0), 4 * PAGE, 2 * PAGE), 0);
        fed.enter(2, CallKind::Map, (0, 3 * PAGE, 3), 0);
        fed.leave(2, CallKind::Map, at(0), 8);
        fed.leave(1, kind, result, 9);
        assert_eq!((fed.ranges(7), fed.ranges(8)), (vec![], vec![(0, 3)]), "{kind:?}");
        assert_eq!(fed.ranges(9), if kind == CallKind::Remap { vec![(40, 42)] } else { vec![] });
        assert_eq!(fed.mappings.counts().unseen_unmaps, 0);
    }
}

#[test]
fn a_call_under_way_still_has_its_memory() {
    let mut fed = Fed::default();
    fed.map(7, 0, 4);
    fed.enter(1, CallKind::Unmap, (at(1), 2 * PAGE, 0), 0);
    assert_eq!(fed.ranges(7), [(0, 1), (1, 3), (3, 4)]);
    // The return was lost; the thread calls again.
    fed.enter(1, CallKind::Unmap, (at(0), PAGE, 0), 0);
    fed.leave(1, CallKind::Unmap, 0, 0);
    assert_eq!((fed.ranges(7), fed.mappings.counts().unpaired), (vec![(1, 3), (3, 4)], 1));
}

#[test]
fn a_mapping_made_a_second_time_by_mremap() {
    let mut fed = Fed::default();
    fed.map(7, 0, 2);
    fed.enter(1, CallKind::Remap, (at(0), 0, 2 * PAGE), 0);
    fed.leave(1, CallKind::Remap, at(10), 8);
    assert_eq!((fed.ranges(7), fed.ranges(8)), (vec![(0, 2)], vec![(10, 12)]));
    assert_eq!(fed.mappings.counts().unmatched, 0);
}

#[test]
fn what_was_not_seen_to_go_and_what_was_not_seen_to_come() {
    let mut fed = Fed::default();
    fed.map(7, 0, 4);
    fed.map(8, 3, 2);
    assert_eq!((fed.ranges(7), fed.ranges(8)), (vec![(0, 3)], vec![(3, 5)]));
    assert_eq!(fed.mappings.counts().unseen_unmaps, PAGE);
    fed.enter(1, CallKind::Unmap, (at(20), PAGE, 0), 0);
    fed.leave(1, CallKind::Unmap, 0, 0);
    assert_eq!(fed.mappings.counts().unmatched, 1);
}

#[test]
fn huge_pages_are_whole() {
    let mut fed = Fed::default();
    for (flags, pages) in [(0, 1), (MAP_HUGETLB, 512), (MAP_HUGETLB | 30 << MAP_HUGE_SHIFT, 1 << 18)] {
        fed.enter(1, CallKind::Map, (0, 100, 3), flags);
        fed.leave(1, CallKind::Map, BASE, u64::from(flags));
        assert_eq!(fed.ranges(u64::from(flags)), [(0, pages)]);
    }
}

#[test]
fn there_is_room_for_so_many_pieces_and_no_more() {
    let mut fed = Fed::default();
    fed.map(7, 0, 3 * MOST_PIECES as u64);
    for hole in 0..MOST_PIECES as u64 + 10 {
        fed.enter(1, CallKind::Unmap, (at(2 * hole + 1), PAGE, 0), 0);
        fed.leave(1, CallKind::Unmap, 0, 0);
    }
    let (sites, total) = fed.mappings.sites();
    let distinct: BTreeSet<_> = sites.iter().map(|(key, _)| *key).collect();
    assert_eq!(distinct.len(), 1);
    // A hole takes a place while it is being cut.
    assert!((MOST_PIECES - 1..=MOST_PIECES).contains(&total.ranges.len()));
    assert!(fed.mappings.counts().declined > 0);
    assert_eq!(fed.mappings.space, total.inuse_space);
}

#[test]
fn what_has_come_to_a_place_given_up_stays_when_the_call_fails() {
    let mut fed = Fed::default();
    fed.map(7, 0, 4);
    fed.enter(1, CallKind::Unmap, (at(0), 4 * PAGE, 0), 0);
    fed.enter(2, CallKind::Map, (at(1), 2 * PAGE, 3), MAP_FIXED);
    fed.leave(2, CallKind::Map, at(1), 8);
    // Also while the call is under way, no page is counted twice.
    assert_eq!((fed.ranges(7), fed.ranges(8)), (vec![(0, 1), (3, 4)], vec![(1, 3)]));
    assert_eq!(fed.mappings.space, 4 * PAGE);
    fed.leave(1, CallKind::Unmap, FAILED, 0);
    assert_eq!((fed.ranges(7), fed.ranges(8)), (vec![(0, 1), (3, 4)], vec![(1, 3)]));
    assert_eq!((fed.mappings.space, fed.mappings.taken), (4 * PAGE, 0));
}

mod doubt;
