//! `go tool pprof` reads the profile.

use std::{fs, path::Path, process::Command};

use heapscope::report::format::Format;

use crate::{
    observed::{Observed, observed},
    support::{
        case::{Case, case_with},
        fixture,
        needs::Need,
    },
};

pub(crate) const CASES: &[Case] = &[
    case_with("pprof::totals", &[Need::Program("go")], totals),
    case_with(
        "pprof::mappings_and_names",
        &[Need::Program("go"), Need::Program("readelf")],
        mappings_and_names,
    ),
    case_with("pprof::estimates", &[Need::Program("go")], estimates),
];

fn pprof(arguments: &[&str], file: &Path) -> String {
    let mut go = Command::new("go");
    go.args(["tool", "pprof"]).args(arguments).arg(file).env("GOCACHE", fixture::folder().join("go"));
    let output = go.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The lines of a part of `-raw`: behind its head, before the next one.
fn part<'t>(raw: &'t str, head: &str, next: &str) -> Vec<&'t str> {
    let behind = raw.split_once(&format!("\n{head}\n")).unwrap_or_else(|| panic!("no {head}: {raw}")).1;
    let text = if next.is_empty() { behind } else { behind.split_once(&format!("\n{next}\n")).unwrap().0 };
    text.lines().collect()
}

/// Of each sample: its numbers, and the calls.
fn samples(raw: &str) -> Vec<([u64; 4], Vec<u64>)> {
    let mut lines = part(raw, "Samples:", "Locations").into_iter();
    let types = lines.next().unwrap();
    assert_eq!(types, "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]");
    let numbers =
        |text: &str| text.split_whitespace().map(|number| number.parse().unwrap()).collect::<Vec<u64>>();
    // Others are labels.
    let samples = lines.filter_map(|line| line.split_once(": ").filter(|(head, _)| !head.contains(':')));
    samples
        .filter(|(head, _)| head.trim().starts_with(|c: char| c.is_ascii_digit()))
        .map(|(values, calls)| (numbers(values).try_into().unwrap(), numbers(calls)))
        .collect()
}

fn sums(observed: &Observed) -> [u64; 4] {
    let raw = pprof(&["-raw"], &observed.file(Format::Pprof));
    samples(&raw).iter().fold([0; 4], |sum, (values, _)| std::array::from_fn(|i| sum[i] + values[i]))
}

fn totals() {
    for observed in observed() {
        let totals = observed.totals();
        let expected = [totals.alloc_objects, totals.alloc_space, totals.inuse_objects, totals.inuse_space];
        assert_eq!(sums(observed), expected);
        // And as its users see them: the whole is what is in use, unless another sample type is asked for.
        let top = pprof(&["-top", "-unit=B"], &observed.file(Format::Pprof));
        assert!(top.contains("Type: inuse_space"), "{top}");
        assert!(top.contains(&format!("of {}B total", totals.inuse_space)), "{top}");
        let top = pprof(&["-top", "-unit=B", "-sample_index=alloc_space"], &observed.file(Format::Pprof));
        assert!(top.contains(&format!("of {}B total", totals.alloc_space)), "{top}");
    }
}

/// The program is the first mapping, with its build-id; calls lie in their mappings and have file and line.
fn mappings_and_names() {
    let [observed, _] = observed();
    let raw = pprof(&["-raw"], &observed.file(Format::Pprof));
    let exe = &observed.report.target.exe;
    let notes = Command::new("readelf").args(["--notes", exe]).output().unwrap();
    let notes = String::from_utf8(notes.stdout).unwrap();
    let build_id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap();
    let mappings = part(&raw, "Mappings", "");
    assert!(
        mappings[0].starts_with("1: ") && mappings[0].contains(exe) && mappings[0].contains(build_id),
        "{raw}"
    );
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let ranges: Vec<Vec<u64>> = mappings
        .iter()
        .map(|line| line.split(' ').nth(1).unwrap().splitn(3, '/').map(hex).collect())
        .collect();
    let locations = part(&raw, "Locations", "Mappings");
    for words in locations.iter().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
        if let Some(mapping) = words.get(2).and_then(|word| word.strip_prefix("M=")) {
            let range = &ranges[mapping.parse::<usize>().unwrap() - 1];
            assert!((range[0]..range[1]).contains(&hex(words[1])), "{raw}");
        }
    }
    assert!(locations.iter().any(|line| line.contains("M=1 red ") && line.contains("calls.c:")), "{raw}");
    // Labels of what is live.
    for label in ["thread:[calls", "allocator:[glibc]", "bytes:[1000 bytes]"] {
        assert!(raw.contains(label), "{label}: {raw}");
    }
}

fn estimates() {
    for observed in observed() {
        let raw = pprof(&["-raw"], &observed.file(Format::Pprof));
        let interval = observed.sample_interval;
        assert!(raw.contains("PeriodType: space bytes"), "{raw}");
        assert!(raw.contains(&format!("\nPeriod: {}\n", interval.unwrap_or(1))), "{raw}");
        let comments = pprof(&["-comments"], &observed.file(Format::Pprof));
        assert_eq!(
            comments.contains("estimates from samples, one in 4.0 KiB on average"),
            interval.is_some()
        );
    }
    assert!(fs::read(observed()[0].file(Format::Pprof)).unwrap().starts_with(&[0x1f, 0x8b]), "gzipped");
}
