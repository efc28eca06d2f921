//! Golden files for every format (`HEAPSCOPE_BLESS=1` writes them anew), and hostile names against all of them.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod formats;
mod hostile;
mod moments;
mod recordings;
mod schema;
mod views;
mod windows;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use self::moments::{code, history, site};
use super::{
    format::{Format, write_report},
    options::ReportOptions,
    profile::{At, Mode, Profile, Quality, SiteReport, TargetInfo, Totals},
    stacks::Stacks,
    svg_notes::{Notes, annotate, node_blocks},
    *,
};
use crate::symbolize::frame::{Frame, FrameKind, FrameRole};

fn frame(function: &str, module: &str, line: u32, role: FrameRole) -> Frame {
    Frame {
        function: (!function.is_empty()).then(|| function.into()),
        file: (line > 0)
            .then(|| format!("/build/src/{}.c", module.trim_matches('/').replace(['/', '.'], "_"))),
        line: (line > 0).then_some(line),
        module: (!module.is_empty()).then(|| module.into()),
        address: 0x7f00_0000_1000 + u64::from(line),
        module_offset: (!module.is_empty()).then_some(0x1000 + u64::from(line)),
        kind: FrameKind::Native,
        inlined: false,
        guessed: false,
        role,
    }
}

fn program(function: &str, line: u32) -> Frame {
    frame(function, "/srv/shop", line, FrameRole::Program)
}

fn library(function: &str, line: u32) -> Frame {
    frame(function, "/usr/lib/libjson.so.2", line, FrameRole::Library)
}

fn runtime(function: &str) -> Frame {
    frame(function, "/lib/x86_64-linux-gnu/libc.so.6", 0, FrameRole::Runtime)
}

fn profile(sites: Vec<SiteReport>) -> Profile {
    let sum = |part: fn(&Totals) -> u64| sites.iter().map(|site| part(&site.totals)).sum();
    Profile {
        target: TargetInfo { pid: 4711, command: "/srv/shop --port 80".into(), exe: "/srv/shop".into() },
        started: UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        duration: Duration::from_millis(30_250),
        mode: Mode {
            at: At::End,
            sample_interval: None,
            command: "attach".into(),
            probes: "session".into(),
            min_size: Some(16),
            min_age: Some(Duration::from_secs(5)),
            ..Mode::default()
        },
        totals: Totals {
            inuse_space: sum(|t| t.inuse_space),
            inuse_objects: sum(|t| t.inuse_objects),
            alloc_space: sum(|t| t.alloc_space),
            alloc_objects: sum(|t| t.alloc_objects),
        },
        errors: None,
        quality: Quality {
            unmatched_frees: 1234,
            filtered_allocations: 9,
            lost: [("live_map_full".to_owned(), 0), ("stack_record_lost".to_owned(), 2)].into(),
            stacks_walked: 40_000,
            truncated_stacks: 3,
            incomplete_stacks: [("no_mapping".to_owned(), 0), ("no_unwind_info".to_owned(), 412)].into(),
            guessed_frames: 31,
            probe_hits: 81_000,
            overhead_percent: Some(0.84),
            warnings: vec!["libold.so.1 has no unwind information".into()],
            ..Quality::default()
        },
        history: history(),
        sites,
        windowed: None,
        code: code(),
        mapped: None,
        python: None,
        growth: None,
    }
}

/// A shop server: a cache that grows, JSON text, a Python plug-in, generated code, a cut stack, no stack at all.
pub(super) fn shop() -> Profile {
    let start = Frame { role: FrameRole::Runtime, ..program("_start", 0) };
    let root = || vec![program("main", 210), runtime("__libc_start_call_main"), start.clone()];
    let stack = |leaf: Vec<Frame>| [leaf, root()].concat();
    let allocator = frame("operator new(unsigned long)", "/usr/lib/libstdc++.so.6", 0, FrameRole::Allocator);
    let inlined = Frame { inlined: true, ..program("shop::Cache<int, char*>::grow(unsigned long)", 61) };
    let python = Frame {
        file: Some("/srv/plugins/shop/__init__.py".into()),
        kind: FrameKind::Python,
        ..frame("on_request", "", 56, FrameRole::Program)
    };
    let deep: Vec<Frame> = (0..30).map(|i| library(&format!("parse_value_{i}"), 100 + i)).collect();
    let jit = Frame { guessed: true, ..frame("", "", 0, FrameRole::Jit) };
    let cut =
        Frame { function: Some("[stack cut at 128 frames]".into()), ..frame("", "", 0, FrameRole::Remark) };
    let serving = program("serve", 90);
    profile(vec![
        site(
            9_437_184,
            1152,
            29.6,
            stack(vec![allocator, inlined, program("shop::Cache<int, char*>::put", 44), serving.clone()]),
        ),
        site(2_000_000, 4000, 12.0, stack([deep, vec![serving.clone()]].concat())),
        site(
            1_024_000,
            1000,
            30.1,
            stack(vec![
                library("PyList_New", 0),
                python,
                library("_PyEval_EvalFrameDefault", 0),
                serving.clone(),
            ]),
        ),
        site(
            300_000,
            3,
            8.0,
            stack(vec![frame("", "/usr/lib/libstripped.so", 77, FrameRole::Library), serving.clone()]),
        ),
        site(120_000, 12, 3.0, vec![jit, serving.clone(), cut]),
        site(40_000, 5, 1.0, stack(vec![program("serve.cold", 0)])),
        site(8_000, 1, 0.25, stack(vec![serving])),
        site(64, 4, 0.5, vec![]),
        site(0, 7, 2.0, stack(vec![program("empty_strings", 12)])),
        site(0, 0, 0.0, stack(vec![program("all_freed", 13)])),
    ])
}

fn report(format: Format, profile: &Profile, options: &ReportOptions) -> String {
    let mut out = Vec::new();
    write_report(format, profile, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn table(profile: &Profile, options: &ReportOptions) -> String {
    let mut out = Vec::new();
    table::write(profile, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn hold_against_golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("HEAPSCOPE_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{name} differs from the golden file; if that is right, set HEAPSCOPE_BLESS=1:\n{text}"
    );
}

/// The picture without inferno's style sheet and script, an element a line.
fn without_script(svg: &str) -> String {
    let (head, rest) = svg.split_once("<style").unwrap();
    let (_, tail) = rest.split_once("</script>").unwrap();
    (head.to_owned() + tail).replace("><", ">\n<")
}

#[test]
fn golden_files() {
    let shop = shop();
    let options = ReportOptions::default();
    hold_against_golden("shop.table", &table(&shop, &options));
    hold_against_golden(
        "shop-narrow.table",
        &table(&shop, &ReportOptions { width: 0, sites: 2, full_stacks: true, ..ReportOptions::default() }),
    );
    hold_against_golden("shop.folded", &report(Format::Folded, &shop, &options));
    hold_against_golden("shop.json", &report(Format::Json, &shop, &options).replace("},{", "},\n{"));
    hold_against_golden("shop.svg.txt", &without_script(&report(Format::Svg, &shop, &options)));
    let empty = profile(Vec::new());
    hold_against_golden("empty.table", &table(&empty, &options));
    hold_against_golden("empty.svg", &report(Format::Svg, &empty, &options));
}

/// `foo`, `foo;x` and `foo.cold` must not tear `foo` apart, which sorting lines as text would do.
#[test]
fn every_frame_is_drawn_once_and_has_its_blocks() {
    let shop = shop();
    let svg = report(Format::Svg, &shop, &ReportOptions::default());
    assert_eq!(svg.matches("<title>serve (").count(), 2, "below main, and above the cut");
    let blocks = 1152 + 4000 + 1000 + 3 + 5 + 1 + 7;
    assert!(
        svg.contains(&format!("<title>main (12,809,184 bytes in {} blocks, ", units::count(blocks))),
        "{svg}"
    );
    assert!(svg.contains("<title>all (12,929,248 bytes in 6,184 blocks, 100%)"));
    assert!(svg.contains("<title>libstripped.so+0x104d (300,000 bytes in 3 blocks, 2.32%)"));
    assert!(!svg.contains("operator new"));
    let full = ReportOptions { full_stacks: true, ..ReportOptions::default() };
    assert!(
        report(Format::Svg, &shop, &full)
            .contains("<title>operator new(unsigned long) (9,437,184 bytes in 1,152")
    );
}

#[test]
fn a_picture_that_does_not_match_keeps_its_titles() {
    let shop = shop();
    let stacks = Stacks::of(&shop, &ReportOptions::default());
    let plain = flamegraph::draw(&shop, &ReportOptions::default(), &stacks, stacks.total().unwrap()).unwrap();
    let other = annotate(&plain, &Notes::default());
    assert!(other.frames.0 > 10 && other.frames.1 == 0);
    assert!(other.svg.contains("<title>all (12,929,248 bytes, 100%)</title>"));
    for broken in ["", "<svg><title>x bytes, </title><rect fg:x=\"a\"/>", "<g", "</g>"] {
        assert_eq!(annotate(broken, &Notes::default()).svg, broken);
    }
}

#[test]
fn sums_beyond_64_bits_are_an_error_not_a_panic() {
    let mut huge = shop();
    for site in &mut huge.sites {
        site.totals =
            Totals { inuse_space: u64::MAX, inuse_objects: u64::MAX, alloc_space: 0, alloc_objects: 0 };
    }
    let options = ReportOptions::default();
    assert!(flamegraph::write(&huge, &options, &mut Vec::new()).is_err());
    assert!(folded::write(&huge, &options, &mut Vec::new()).is_ok());
    huge.sites.truncate(1);
    assert!(flamegraph::write(&huge, &options, &mut Vec::new()).is_ok());
    huge.started = UNIX_EPOCH - Duration::from_secs(1);
    huge.quality.overhead_percent = Some(f64::NAN);
    huge.duration = Duration::MAX;
    assert!(report(Format::Json, &huge, &options).contains("\"started\":null"));
    table(&huge, &options);
}
