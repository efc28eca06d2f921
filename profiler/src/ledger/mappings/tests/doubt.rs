//! Failed calls that have unmapped something, against lists of what is mapped.

use super::*;

/// What is mapped, in pages.
fn mapped(pages: &[(u64, u64)]) -> Vec<(u64, u64)> {
    pages.iter().map(|(start, end)| (at(*start), at(*end))).collect()
}

/// A call of mremap to a place of its choice that fails, with places in pages.
fn fail_to_move(fed: &mut Fed, from: u64, pages: u64, to: u64, new_pages: u64) {
    fed.time += 1;
    fed.mappings.hear(&MappingEvent {
        call: CallKind::Remap as u32,
        flags: 3,
        thread: 1,
        sp: 0x1000,
        time: fed.time,
        address: at(from),
        length: pages * PAGE,
        new_length: new_pages * PAGE,
        site: at(to),
    });
    fed.leave(1, CallKind::Remap, FAILED, 0);
}

fn assert_settled(fed: &Fed, corrected_pages: u64) {
    assert_eq!((fed.mappings.is_in_doubt(), fed.mappings.bytes_in_doubt()), (false, 0));
    assert_eq!(fed.mappings.counts().corrected, corrected_pages * PAGE);
    let (_, total) = fed.mappings.sites();
    assert_eq!(total.inuse_space, fed.mappings.space);
}

#[test]
fn what_a_failed_call_has_cleared_is_gone_once_one_has_looked() {
    let mut fed = Fed::default();
    fed.map(7, 0, 4);
    fed.map(8, 10, 4);
    fail_to_move(&mut fed, 0, 4, 12, 4);
    // Until then it is in the account, and said to be in doubt.
    assert_eq!((fed.ranges(7), fed.ranges(8)), (vec![(0, 4)], vec![(10, 14)]));
    assert_eq!((fed.mappings.is_in_doubt(), fed.mappings.bytes_in_doubt()), (true, 6 * PAGE));
    // A list that is older than the failure says nothing.
    let time = fed.time;
    fed.mappings.reconcile(&mapped(&[(0, 4), (10, 12)]), time);
    assert!(fed.mappings.is_in_doubt());
    fed.mappings.reconcile(&mapped(&[(0, 4), (10, 12)]), time + 1);
    assert_eq!((fed.ranges(7), fed.ranges(8)), (vec![(0, 4)], vec![(10, 12)]));
    assert_settled(&fed, 2);
}

#[test]
fn what_a_failed_call_has_left_stays() {
    let mut fed = Fed::default();
    fed.map(7, 0, 4);
    fed.map(8, 10, 4);
    fail_to_move(&mut fed, 0, 4, 12, 4);
    let time = fed.time;
    // Neighbours are one line of the list; what the call did not name is nobody's business.
    fed.mappings.reconcile(&mapped(&[(0, 4), (12, 20)]), time + 1);
    assert_eq!((fed.ranges(7), fed.ranges(8)), (vec![(0, 4)], vec![(10, 14)]));
    assert_settled(&fed, 0);
}

#[test]
fn what_a_failed_call_has_shrunk_or_moved_before_it_failed() {
    let mut fed = Fed::default();
    fed.map(7, 0, 6);
    // It has cut the end off.
    fail_to_move(&mut fed, 0, 6, 20, 4);
    let time = fed.time;
    fed.mappings.reconcile(&mapped(&[(0, 4)]), time + 1);
    assert_eq!(fed.ranges(7), [(0, 4)]);
    assert_settled(&fed, 2);
    // Of two neighbours and a place that others had, it has moved the first alone.
    fed.map(8, 4, 2);
    fed.map(9, 30, 10);
    fail_to_move(&mut fed, 0, 6, 31, 6);
    let time = fed.time;
    fed.mappings.reconcile(&mapped(&[(4, 6), (30, 35), (37, 40)]), time + 1);
    assert_eq!((fed.ranges(7), fed.ranges(8)), (vec![(31, 35)], vec![(4, 6)]));
    assert_eq!(fed.ranges(9), [(30, 31), (37, 40)]);
    assert_settled(&fed, 2 + 4 + 4 + 2);
    let (sites, _) = fed.mappings.sites();
    let alloc =
        sites.iter().find(|(site, _)| *site == 7).map(|(_, site)| (site.alloc_calls, site.alloc_space));
    assert_eq!(alloc, Some((1, 6 * PAGE)));
}

#[test]
fn what_others_have_mapped_since_a_call_failed_is_theirs() {
    let mut fed = Fed::default();
    fed.map(7, 0, 4);
    fed.map(8, 10, 4);
    fail_to_move(&mut fed, 0, 4, 10, 4);
    fed.enter(2, CallKind::Map, (at(11), 2 * PAGE, 3), MAP_FIXED);
    fed.leave(2, CallKind::Map, at(11), 9);
    let time = fed.time;
    // It has been unmapped again before the list was read, which is told later.
    fed.mappings.reconcile(&mapped(&[(0, 4), (10, 11)]), time + 1);
    assert_eq!((fed.ranges(8), fed.ranges(9)), (vec![(10, 11)], vec![(11, 13)]));
    // Nor is it taken for what was moved.
    fail_to_move(&mut fed, 0, 4, 20, 4);
    fed.map(9, 20, 4);
    let time = fed.time;
    fed.mappings.reconcile(&mapped(&[(10, 13), (20, 24)]), time + 1);
    assert_eq!((fed.ranges(7), fed.ranges(9)), (vec![], vec![(11, 13), (20, 24)]));
    assert_settled(&fed, 1 + 4);
}

#[test]
fn only_calls_that_name_their_place_are_in_doubt_and_so_many_at_a_time() {
    let mut fed = Fed::default();
    fed.map(7, 0, 4);
    fed.enter(1, CallKind::Remap, (at(0), 4 * PAGE, 8 * PAGE), 1);
    fed.leave(1, CallKind::Remap, FAILED, 0);
    fed.enter(1, CallKind::Map, (at(0), 4 * PAGE, 3), 0);
    fed.leave(1, CallKind::Map, FAILED, 0);
    fed.enter(1, CallKind::Map, (at(0) + 1, 4 * PAGE, 3), MAP_FIXED);
    fed.leave(1, CallKind::Map, FAILED, 0);
    assert!(!fed.mappings.is_in_doubt());
    fed.enter(1, CallKind::Map, (at(1), PAGE, 3), MAP_FIXED);
    fed.leave(1, CallKind::Map, FAILED, 0);
    assert_eq!(fed.mappings.bytes_in_doubt(), PAGE);
    for page in (0..4).chain([0; 20]) {
        fed.enter(1, CallKind::Map, (at(page), PAGE, 3), MAP_FIXED);
        fed.leave(1, CallKind::Map, FAILED, 0);
    }
    assert_eq!(fed.mappings.bytes_in_doubt(), 4 * PAGE);
    let time = fed.time;
    fed.mappings.reconcile(&mapped(&[(2, 3)]), time + 1);
    assert_eq!(fed.ranges(7), [(2, 3)]);
    assert_settled(&fed, 3);
}
