//! The Firefox Profiler reads its own format, and DHAT's: its command line is the same code as the page.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use heapscope::report::format::Format;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    observed::observed,
    support::{
        case::{Case, case_with},
        needs::Need,
        readers, until,
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
    daemon: Child,
    /// Short, because the path of a socket in it is bounded.
    folder: TempDir,
}

impl Profiler {
    /// The daemon is started here, because `load` waits for it for half a second only.
    fn load(file: &Path) -> Self {
        let folder = TempDir::new_in("/tmp").unwrap();
        let mut node = command(folder.path(), &["--daemon", file.to_str().unwrap()]);
        let daemon = node.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut profiler = Self { daemon, folder };
        until("the profiler has opened the file", || {
            assert!(profiler.daemon.try_wait().unwrap().is_none(), "{}", profiler.log());
            let socket = profiler.folder.path().join("it.sock");
            socket.exists() && command(profiler.folder.path(), &["status"]).output().unwrap().status.success()
        });
        profiler
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("it.log")).unwrap_or_default()
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = command(self.folder.path(), arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?} {}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let answer = self.ask(&[arguments, &["--json"]].concat());
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// The bytes of all stacks of a thread, within the range that is looked at.
    fn bytes(&self, more: &[&str]) -> u64 {
        let samples = self.json(&[&["thread", "samples"], more].concat());
        assert_eq!(samples["weightType"], "bytes", "{samples}");
        samples["categoryBreakdown"]["totalSamples"].as_u64().unwrap_or_else(|| panic!("{samples}"))
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn command(sessions: &Path, arguments: &[&str]) -> Command {
    let mut node = Command::new("node");
    node.arg(readers::folder().join("node_modules/@firefox-devtools/profiler-cli/dist/profiler-cli.js"));
    node.args(arguments).args(["--session", "it"]).env("PROFILER_CLI_SESSION_DIR", sessions);
    node
}

/// Each question costs a start of node: the estimates are asked for their sum only.
fn totals() {
    let [exact, sampled] = observed();
    for observed in [sampled, exact] {
        let profiler = Profiler::load(&observed.file(Format::Firefox));
        profiler.ask(&["strategy", "native-retained-allocations"]);
        assert_eq!(profiler.bytes(&[]), observed.totals().inuse_space);
        if observed.sample_interval.is_some() {
            continue;
        }
        let tree = profiler.ask(&["thread", "samples-top-down"]);
        for name in ["red (calls.c:", "green (calls.c:", "main (calls.c:"] {
            assert!(tree.contains(name), "{name}: {tree}");
        }
        let counters = profiler.ask(&["counter", "info", "c-0"]);
        assert!(counters.contains("Category: Memory") && counters.contains("Unit: bytes"), "{counters}");
        let markers = profiler.ask(&["thread", "markers", "--list"]);
        assert!(markers.contains("half: ") && markers.contains("peak"), "{markers}");
    }
}

/// The births that JSON tells, before the middle of the observation, are the bytes that the profiler finds there.
fn a_range() {
    let [observed, _] = observed();
    let report: Value = serde_json::from_slice(&fs::read(observed.file(Format::Json)).unwrap()).unwrap();
    let file: Value = serde_json::from_slice(&fs::read(observed.file(Format::Firefox)).unwrap()).unwrap();
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
    assert_eq!(profiler.bytes(&[]), before);
}

/// A thread for each of DHAT's numbers of bytes: all, the most of each site, at the peak, at the end.
fn reads_dhat() {
    let [observed, _] = observed();
    let profiler = Profiler::load(&observed.file(Format::Dhat));
    let totals = observed.totals();
    let peak = observed.report.peak.as_ref().unwrap().held;
    for (thread, bytes) in
        [("t-0", totals.alloc_space), ("t-2", peak.inuse_space), ("t-3", totals.inuse_space)]
    {
        assert_eq!(profiler.bytes(&["--thread", thread]), bytes, "{thread}");
    }
}
