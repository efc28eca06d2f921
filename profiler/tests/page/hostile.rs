//! Names that a target chose to be taken for something else.

use heapscope::symbolize::frame::FrameRole;

use super::{
    browser::Browser,
    page,
    profiles::{profile, site, stack},
};
use crate::support::case::{Case, case};

pub(crate) const CASES: &[Case] = &[case("hostile::names_are_text", names_are_text)];

/// Ends of scripts, tags, Unicode's ends of lines, text that runs backwards, the names of what every object has.
const NAMES: &[&str] = &[
    "</script><script>window.broken = 1</script>",
    "<img src=x onerror='window.broken = 2'>",
    "--></pre></template><h1>broken</h1>",
    "a\u{2028}b\u{2029}c\u{0}d\u{202e}e",
    "__proto__",
    "constructor",
    "javascript:alert(1)//\"'`${window.broken = 3}",
    "{{script}}<!--profile-->",
];

fn names_are_text() {
    let mut sites = Vec::new();
    for (index, name) in NAMES.iter().enumerate() {
        let mut hostile = site(
            stack(&[(name, name, FrameRole::Program), ("main", name, FrameRole::Program)]),
            100 * (1 + index as u64),
            &[(index, 9)],
            3,
        );
        hostile.allocator = (*name).to_owned();
        hostile.history.threads[0].0 = (*name).to_owned();
        sites.push(hostile);
    }
    let mut profile = profile(sites);
    profile.target.command = NAMES.concat();
    profile.target.exe = NAMES.concat();
    profile.history.generations[1].mark = Some(NAMES.concat());
    profile.quality.warnings = NAMES.iter().map(|name| (*name).to_owned()).collect();
    let mut browser = Browser::open(&page("hostile", &profile), [1200, 1200], "light");
    for _ in 0..NAMES.len() {
        browser.press("j");
        if browser.value("document.querySelector('.details').hidden") == true {
            browser.click("document.querySelector('.rows .row')");
        }
        browser.press("r");
    }
    browser.press("/");
    browser.type_text("<img src=x");
    assert!(browser.text(".matched").contains("matched"));
    assert_eq!(browser.value("window.broken === undefined"), true);
    assert_eq!(browser.count("img, iframe, object, link, h1 *"), 0);
    assert_eq!(browser.count("h1"), 1);
    let shown = browser.text(".table");
    assert!(shown.contains("<img src=x onerror="), "{shown}");
    assert!(!shown.contains('\u{202e}'), "{shown}");
    browser.assert_content();
}
