//! Hostile names against every format.

use proptest::prelude::*;
use quick_xml::{Reader, events::Event};

use super::*;

/// What attackers and template libraries call their functions.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<String>(),
        4 => "[a-c]{1,2}( [0-9]{1,3}(\\.[0-9])?)?",
        2 => "[;<>&\"' \u{0}-\u{1f}\u{85}\u{2028}\u{202e}\u{fffe}\u{3000}#\\-\\]\\[_k🦀é]{0,12}",
        1 => Just("--".to_owned()),
        1 => Just("]]>--><script>alert(1)</script>_[k]".to_owned()),
        1 => "[a-z]{3}".prop_map(|part| format!("ns::{}", format!("T<{part}, ").repeat(1500))),
    ]
}

prop_compose! {
    fn any_frame()(
        function in proptest::option::of(name()), file in proptest::option::of(name()), line: Option<u32>,
        module in proptest::option::of(name()), offset: Option<u64>, address: u64, python: bool, guessed: bool,
        role in prop_oneof![
            Just(FrameRole::Allocator), Just(FrameRole::Program), Just(FrameRole::Jit), Just(FrameRole::Remark)
        ],
    ) -> Frame {
        let kind = if python { FrameKind::Python } else { FrameKind::Native };
        Frame { function, file, line, module, address, module_offset: offset, kind, inlined: guessed, guessed, role }
    }
}

prop_compose! {
    fn any_site()(
        space in prop_oneof![Just(0u64), 1u64..50, 0u64..1 << 40], objects in 0u64..1000,
        stack in proptest::collection::vec(any_frame(), 0..8), oldest in 0.0f64..1e6,
    ) -> SiteReport {
        site(space, objects, oldest, stack)
    }
}

fn check_json(profile: &Profile) {
    let json: serde_json::Value =
        serde_json::from_str(&report(Format::Json, profile, &ReportOptions::default())).unwrap();
    let sites = json["sites"].as_array().unwrap();
    assert_eq!(sites.len(), profile.sites.len());
    let sum: u64 = sites.iter().map(|site| site["inuse_space"].as_u64().unwrap()).sum();
    assert_eq!(json["totals"]["inuse_space"].as_u64(), Some(sum));
    assert_eq!(sum, profile.totals.inuse_space);
    for (site, shown) in profile.sites.iter().zip(sites) {
        let functions: Vec<_> =
            shown["stack"].as_array().unwrap().iter().map(|f| f["function"].as_str()).collect();
        assert_eq!(functions, site.stack.iter().map(|f| f.function.as_deref()).collect::<Vec<_>>());
    }
}

fn check_folded(profile: &Profile, options: &ReportOptions) {
    let text = report(Format::Folded, profile, options);
    let depths =
        |site: &SiteReport| crate::symbolize::fold::fold(&site.stack, options.full_stacks).len().max(1);
    let deepest = profile.sites.iter().filter(|s| s.totals.inuse_space > 0).map(depths).max();
    let mut sum = 0;
    let mut deepest_line = None;
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        let (stack, value) = line.rsplit_once(' ').unwrap();
        sum += value.parse::<u64>().unwrap();
        deepest_line = deepest_line.max(Some(stack.split(';').count()));
        let last_word = stack.rsplit(char::is_whitespace).next().unwrap();
        assert!(
            !stack.contains(' ')
                || last_word.parse::<f64>().is_err()
                || last_word.contains(|c: char| c.is_ascii_alphabetic() || c == '+' || c == '-'),
            "{line:?}"
        );
        assert!(stack.split(';').all(|name| !name.is_empty()), "{line:?}");
    }
    assert_eq!(sum, profile.totals.inuse_space);
    assert_eq!(deepest_line, deepest);
}

fn check_svg(profile: &Profile, options: &ReportOptions) {
    let svg = report(Format::Svg, profile, options);
    let mut reader = Reader::from_str(&svg);
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => break,
            Event::Text(text) => drop(text.decode().unwrap()),
            Event::Empty(tag) | Event::Start(tag) => tag.attributes().for_each(|a| drop(a.unwrap())),
            _ => {}
        }
    }
    let allowed = |c: char| !c.is_control() || matches!(c, '\n' | '\t' | '\r');
    assert!(svg.chars().all(|c| allowed(c) && !matches!(c, '\u{fffe}' | '\u{ffff}')));
    assert!(!svg.contains("<script>"));
    if profile.totals.inuse_space == 0 {
        return;
    }
    let stacks = Stacks::of(profile, options);
    let total = stacks.total().unwrap();
    let bytes = profile.totals.inuse_space;
    // A site may hold bytes in no blocks here, which no ledger would say: blocks are summed over what is drawn.
    let (space, blocks) = (units::count(bytes), units::blocks(total.blocks));
    assert_eq!(total.bytes, bytes);
    assert_eq!(total.blocks, profile.totals.inuse_objects);
    assert!(svg.contains(&format!("<title>all ({space} bytes in {blocks}, 100%)</title>")));
    let plain = flamegraph::draw(profile, options, &stacks, total).unwrap();
    let notes = Notes { blocks: node_blocks(&stacks), ..Notes::default() };
    let (frames, matched) = annotate(&plain, &notes).frames;
    assert!(frames > 1);
    assert_eq!(frames, matched, "every frame has its blocks");
    assert_eq!(
        svg.matches("<rect ").count(),
        frames + 1,
        "and every rectangle but the background is a frame"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn hostile_names_break_nothing(
        sites in proptest::collection::vec(any_site(), 0..10), command in name(), warning in name(),
        full_stacks: bool, width in 0usize..200,
    ) {
        let mut profile = profile(sites);
        profile.target.command = command;
        profile.quality.warnings.push(warning.clone());
        profile.quality.lost.insert(warning, 3);
        let options = ReportOptions { full_stacks, width, sites: 4, ..ReportOptions::default() };
        check_json(&profile);
        check_folded(&profile, &options);
        check_svg(&profile, &options);
        formats::check(&profile, &options);
        let table = table(&profile, &options);
        prop_assert!(table.chars().all(|c| c == '\n' || !c.is_control()));
        let live = units::bytes(profile.totals.inuse_space);
        let total = format!("{live} live in {}", units::blocks(profile.totals.inuse_objects));
        prop_assert!(table.contains(&total));
        for line in table.lines() {
            prop_assert!(line.chars().count() <= width.max(80), "{} {line}", width);
        }
    }
}
