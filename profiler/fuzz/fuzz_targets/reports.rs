//! Reports of a profile whose every name is hostile: the picture stays well-formed XML, JSON stays JSON, a folded line
//! keeps its shape, a table's line its width, and the formats of other tools say what they should.
#![no_main]

use std::{
    collections::BTreeMap,
    io::Read,
    str::from_utf8,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arbitrary::Arbitrary;
use heapscope::{
    report::{
        flamegraph, folded,
        format::{Format, write_report},
        history::{History, SiteHistory},
        json,
        options::ReportOptions,
        profile::{Mode, Profile, Quality, SiteReport, TargetInfo, Totals},
        table,
    },
    symbolize::{
        frame::{Frame, FrameKind},
        role::role_of,
    },
};
use libfuzzer_sys::fuzz_target;
use profiler_common::records::Held;
use quick_xml::{Reader, events::Event};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    command: &'a str,
    sample_interval: Option<u64>,
    lost: BTreeMap<String, u64>,
    incomplete: BTreeMap<String, u64>,
    warnings: Vec<String>,
    overhead: Option<f64>,
    age: Option<u32>,
    duration: u32,
    width: u8,
    full_stacks: bool,
    sites: Vec<Site<'a>>,
}

#[derive(Arbitrary, Debug)]
struct Site<'a> {
    numbers: [u64; 4],
    oldest: Option<u32>,
    allocator: &'a str,
    stack: Vec<Line<'a>>,
}

#[derive(Arbitrary, Debug)]
struct Line<'a> {
    function: Option<&'a str>,
    file: Option<&'a str>,
    module: Option<&'a str>,
    python: bool,
    line: u32,
}

impl Site<'_> {
    fn report(&self) -> SiteReport {
        let [inuse_space, inuse_objects, alloc_space, alloc_objects] = self.numbers;
        let frame = |Line { function, file, module, python, line }: &Line<'_>| {
            Arc::new(Frame {
                function: function.map(str::to_owned),
                file: file.map(str::to_owned),
                line: Some(*line),
                module: module.map(str::to_owned),
                address: u64::from(*line) << 20,
                module_offset: (line % 3 > 0).then_some((*line).into()),
                kind: if *python { FrameKind::Python } else { FrameKind::Native },
                inlined: false,
                guessed: line % 5 == 0,
                role: role_of(*module, *function, None),
            })
        };
        SiteReport {
            totals: Totals { inuse_space, inuse_objects, alloc_space, alloc_objects },
            errors: None,
            kept: None,
            oldest: self.oldest.map(|seconds| Duration::from_secs(seconds.into())),
            allocator: self.allocator.to_owned(),
            stack: self.stack.iter().map(frame).collect(),
            history: SiteHistory {
                threads: vec![(
                    self.allocator.to_owned(),
                    Held { objects: inuse_objects, space: inuse_space },
                )],
                temporary_objects: alloc_objects,
                generations: vec![(
                    inuse_objects as usize,
                    Held { objects: inuse_objects, space: inuse_space },
                )],
                ..SiteHistory::default()
            },
        }
    }
}

fn profile(input: &Input<'_>) -> Profile {
    let sites: Vec<_> = input.sites.iter().map(Site::report).collect();
    let totals = sites.iter().fold(Totals::default(), |sum, site| Totals {
        inuse_space: sum.inuse_space.saturating_add(site.totals.inuse_space),
        inuse_objects: sum.inuse_objects.saturating_add(site.totals.inuse_objects),
        alloc_space: sum.alloc_space.saturating_add(site.totals.alloc_space),
        alloc_objects: sum.alloc_objects.saturating_add(site.totals.alloc_objects),
    });
    Profile {
        target: TargetInfo { pid: 7, command: input.command.to_owned(), exe: input.command.to_owned() },
        started: SystemTime::UNIX_EPOCH,
        duration: Duration::from_secs(input.duration.into()),
        mode: Mode {
            sample_interval: input.sample_interval,
            min_age: input.age.map(|seconds| Duration::from_secs(seconds.into())),
            ..Mode::default()
        },
        totals,
        errors: None,
        quality: Quality {
            lost: input.lost.clone(),
            incomplete_stacks: input.incomplete.clone(),
            overhead_percent: input.overhead,
            warnings: input.warnings.clone(),
            ..Quality::default()
        },
        history: History::default(),
        sites,
        windowed: None,
        code: Vec::new(),
        mapped: None,
        python: None,
        growth: None,
    }
}

/// Reads to the end; every reference must be one that XML knows and every character one that XML allows.
fn check_xml(text: &str) {
    let is_allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..);
    assert!(text.chars().all(is_allowed), "only characters of XML 1.0");
    let mut reader = Reader::from_str(text);
    let mut open = 0_usize;
    loop {
        match reader.read_event().expect("well-formed XML") {
            Event::Start(tag) => {
                open += 1;
                assert!(tag.attributes().all(|attribute| attribute.is_ok()));
            }
            Event::End(_) => open = open.checked_sub(1).expect("a start for each end"),
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open, 0, "an end for each start");
}

/// A file of one JSON object in one line.
fn check_json(text: &str) {
    serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(text.matches('\n').count(), 1, "one line");
}

fn check_csv(profile: &Profile, bytes: &[u8]) {
    let mut csv = csv::Reader::from_reader(bytes);
    let mut rows = 0;
    for row in csv.records() {
        let row = row.expect("as many columns as the header has");
        let is_formula = |cell: &str| cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
        assert!(!row.iter().any(is_formula), "a spreadsheet would take {row:?} for a formula");
        rows += 1;
    }
    assert_eq!(rows, profile.sites.len());
}

/// Every line is of a kind that heaptrack knows, texts have the length that is stated, and what is pointed to is there.
fn check_heaptrack(profile: &Profile, text: &str) {
    let (mut strings, mut calls, mut traces, mut sizes) = (0, 0, 0, Vec::new());
    let number = |word: &str| u64::from_str_radix(word, 16).expect("a number");
    let (mut live, mut born) = (0_u64, 0_u64);
    for line in text.lines() {
        let (kind, rest) = line.split_at(1);
        let words: Vec<&str> = rest.split(' ').skip(1).collect();
        match kind {
            "s" => {
                let (length, string) = rest[1..].split_once(' ').expect("a length and a text");
                assert_eq!(number(length), string.len() as u64);
                strings += 1;
            }
            "i" => {
                let indices =
                    words[1..2].iter().chain(words[2..].chunks(3).flat_map(|function| &function[..2]));
                assert!(indices.map(|word| number(word)).all(|index| index <= strings));
                calls += 1;
            }
            "t" => {
                assert!((1..=calls).contains(&number(words[0])) && number(words[1]) <= traces);
                traces += 1;
            }
            "a" => {
                assert!(number(words[1]) <= traces);
                sizes.push(number(words[0]));
            }
            "+" => {
                live += sizes[number(words[0]) as usize];
                born += 1;
            }
            "-" => live -= sizes[number(words[0]) as usize],
            "v" | "X" | "A" | "I" | "c" | "R" | "#" => {}
            _ => panic!("no such line: {line:?}"),
        }
    }
    // Bytes without a block, which no account has, cannot be told.
    let told = profile.sites.iter().filter(|site| site.totals.inuse_objects > 0);
    assert_eq!(live, told.map(|site| site.totals.inuse_space).sum::<u64>());
    let most = |site: &SiteReport| site.totals.alloc_objects.max(site.totals.inuse_objects);
    assert_eq!(born, profile.sites.iter().map(most).sum::<u64>());
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).expect("gzip");
    plain
}

/// The formats of other tools. Their one error is numbers that do not fit.
fn check_others(profile: &Profile, options: &ReportOptions) {
    let write = |format| {
        let mut out = Vec::new();
        write_report(format, profile, options, &mut out).is_ok().then_some(out)
    };
    for format in [Format::Speedscope, Format::Firefox, Format::Dhat] {
        if let Some(out) = write(format) {
            check_json(from_utf8(&out).expect("UTF-8"));
        }
    }
    let page = write(Format::Html).expect("no error of a vector");
    assert!(from_utf8(&page).is_ok());
    check_csv(profile, &write(Format::Csv).expect("no error of a vector"));
    if let Some(out) = write(Format::Pprof) {
        unzipped(&out);
    }
    // A line for each block: what has many would only take time.
    let blocks =
        |site: &SiteReport| u128::from(site.totals.alloc_objects) + u128::from(site.totals.inuse_objects);
    if profile.sites.iter().map(blocks).sum::<u128>() < 100_000
        && let Some(out) = write(Format::Heaptrack)
    {
        check_heaptrack(profile, from_utf8(&unzipped(&out)).expect("UTF-8"));
    }
}

fuzz_target!(|input: Input<'_>| {
    let profile = profile(&input);
    let options = ReportOptions {
        full_stacks: input.full_stacks,
        width: input.width.into(),
        sites: 5,
        ..ReportOptions::default()
    };
    let mut out = Vec::new();
    // The one error there is: sums beyond 64 bits.
    if flamegraph::write(&profile, &options, &mut out).is_ok() {
        check_xml(from_utf8(&out).expect("UTF-8"));
    }
    out.clear();
    json::write(&profile, &options, &mut out).expect("no error of a vector");
    check_json(from_utf8(&out).expect("UTF-8"));
    out.clear();
    folded::write(&profile, &options, &mut out).expect("no error of a vector");
    for line in from_utf8(&out).expect("UTF-8").lines().filter(|line| !line.starts_with("# ")) {
        let (stack, bytes) = line.rsplit_once(' ').expect("a stack and its bytes");
        assert!(
            bytes.parse::<u64>().is_ok_and(|bytes| bytes > 0)
                && stack.split(';').all(|name| !name.is_empty())
        );
    }
    out.clear();
    table::write(&profile, &options, &mut out).expect("no error of a vector");
    for line in from_utf8(&out).expect("UTF-8").lines() {
        assert!(line.chars().count() <= options.width.max(80), "a line fits the terminal: {line}");
        assert!(!line.contains(char::is_control));
    }
    check_others(&profile, &options);
});
