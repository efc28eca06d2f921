//! Large profiles: small files, and a page that still answers.

use super::{browser::Browser, page, profiles::service};
use crate::support::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("size::ten_thousand_sites_are_three_megabytes", ten_thousand_sites_are_three_megabytes),
    case("size::a_hundred_thousand_sites_answer", a_hundred_thousand_sites_answer),
];

fn ten_thousand_sites_are_three_megabytes() {
    let file = page("ten-thousand", &service(10_000));
    let size = std::fs::metadata(&file).unwrap().len();
    assert!(size < 3_000_000, "{size} bytes");
    let mut browser = Browser::open(&file, [1400, 1000], "light");
    assert!(browser.text(".controls .quiet").starts_with("10,000 of 10,000 sites"));
    browser.assert_content();
}

fn a_hundred_thousand_sites_answer() {
    let file = page("hundred-thousand", &service(100_000));
    let mut browser = Browser::open(&file, [1400, 1000], "light");
    assert!(browser.count(".rows .row") < 60, "only rows that can be seen are there");
    assert!(browser.count("g.frame") < 5000, "only frames that can be seen are drawn");
    browser.press("/");
    browser.type_text("session_open");
    assert!(browser.text(".matched").contains("matched"));
    browser.press("Escape");
    browser.click("document.querySelector('.head .growth button')");
    assert!(browser.text(".rows .row").starts_with("session_open"));
    browser.press("r");
    browser.press("]");
    let range = browser.text(".range");
    assert!(range.starts_with("Born ") && range.contains("still live at the end"), "{range}");
    browser.assert_content();
}
