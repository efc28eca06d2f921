//! Snapshots that cannot be read in full: what is shown is what was before, and nothing refers to what is not shown.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use super::*;

/// A recording of one site, which holds one block more at each of so many snapshots; the last one speaks of another site as
/// well, which is not defined.
fn damaged_at_last(snapshots: u64) -> Recording {
    let mut out = Vec::new();
    let mut add = |kind, message: Vec<u8>| {
        chunk::write(kind, &message, &mut out).unwrap();
    };
    let site = message::Site { number: 0, allocator: "glibc".into(), stack: Vec::new() };
    add(Kind::Head, message::Head::default().encode_to_vec());
    add(Kind::Definitions, message::Definitions { sites: vec![site], ..Default::default() }.encode_to_vec());
    for at in 1..=snapshots {
        let sites = if at == snapshots { vec![0, 1] } else { vec![0] };
        let more = vec![8; sites.len()];
        let changes = message::Changes {
            alloc_objects: vec![1; sites.len()],
            inuse_objects: vec![1; sites.len()],
            alloc_space: more.clone(),
            inuse_space: more,
            sites,
            ..Default::default()
        };
        // What is expected of a new block is the mean so far: after the first nothing more is to be said of bytes.
        let changes = if at > 1 && at < snapshots {
            message::Changes { alloc_space: Vec::new(), inuse_space: Vec::new(), ..changes }
        } else {
            changes
        };
        let snapshot =
            message::Snapshot { after_ns: at, changes: Some(changes.encode_to_vec()), ..Default::default() };
        add(Kind::Snapshot, snapshot.encode_to_vec());
    }
    let mut file = Vec::new();
    chunk::write_header(&mut file).unwrap();
    file.extend(out);
    Recording::read(file).unwrap()
}

fn check(snapshots: u64) {
    let profile = damaged_at_last(snapshots).profile();
    let [site] = &profile.sites[..] else { panic!("{:?}", profile.sites) };
    let before = snapshots - 1;
    assert_eq!((profile.totals.inuse_objects, profile.totals.inuse_space), (before, 8 * before));
    let (last, space) = *site.history.over_time.last().unwrap();
    assert_eq!((last + 1, space), (profile.history.snapshots.len(), 8 * before));
    assert_eq!(profile.history.snapshots[last].after, Duration::from_nanos(before));
    let said = |warning: &String| warning.contains("cannot be read (a snapshot speaks of a site");
    assert!(profile.quality.warnings.iter().any(said), "{:?}", profile.quality.warnings);
}

#[test]
fn nothing_is_taken_from_a_snapshot_of_which_a_part_makes_no_sense() {
    check(2);
    check(9);
}

/// Where not all snapshots are kept, the last one before the damage is.
#[test]
fn what_was_last_before_the_damage_is_kept() {
    let most = MOST_SNAPSHOTS as u64;
    for snapshots in [most, most + 1, most + 2, 3 * most + 2, 3 * most + 3, 3 * most + 4] {
        check(snapshots);
    }
}
