//! What a reader does with the page.

use super::{browser::Browser, page, profiles::service};
use crate::support::case::{Case, case};

pub(crate) const CASES: &[Case] = &[case("reading::look", look)];

fn look() {
    let file = page("service", &service(400));
    let mut browser = Browser::open(&file, [1400, 1500], "light");
    browser.settle();
    browser.picture("light.png");
    browser.prefer("dark");
    browser.settle();
    browser.picture("dark.png");
    browser.click("document.querySelector('.rows .row')");
    browser.picture("details.png");
    browser.assert_content();
    let mut browser = Browser::open(&file, [390, 1400], "light");
    browser.picture("narrow.png");
}
