//! Golden files of the formats of other tools. That those tools read them is shown in tests/formats.rs.

use std::io::Read;

use flate2::read::GzDecoder;
use prost::Message;

use super::*;
use crate::report::pprof::message;

fn bytes(format: Format, profile: &Profile) -> Vec<u8> {
    let mut out = Vec::new();
    write_report(format, profile, &ReportOptions::default(), &mut out).unwrap();
    out
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

/// The shop as it would look in samples.
pub(super) fn sampled() -> Profile {
    let mut shop = shop();
    shop.mode.sample_interval = Some(512 << 10);
    let error = |totals: Totals| Totals { inuse_space: totals.inuse_space / 10, ..totals };
    shop.errors = Some(error(shop.totals));
    for site in &mut shop.sites {
        site.errors = Some(error(site.totals));
    }
    shop
}

fn pprof(profile: &Profile) -> message::Profile {
    message::Profile::decode(unzipped(&bytes(Format::Pprof, profile)).as_slice()).unwrap()
}

fn heaptrack(profile: &Profile) -> String {
    String::from_utf8(unzipped(&bytes(Format::Heaptrack, profile))).unwrap()
}

/// Equal lines that follow one another, as one line with their count; pairs and triples of them too.
fn counted(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    let mut rest = lines.as_slice();
    while !rest.is_empty() {
        let times =
            |length: usize| rest.chunks_exact(length).take_while(|chunk| *chunk == &rest[..length]).count();
        let repeated = |length: &usize| ((times(*length) - 1) * length, usize::MAX - length);
        let length = (1..=3.min(rest.len())).max_by_key(repeated).unwrap();
        let times = times(length);
        out += &rest[..length].join(", ");
        out += &if times > 1 { format!(" (x {times})\n") } else { "\n".to_owned() };
        rest = &rest[length * times..];
    }
    out
}

/// Version numbers do not belong into golden files.
fn golden(name: &str, text: &str) {
    hold_against_golden(name, &text.replace(shown::WRITER, "heapscope VERSION"));
}

#[test]
fn golden_files_of_other_tools() {
    let shop = shop();
    golden("shop.pb.txt", &format!("{:#?}\n", pprof(&shop)));
    for (format, lines) in [(Format::Speedscope, "},\n{"), (Format::Dhat, "},\n{")] {
        let name = format!("shop.{}", format.ending());
        golden(&name, &report(format, &shop, &ReportOptions::default()).replace("},{", lines));
    }
    let firefox: serde_json::Value = serde_json::from_slice(&bytes(Format::Firefox, &shop)).unwrap();
    golden("shop.firefox.json", &(serde_json::to_string_pretty(&firefox).unwrap() + "\n"));
    golden("shop.heaptrack", &counted(&heaptrack(&shop)));
    golden("shop.csv", &report(Format::Csv, &shop, &ReportOptions::default()).replace('\r', ""));
    golden("sampled.csv", &report(Format::Csv, &sampled(), &ReportOptions::default()).replace('\r', ""));
}

#[test]
fn estimates_are_told_as_such() {
    let sampled = sampled();
    assert_eq!(pprof(&sampled).period, 512 << 10);
    let comments = pprof(&sampled);
    let comments = comments.comment.iter().map(|at| &comments.string_table[usize::try_from(*at).unwrap()]);
    assert!(comments.clone().any(|comment| comment.contains("estimates from samples, one in 512.0 KiB")));
    assert!(comments.clone().any(|comment| comment.starts_with("warning: ")));
    assert!(heaptrack(&sampled).contains("estimates from samples, one in 512.0 KiB on average, leaked ± "));
    assert!(!heaptrack(&shop()).contains(" ± "));
    for format in [Format::Speedscope, Format::Dhat, Format::Firefox] {
        let text = report(format, &sampled, &ReportOptions::default());
        assert!(text.contains("estimates from samples, one in 512.0 KiB on average"), "{text}");
        assert!(text.contains(" ± "), "{text}");
        assert!(!report(format, &shop(), &ReportOptions::default()).contains(" ± "));
    }
}

#[test]
fn sums_that_do_not_fit_are_an_error() {
    let mut huge = shop();
    for site in &mut huge.sites {
        site.totals.alloc_space = 1 << 62;
    }
    for format in [Format::Pprof, Format::Speedscope, Format::Dhat, Format::Firefox, Format::Heaptrack] {
        let written = write_report(format, &huge, &ReportOptions::default(), &mut Vec::new());
        assert!(written.unwrap_err().to_string().contains("63 bits"), "{format}");
    }
}

/// What is live by thread makes samples of its own; what was allocated stays together.
#[test]
fn samples_by_thread_add_up() {
    let mut profile = shop();
    let held = |space, objects| profiler_common::records::Held { space, objects };
    profile.sites.truncate(1);
    profile.sites[0].history.threads =
        vec![("a".into(), held(9_000_000, 1000)), ("b".into(), held(437_184, 152))];
    let values = |profile: &Profile| pprof(profile).sample.into_iter().map(|s| s.value).collect::<Vec<_>>();
    assert_eq!(values(&profile), [[2304, 28_311_552, 0, 0], [0, 0, 1000, 9_000_000], [0, 0, 152, 437_184]]);
    // Only some of the live blocks: the split would be wrong.
    profile.sites[0].history.threads.pop();
    assert_eq!(values(&profile), [[2304, 28_311_552, 1152, 9_437_184]]);
}

#[test]
fn a_spreadsheet_takes_no_name_for_a_formula() {
    let mut profile = shop();
    for start in ["=", "+", "-", "@", "\t="] {
        let name = format!("{start}cmd|' /C calc'!A0");
        profile.sites.truncate(1);
        profile.sites[0].stack = vec![Arc::new(program(&name, 1))];
        profile.sites[0].allocator = name.clone();
        profile.sites[0].history.threads[0].0 = name;
        let text = report(Format::Csv, &profile, &ReportOptions::default());
        let mut rows = ::csv::Reader::from_reader(text.as_bytes());
        let row = rows.records().next().unwrap().unwrap();
        assert!(row.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r'])), "{row:?}");
    }
}

/// Whatever the names are, each format stays one, and the numbers add up.
pub(super) fn check(profile: &Profile, options: &ReportOptions) {
    let written = |format| {
        let mut out = Vec::new();
        write_report(format, profile, options, &mut out).unwrap();
        out
    };
    let text = |format| String::from_utf8(written(format)).unwrap();
    let Totals { inuse_space, inuse_objects, alloc_space, alloc_objects } = profile.totals;

    let pprof = message::Profile::decode(unzipped(&written(Format::Pprof)).as_slice()).unwrap();
    let sum = |at: usize| pprof.sample.iter().map(|sample| sample.value[at].unsigned_abs()).sum::<u64>();
    assert_eq!([0, 1, 2, 3].map(sum), [alloc_objects, alloc_space, inuse_objects, inuse_space]);
    let locations = pprof.sample.iter().flat_map(|sample| &sample.location_id);
    assert!(locations.clone().all(|id| (1..=pprof.location.len() as u64).contains(id)));
    let lines = pprof.location.iter().flat_map(|location| &location.line);
    assert!(lines.clone().all(|line| (1..=pprof.function.len() as u64).contains(&line.function_id)));
    assert!(pprof.string_table.iter().all(|text| !text.contains(char::is_control)));

    for (format, end) in [(Format::Speedscope, "/profiles/0/endValue"), (Format::Dhat, "/te")] {
        let json: serde_json::Value = serde_json::from_str(&text(format)).unwrap();
        let end = json.pointer(end).unwrap().as_u64().unwrap();
        assert!(format != Format::Speedscope || end == inuse_space);
    }
    let dhat: serde_json::Value = serde_json::from_str(&text(Format::Dhat)).unwrap();
    let points = dhat["pps"].as_array().unwrap();
    assert_eq!(points.iter().map(|point| point["eb"].as_u64().unwrap()).sum::<u64>(), inuse_space);
    let stacks: std::collections::HashSet<_> = points.iter().map(|point| point["fs"].to_string()).collect();
    assert_eq!(stacks.len(), points.len(), "the viewer refuses a stack that comes twice");

    let firefox: serde_json::Value = serde_json::from_str(&text(Format::Firefox)).unwrap();
    let weights = firefox["threads"][0]["nativeAllocations"]["weight"].as_array();
    assert_eq!(
        weights.into_iter().flatten().map(|weight| weight.as_u64().unwrap()).sum::<u64>(),
        inuse_space
    );

    let heaptrack = String::from_utf8(unzipped(&written(Format::Heaptrack))).unwrap();
    assert!(heaptrack.lines().all(|line| "vX#AIsitacR+-".contains(&line[..1])), "{heaptrack}");
    assert_eq!(heaptrack.lines().filter(|line| line.starts_with('+')).count() as u64, alloc_objects);
    let texts = heaptrack.lines().filter_map(|line| line.strip_prefix("s ")?.split_once(' '));
    for (length, text) in texts {
        assert_eq!(usize::from_str_radix(length, 16), Ok(text.len()));
        assert!(!text.contains(char::is_control));
    }

    let csv = written(Format::Csv);
    let mut rows = ::csv::Reader::from_reader(csv.as_slice());
    let sum: u64 = rows.records().map(|row| row.unwrap()[0].parse::<u64>().unwrap()).sum();
    assert_eq!(sum, inuse_space);
}
