//! The Firefox Profiler reads its own format, and DHAT's: its command line is the same code as the page.

use std::{path::Path, process::Command};

use heapscope::report::format::Format;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    observed::observed,
    support::{
        case::{Case, case_with},
        needs::Need,
        readers,
    },
};

const NEEDS: &[Need] = &[Need::Program("node"), Need::Readers];

pub(crate) const CASES: &[Case] = &[
    case_with("firefox::totals", NEEDS, totals),
    case_with("firefox::a_range_has_what_was_born_in_it", NEEDS, a_range),
    case_with("firefox::reads_dhat_too", NEEDS, reads_dhat),
];

/// A file opened by the profiler's daemon, which ends with this.
struct Profiler {
    /// Short, because the path of a socket in it is bounded.
    folder: TempDir,
}

impl Profiler {
    fn load(file: &Path) -> Self {
        let profiler = Self { folder: TempDir::new_in("/tmp").unwrap() };
        let loaded = profiler.ask(&["load", file.to_str().unwrap()]);
        assert!(loaded.contains("Session started"), "{loaded}");
        profiler
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut node = Command::new("node");
        node.arg(readers::folder().join("node_modules/@firefox-devtools/profiler-cli/dist/profiler-cli.js"));
        node.args(arguments).env("PROFILER_CLI_SESSION_DIR", self.folder.path());
        node
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let answer = self.ask(&[arguments, &["--json"]].concat());
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// The bytes of all stacks of the selected thread, within the range that is looked at.
    fn bytes(&self) -> u64 {
        let samples = self.json(&["thread", "samples"]);
        assert_eq!(samples["weightType"], "bytes", "{samples}");
        samples["categoryBreakdown"]["totalSamples"].as_u64().unwrap_or_else(|| panic!("{samples}"))
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        let _ = self.command(&["stop", "--all"]).output();
    }
}

fn totals() {
    for observed in observed() {
        let profiler = Profiler::load(&observed.file(Format::Firefox));
        profiler.ask(&["strategy", "native-retained-allocations"]);
        assert_eq!(profiler.bytes(), observed.totals().inuse_space);
        let tree = profiler.ask(&["thread", "samples-top-down"]);
        for name in ["red (calls.c:", "green (calls.c:", "main (calls.c:"] {
            assert!(tree.contains(name), "{name}: {tree}");
        }
        // The memory track ends where the account ends.
        let counters = profiler.ask(&["counter", "info", "c-0"]);
        assert!(counters.contains("Category: Memory") && counters.contains("Unit: bytes"), "{counters}");
        let markers = profiler.ask(&["thread", "markers", "--list"]);
        assert!(markers.contains("half: ") && markers.contains("peak"), "{markers}");
    }
}

/// The births that JSON tells, before the middle of the observation, are the bytes that the profiler finds there.
fn a_range() {
    let [observed, _] = observed();
    let report: Value = serde_json::from_slice(&std::fs::read(observed.file(Format::Json)).unwrap()).unwrap();
    let file: Value =
        serde_json::from_slice(&std::fs::read(observed.file(Format::Firefox)).unwrap()).unwrap();
    let allocations = &file["threads"][0]["nativeAllocations"];
    let column = |name: &str| allocations[name].as_array().unwrap();
    let times: Vec<f64> = column("time").iter().map(|time| time.as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let mut addresses: Vec<_> =
        column("memoryAddress").iter().map(|address| address.as_u64().unwrap()).collect();
    addresses.dedup();
    assert_eq!(addresses.len(), times.len(), "each entry has a number of its own");
    // Between two moments of births, so that none is at the border.
    let at =
        times.windows(2).map(|pair| (pair[1] - pair[0], pair)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1;
    let border = (at[0] + at[1]) / 2.0;
    let span = report["birth_span_seconds"].as_f64().unwrap() * 1000.0;
    let births = report["births"].as_array().unwrap().iter();
    let before = births.filter(|birth| (birth[0].as_f64().unwrap() + 0.5) * span < border);
    let before: u64 = before.map(|birth| birth[1].as_u64().unwrap()).sum();
    assert!(before > 0 && before < observed.totals().inuse_space);

    let profiler = Profiler::load(&observed.file(Format::Firefox));
    profiler.ask(&["strategy", "native-retained-allocations"]);
    let begin = times[0].min(0.0);
    // Ranges are told from the first event of the file on.
    let root = profiler.json(&["thread", "info"])["context"]["rootRange"]["start"].as_f64().unwrap();
    let range = format!("{},{}", begin / 1000.0, (border - root) / 1000.0);
    profiler.ask(&["zoom", "push", &range]);
    assert_eq!(profiler.bytes(), before);
}

fn reads_dhat() {
    for observed in observed() {
        let profiler = Profiler::load(&observed.file(Format::Dhat));
        let report = &observed.report;
        let totals = observed.totals();
        // One thread for each of DHAT's numbers of bytes.
        let expected = [
            ("Total Bytes", totals.alloc_space),
            ("Bytes at Global Max", report.peak.as_ref().unwrap().held.inuse_space),
            ("Bytes at End", totals.inuse_space),
        ];
        for number in 0..4 {
            let thread = format!("t-{number}");
            profiler.ask(&["thread", "select", &thread]);
            let name = profiler.json(&["thread", "info"])["name"].as_str().unwrap().to_owned();
            if let Some((_, bytes)) = expected.iter().find(|(expected, _)| *expected == name) {
                assert_eq!(profiler.bytes(), *bytes, "{name}");
            } else {
                assert_eq!(name, "Maximum Bytes");
            }
        }
    }
}
