//! What a reader does with the page: finds the leak, searches, zooms, chooses a time, sorts, looks at a site.

use std::time::Duration;

use heapscope::report::{
    budget::Recorded,
    profile::{Profile, SiteReport},
};

use super::{
    browser::Browser,
    page,
    profiles::{SPANS, profile, service},
};
use crate::support::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("reading::the_first_screen_says_where_to_look", first_screen),
    case("reading::search_says_its_share", search),
    case("reading::zoom_and_direction", zoom),
    case("reading::a_range_of_births", range),
    case("reading::sorted_and_filtered", sorted),
    case("reading::a_site_in_full", details),
    case("reading::light_dark_and_narrow", looks),
    case("reading::nothing_allocated", nothing),
    case("reading::estimates_have_errors", estimates),
    case("reading::what_a_program_tells_is_not_called_sampled", told),
];

/// The first row of the table.
const ROW: &str = ".rows .row";
const FIRST_ROW: &str = "document.querySelector('.rows .row')";

fn open(name: &str, profile: &Profile) -> Browser {
    Browser::open(&page(name, profile), [1400, 1300], "light")
}

/// The frame of the graph with this name.
fn frame(name: &str) -> String {
    format!("document.querySelector('g.frame[name=\"{name}\"]')")
}

/// Its share of the graph's width.
fn width(browser: &mut Browser, name: &str) -> f64 {
    let of = |name: &str| format!("Number({}.querySelector('rect').getAttribute('width'))", frame(name));
    let share = browser.value(&format!("{} / {}", of(name), of("all")));
    share.as_f64().unwrap_or_else(|| panic!("no frame {name}"))
}

fn has(site: &SiteReport, function: &str) -> bool {
    site.stack.iter().any(|frame| frame.function.as_deref() == Some(function))
}

fn space(profile: &Profile, passes: impl Fn(&SiteReport) -> bool) -> u64 {
    profile.sites.iter().filter(|site| passes(site)).map(|site| site.totals.inuse_space).sum()
}

fn first_screen() {
    let profile = service(300);
    let mut browser = open("first", &profile);
    let advice = browser.text(".advice");
    assert!(advice.starts_with("session_open (session.c:"), "{advice}");
    assert!(
        advice.contains("grows steadily: 1019.2 KiB/min for 9 min 57 s, 17 blocks/s of 1,024 B, none freed"),
        "{advice}"
    );
    let quality = browser.text(".quality");
    for told in
        ["3 warnings", "libold.so.1 has no unwind", "2 stack records", "3 of 40,000 stacks", "about 0.8%"]
    {
        assert!(quality.contains(told), "{told}: {quality}");
    }
    assert!(browser.text("h1").contains("/srv/shop/shop --port 8080"));
    assert!(browser.text(".kinds").contains("Python"));
    let share = space(&profile, |site| has(site, "session_open")) as f64 / profile.totals.inuse_space as f64;
    assert!((width(&mut browser, "session_open") - share).abs() < 1e-3, "{share}");
    // One click, and the leaking line is there.
    browser.click("document.querySelector('.advice button')");
    assert!(browser.text(".details").contains("/build/shop/src/session.c:"));
    browser.assert_content();
}

fn search() {
    let profile = service(300);
    let mut browser = open("search", &profile);
    browser.press("/");
    browser.type_text("THUMBNAIL");
    let share =
        100.0 * space(&profile, |site| has(site, "thumbnail_put")) as f64 / profile.totals.inuse_space as f64;
    let matched = browser.text(".matched");
    assert!(matched.starts_with(&format!("{share:.1}% matched: 8.4 MiB")), "{share} {matched}");
    let fill = |name: &str| format!("{}.querySelector('rect').getAttribute('fill')", frame(name));
    assert_eq!(browser.value(&fill("thumbnail_put")), "var(--match)");
    assert_ne!(browser.value(&fill("session_open")), "var(--match)");
    browser.press("Escape");
    browser.press("Escape");
    assert_eq!(browser.text(".matched"), "");
    browser.assert_content();
}

fn zoom() {
    let profile = service(300);
    let mut browser = open("zoom", &profile);
    browser.click(&frame("session_open"));
    assert!(width(&mut browser, "session_open") > 0.999, "it fills the graph");
    assert_eq!(browser.text(".crumbs"), "all worker_loop handle_request session_open");
    assert!(browser.text(".controls .quiet").starts_with("1 of 300 sites"), "the table follows");
    browser.press("Escape");
    assert!(width(&mut browser, "session_open") < 0.9);
    // The allocator's and the interpreter's functions are there when they are asked for.
    assert_eq!(browser.count("g.frame[name=malloc]"), 0);
    browser.press("h");
    assert!(browser.count("g.frame[name=malloc]") > 0 && browser.count("g.frame[name=clone3]") > 0);
    browser.press("h");
    // From the allocation: below everything are those who asked for memory.
    browser.press("r");
    let top =
        |name: &str| format!("Number({}.getAttribute('transform').match(/, ?([\\d.]+)/)[1])", frame(name));
    assert_eq!(browser.value(&top("session_open")), 20);
    browser.press("r");
    // The keyboard alone: down three times, and in.
    browser.press("g");
    for _ in 0..3 {
        browser.press("ArrowDown");
    }
    browser.press("Enter");
    assert_eq!(browser.text(".crumbs"), "all worker_loop handle_request session_open");
    browser.press("Backspace");
    assert_eq!(browser.text(".crumbs"), "all worker_loop handle_request");
    browser.press("0");
    // Flames stand on their root.
    let before = browser.value(&top("worker_loop"));
    browser.press("v");
    assert!(browser.value(&top("worker_loop")).as_f64() > before.as_f64());
    browser.press("m");
    assert_eq!(browser.value("document.querySelector('.choice select').value"), "live_objects");
    browser.assert_content();
}

fn range() {
    let profile = service(300);
    let mut browser = open("range", &profile);
    let born = |first: usize, last: usize| {
        let parts = profile.sites.iter().flat_map(|site| &site.history.births);
        let inside = parts.filter(|(span, _)| (first..=last).contains(span));
        inside.fold((0, 0), |sum, (_, held)| (sum.0 + held.space, sum.1 + held.objects))
    };
    let told = |(space, objects): (u64, u64)| {
        format!(
            "still live at the end: {} in {}.",
            heapscope::report::units::bytes(space),
            heapscope::report::units::blocks(objects)
        )
    };
    browser.value("document.querySelector('.handle').focus()");
    for _ in 0..6 {
        browser.press("PageUp");
    }
    let text = browser.text(".range");
    assert!(
        text.starts_with("Born 3 min 0 s to 10 min 0 s") && text.contains(&told(born(60, SPANS - 1))),
        "{text}"
    );
    // The cache was full by then: only the leak is left of the two.
    assert_eq!(browser.count("g.frame[name=thumbnail_put]"), 0);
    assert!(browser.text(ROW).starts_with("session_open"));
    let leak: u64 = 51 * 1024 * 140;
    assert!(browser.text(ROW).contains(&heapscope::report::units::bytes(leak)), "{}", browser.text(ROW));
    browser.press("0");
    assert_eq!(browser.count("g.frame[name=thumbnail_put]"), 1);
    browser.drag("document.querySelector('.u-over')", 0.0225, 0.0595);
    let text = browser.text(".range");
    assert!(text.contains(&told(born(4, 11))), "{text} {}", told(born(4, 11)));
    assert!(browser.text(ROW).starts_with("thumbnail_put"));
    browser.press("Escape");
    browser.click("document.querySelector('.range button')");
    assert!(browser.text(".range").starts_with("Born 2 min 0 s to 10 min 0 s"), "since the mark");
    browser.assert_content();
}

fn sorted() {
    let profile = service(300);
    let mut browser = open("sorted", &profile);
    let first = |browser: &mut Browser, column: &str| {
        browser.click(&format!("document.querySelector('.head .{column} button')"));
        browser.text(&format!("{ROW} .{column}"))
    };
    let most = profile.sites.iter().map(|site| site.totals.alloc_space).max().unwrap();
    assert_eq!(first(&mut browser, "allocated"), heapscope::report::units::bytes(most));
    let least = profile.sites.iter().map(|site| site.totals.alloc_space).min().unwrap();
    assert_eq!(first(&mut browser, "allocated"), heapscope::report::units::bytes(least));
    assert_eq!(
        browser.value("document.querySelector('.head .allocated').getAttribute('aria-sort')"),
        "ascending"
    );
    assert!(first(&mut browser, "growth").starts_with("+1"));
    assert_eq!(first(&mut browser, "verdict"), "grows steadily");
    browser.press("f");
    browser.type_text("plugins/on.py");
    let python = profile.sites.iter().filter(|site| has(site, "on_request")).count();
    assert!(browser.text(".controls .quiet").starts_with(&format!("{python} of 300 sites")));
    assert!(browser.text(ROW).starts_with("PyDict_New"));
    browser.assert_content();
}

fn details() {
    let profile = service(300);
    let mut browser = open("details", &profile);
    browser.click(FIRST_ROW);
    let text = browser.text(".details");
    for told in [
        "session_open (session.c:",
        "grows steadily",
        "10.0 MiB in 10,200 blocks",
        "none freed",
        "clone3",
        "/build/shop/src/handle.c:",
        "/srv/shop/shop",
        "Stack at allocation, 6 frames",
        "worker-1",
        "worker-2",
        "since mark after warm-up",
        "1.0 KiB",
        "Live bytes over time",
        "were born",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
    browser.until("document.querySelectorAll('.details canvas').length === 2");
    browser.press("j");
    assert!(browser.text(".details h2").starts_with("thumbnail_put"));
    browser.press("k");
    assert!(browser.text(".details h2").starts_with("session_open"));
    browser.press("Escape");
    assert_eq!(browser.value("document.querySelector('.details').hidden"), true);
    // The same by keys alone.
    browser.press("t");
    browser.press("ArrowDown");
    browser.press("Enter");
    assert!(browser.text(".details h2").starts_with("thumbnail_put"));
    browser.press("Escape");
    browser.press("?");
    assert!(browser.text("dialog").contains("search the graph"));
    let licenses = browser.value("document.querySelector('dialog pre').textContent");
    let licenses = licenses.as_str().unwrap();
    for library in ["d3-flame-graph", "uplot", "@tanstack/virtual-core", "Apache License", "MIT"] {
        assert!(licenses.contains(library), "{library}");
    }
    browser.press("Escape");
    browser.assert_content();
}

fn looks() {
    let file = page("looks", &service(300));
    let mut browser = Browser::open(&file, [1400, 1700], "light");
    let paper = "getComputedStyle(document.body).backgroundColor";
    let light = browser.value(paper);
    browser.picture("page-light.png");
    browser.prefer("dark");
    browser.settle();
    let dark = browser.value(paper);
    assert_ne!(light, dark, "as the system prefers");
    browser.click(FIRST_ROW);
    browser.until("document.querySelectorAll('.details canvas').length === 2");
    browser.picture("page-dark.png");
    browser.press("d");
    assert_eq!(browser.value(paper), light, "as the reader says");
    browser.press("d");
    assert_eq!(browser.value(paper), dark);
    browser.assert_content();
    for width in [360, 800] {
        let mut browser = Browser::open(&file, [width, 1700], "light");
        let wide = browser.value("document.documentElement.scrollWidth");
        assert!(wide.as_u64() <= Some(width.into()), "{wide} on {width}");
        browser.picture(&format!("page-{width}.png"));
        browser.assert_content();
    }
}

fn nothing() {
    let mut browser = open("nothing", &profile(Vec::new()));
    assert!(browser.text(".table").contains("Nothing is live: no allocations were recorded."));
    browser.press("m");
    browser.press("]");
    browser.assert_content();
}

fn estimates() {
    let mut profile = service(40);
    profile.mode.sample_interval = Some(1 << 19);
    profile.errors = Some(profile.totals);
    for site in &mut profile.sites {
        let mut errors = site.totals;
        errors.inuse_space /= 25;
        site.errors = Some(errors);
    }
    let mut browser = open("estimates", &profile);
    assert!(browser.text(".top").contains("sampled once in 512.0 KiB on average"));
    assert!(browser.text(".cards").contains(" ± "));
    assert!(browser.text(ROW).contains("±4.0%"), "{}", browser.text(ROW));
    assert!(browser.text(".quality").contains("± is the standard error"));
    browser.click(FIRST_ROW);
    assert!(browser.text(".numbers").contains("10.0 MiB ± 408.0 KiB"), "{}", browser.text(".numbers"));
    browser.assert_content();
}

fn told() {
    let summary = |name: &str, profile: &Profile| open(name, profile).text(".quality summary");
    let mut profile = service(40);
    let exact = summary("exact", &profile);
    assert!(exact.ends_with("every allocation counted"), "{exact}");
    profile.mode.budget.steps = vec![(Duration::ZERO, Recorded::Told)];
    let told = summary("told", &profile);
    assert!(told.ends_with("estimates by the program itself, error unknown"), "{told}");
    profile.mode.budget.steps.clear();
    profile.mode.sample_interval = Some(1 << 19);
    let sampled = summary("sampled", &profile);
    assert!(sampled.ends_with(", sampled"), "{sampled}");
}
