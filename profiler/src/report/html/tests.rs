//! What lies in the page is the profile, whatever its names; what the page does with it is tested in a browser.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Read;

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use profiler_common::records::Held;
use serde_json::Value;

use super::{columns::joined, *};

/// The profile inside a page.
pub(in crate::report) fn unpacked(page: &str) -> Value {
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
fn spans_that_are_joined_keep_their_blocks() {
    let held = |objects| Held { objects, space: 10 * objects };
    let parts = [(0, held(1)), (3, held(2)), (4, held(3)), (5, held(4))];
    assert_eq!(joined(&parts, 1), parts);
    assert_eq!(joined(&parts, 2), [(0, held(1)), (1, held(2)), (2, held(7))]);
    assert_eq!(joined(&parts, 8), [(0, held(10))]);
}
