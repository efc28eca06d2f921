//! What lies in the page is the profile, whatever its names; what the page does with it is tested in a browser.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{io::Read, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use profiler_common::records::Held;
use serde_json::Value;

use super::{columns::joined, *};
use crate::{
    report::{budget::Recorded, quality::remarks, tests::shop},
    symbolize::label,
};

/// The profile inside a page.
fn unpacked(page: &str) -> Value {
    let (head, tail) = PAGE.split_once(PLACE).unwrap();
    let packed = page.strip_prefix(head).unwrap().strip_suffix(tail).unwrap();
    let mut text = String::new();
    GzDecoder::new(&*STANDARD.decode(packed).unwrap()).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_page_has_one_place_for_the_profile_and_no_way_out() {
    assert_eq!(PAGE.matches(PLACE).count(), 1);
    let policy = PAGE.split_once("Content-Security-Policy").unwrap().1.split_once('>').unwrap().0;
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for reference in ["src=\"http", "href=\"http", "@import", "url(http"] {
        assert!(!PAGE.contains(reference), "{reference}");
    }
}

#[test]
fn what_lies_in_it_is_the_profile() {
    let mut profile = shop();
    profile.sites[0].allocator = "</script>\u{2028}<b>".into();
    let mut page = Vec::new();
    write(&profile, &ReportOptions::default(), &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(!page.contains("<b>"), "no name stands in it as it is");
    let inside = unpacked(&page);
    let text = |number: &Value| &inside["names"]["texts"][usize::try_from(number.as_u64().unwrap()).unwrap()];
    assert_eq!(text(&inside["sites"]["allocator"][0]), "</script>?<b>");
    let sum = |what: &str| {
        inside["sites"]["totals"][what].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(sum("inuse_space"), profile.totals.inuse_space);
    assert_eq!(sum("alloc_objects"), profile.totals.alloc_objects);
    assert_eq!(inside["totals"][0], profile.totals.inuse_space);
    assert_eq!(inside["remarks"].as_array().unwrap().len(), remarks(&profile).len());
    // The stacks of all sites, out of the tree, are those of the profile.
    let tree = &inside["names"]["tree"];
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    for (index, site) in profile.sites.iter().enumerate().filter(|(_, site)| !site.stack.is_empty()) {
        let mut node = number(&inside["sites"]["node"][index]);
        for (depth, frame) in site.stack.iter().enumerate() {
            let name = &inside["names"]["frames"]["name"][number(&tree["frame"][node])];
            assert_eq!(text(name), &label::name(frame));
            let up = number(&tree["up"][node]);
            assert_eq!(up == 0, depth + 1 == site.stack.len());
            node -= up;
        }
    }
}

/// What a program tells of itself are estimates, and not heapscope's samples.
#[test]
fn it_says_how_allocations_were_counted() {
    let sampling = |profile: &Profile| {
        let mut page = Vec::new();
        write(profile, &ReportOptions::default(), &mut page).unwrap();
        unpacked(&String::from_utf8(page).unwrap())["sampling"].as_str().unwrap().to_owned()
    };
    let mut profile = shop();
    assert_eq!(sampling(&profile), "exact");
    profile.mode.sample_interval = Some(4096);
    assert_eq!(sampling(&profile), "sampled");
    profile.mode.sample_interval = None;
    profile.mode.budget.steps = vec![(Duration::ZERO, Recorded::Told)];
    assert_eq!(sampling(&profile), "usdt");
}

#[test]
fn no_file_makes_the_page_draw_more_columns_than_fit() {
    let mut profile = shop();
    profile.history.birth_span = Duration::from_nanos(1);
    profile.history.births =
        vec![(0, Held { objects: 1, space: 1 }), (usize::MAX, Held { objects: 2, space: 2 })];
    profile.sites[0].history.births = profile.history.births.clone();
    profile.sites[0].history.over_time = vec![(usize::MAX, 3)];
    let mut page = Vec::new();
    write(&profile, &ReportOptions::default(), &mut page).unwrap();
    let births = &unpacked(&String::from_utf8(page).unwrap())["births"];
    assert!(births["key"][1].as_u64().unwrap() <= 1000, "{births}");
    assert_eq!(births["space"], serde_json::json!([1, 2]));
}

#[test]
fn spans_that_are_joined_keep_their_blocks() {
    let held = |objects| Held { objects, space: 10 * objects };
    let parts = [(0, held(1)), (3, held(2)), (4, held(3)), (5, held(4))];
    assert_eq!(joined(&parts, 1), parts);
    assert_eq!(joined(&parts, 2), [(0, held(1)), (1, held(2)), (2, held(7))]);
    assert_eq!(joined(&parts, 8), [(0, held(10))]);
}
