//! `--budget`: what is recorded follows the load, and what the report says of it is true. No test here asserts what anything
//! costs; `cargo xtask bench budget` measures that.

use std::process::{Command, Stdio};

use crate::recordings;
use crate::support::{
    case::{Case, case, methods},
    fixture,
    heapscope::{Heapscope, Outcome, as_users_run_it},
    program::{Program, send},
    report::Report,
};
use rustix::process::Signal;
use tempfile::TempDir;

pub(crate) const CASES: &[Case] = &[
    case("budget::an_idle_process_is_recorded_block_by_block", an_idle_process),
    case("budget::a_load_that_grows_is_recorded_less_and_stays_true", a_load_that_grows),
    case("budget::windows_call_no_block_live", windows_call_no_block_live),
    case("budget::every_block_or_nothing", every_block_or_nothing),
    case("budget::a_short_program_that_is_started_is_exact", a_short_program_that_is_started),
    case("budget::a_long_program_that_is_started_is_seen_in_part", a_long_program_that_is_started),
    case("budget::a_program_is_started_for_every_block", a_program_for_every_block),
];

struct Load(Program);

impl Load {
    fn start() -> Self {
        Self(Program::start_until(&mut Command::new(fixture::build("load.c", &["-fno-builtin"])), "ready"))
    }

    /// Gives an order; what has been done by then: blocks, bytes, kept blocks, kept bytes.
    fn order(&mut self, line: &str) -> [u64; 4] {
        let answer = self.0.ask(line);
        let mut numbers = answer.split(' ').map(|number| number.parse().unwrap());
        std::array::from_fn(|_| numbers.next().unwrap())
    }
}

fn recorded(report: &Report) -> Vec<&str> {
    report.mode.recorded.iter().map(|step| step.sampling.as_str()).collect()
}

fn an_idle_process() {
    let mut load = Load::start();
    load.order("100000000 0");
    let heapscope = Heapscope::attach(load.0.pid(), &["--budget", "10%"]);
    load.order("100000000 0");
    let report = heapscope.stop();
    report.assert_nothing_lost();
    assert_eq!(recorded(&report), ["exact"]);
    assert_eq!(report.mode.sampling, "exact");
    assert!(report.mode.budget_percent.is_some_and(|percent| (percent - 10.0).abs() < 1e-9));
    assert!(report.standard_errors.is_none());
}

/// From nearly nothing, which is recorded block by block, to a load that no budget allows: heapscope says so, and what it
/// says of kept blocks holds the truth.
fn a_load_that_grows() {
    for method in methods().filter(|method| *method != "perf") {
        let mut load = Load::start();
        load.order("100000000 10");
        let mut heapscope = Heapscope::attach(load.0.pid(), &["--budget", "60%", "--probes", method]);
        let before = load.order("1000 10");
        heapscope.hear("overhead");
        let after = load.order("stop");
        let report = heapscope.stop();
        report.assert_nothing_lost();
        let steps = recorded(&report);
        assert!(steps[0] == "exact" && steps.len() > 1, "{steps:?}");
        if steps.contains(&"windows") {
            continue;
        }
        let error = report.standard_errors.unwrap().inuse_space;
        let kept = after[3] - before[3];
        let live = report.totals.inuse_space;
        // Of what was kept since the last step down there may be no sample at all, and then no error either.
        let unseen = 6 * report.mode.sample_interval.unwrap_or(0);
        let allowed = 6 * error + unseen + 4096;
        assert!(live.abs_diff(kept) <= allowed, "{method}: {live} ± {error}, and not {kept}");
    }
}

/// The program frees all that it kept between windows or in them: nothing may be called live.
fn windows_call_no_block_live() {
    let mut load = Load::start();
    load.order("50 100");
    let folder = TempDir::new().unwrap();
    let [recording, json] = ["windows.hscope", "windows.json"].map(|name| folder.path().join(name));
    let [to_recording, to_json] = [&recording, &json].map(|path| path.to_str().unwrap());
    let options = ["--budget", "3%", "--interval", "200ms", "-o", to_recording, "-o", to_json];
    let heapscope = Heapscope::attach(load.0.pid(), &options);
    // Tables come while it watches; one that tells of a window ends the wait.
    loop {
        let line = heapscope.hear_output();
        if line.contains("kept of")
            && !line.contains("kept of 0 windows")
            && !line.contains("kept of 1 window ")
        {
            break;
        }
    }
    load.order("50 100");
    let done = load.order("stop");
    send(heapscope.pid(), Signal::INT);
    let outcome = heapscope.finish();
    let report = outcome.report.unwrap();
    report.assert_nothing_lost();
    recordings::assert_says(&recording, &json);
    assert!(
        outcome.output.contains("kept/s") && outcome.output.contains("Live memory is not known"),
        "{}",
        outcome.output
    );
    assert_eq!(report.mode.sampling, "windows");
    // What was kept in windows is a part of what was kept at all, and is not called live unless the last one was open.
    let windows = report.windows.as_ref().unwrap();
    let kept = windows.kept.space;
    assert!(windows.count >= 2, "{windows:?}");
    // The thread may have had one block in hand.
    assert!(kept <= done[3] && report.totals.inuse_space <= done[3] + 256, "{kept} of {done:?}");
    assert!(report.totals.alloc_space > 0 && report.peak.is_none());
    for site in &report.sites {
        let function = site.functions().into_iter().find(|name| ["hoard", "churn"].contains(name));
        assert!(function.is_some(), "{:?}", site.functions());
    }
}

/// Every block was asked for, at a cost that no process bears: heapscope lets go, with words, and what it saw is exact.
fn every_block_or_nothing() {
    let mut load = Load::start();
    load.order("50 1000");
    let heapscope = Heapscope::attach(load.0.pid(), &["--exact", "--budget", "1%"]);
    let outcome = heapscope.finish();
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    let report = outcome.report.unwrap();
    assert_eq!(recorded(&report), ["exact"]);
    let said = report.quality.warnings.iter().any(|warning| warning.contains("could not be kept"));
    assert!(said, "{:?}", report.quality.warnings);
    assert!(load.0.is_alive());
}

/// The same program, started by heapscope.
struct Started(Heapscope);

impl Started {
    fn with(options: &[&str]) -> Self {
        let mut command = as_users_run_it(&["run", "-o", "report.json"]);
        command.args(options).arg("--").arg(fixture::build("load.c", &["-fno-builtin"]));
        let mut heapscope = Heapscope::start_with(command.stdin(Stdio::piped()));
        heapscope.hear("attached");
        assert_eq!(heapscope.hear_output(), "ready");
        Self(heapscope)
    }

    /// Gives an order; what has been done by then: blocks, bytes, kept blocks, kept bytes.
    fn order(&self, line: &str) -> [u64; 4] {
        self.0.write(&format!("{line}\n"));
        let answer = self.0.hear_output();
        let mut numbers = answer.split(' ').map(|number| number.parse().unwrap());
        std::array::from_fn(|_| numbers.next().unwrap())
    }

    /// Gives an order, until there are so many blocks.
    fn order_until(&self, line: &str, blocks: u64) {
        while self.order(line)[0] < blocks {
            std::thread::yield_now();
        }
    }

    fn end(mut self) -> (Report, Outcome) {
        self.0.close_input();
        let mut outcome = self.0.finish();
        let report = outcome.report.take().expect("no report was written");
        report.assert_nothing_lost();
        (report, outcome)
    }
}

/// Blocks of the worker's own functions, and their bytes: allocated, and live.
fn of_the_worker(report: &Report) -> [u64; 4] {
    let sites = report.sites.iter().filter(|site| site.has("work"));
    sites.fold([0; 4], |[blocks, bytes, live_blocks, live_bytes], site| {
        let totals = &site.totals;
        [
            blocks + totals.alloc_objects,
            bytes + totals.alloc_space,
            live_blocks + totals.inuse_objects,
            live_bytes + totals.inuse_space,
        ]
    })
}

/// What a budget allows in advance is enough for a program that ends soon: nothing is estimated, from the first block on.
fn a_short_program_that_is_started() {
    let started = Started::with(&[]);
    started.order_until("1000 10", 5_000);
    let done = started.order("stop");
    let (report, outcome) = started.end();
    assert_eq!(of_the_worker(&report), done);
    assert_eq!((recorded(&report), report.mode.sampling.as_str()), (vec!["exact"], "exact"));
    assert!(report.mode.budget_percent.is_some() && report.standard_errors.is_none());
    assert!(outcome.errors.contains(", exact\n"), "{}", outcome.errors);
    assert!(!outcome.errors.contains("--exact"), "{}", outcome.errors);
}

/// One that goes on and does little else is recorded block by block as long as the credit lasts, and seen in part from then
/// on; the report says so, and how all of it can be had.
fn a_long_program_that_is_started() {
    let mut started = Started::with(&[]);
    started.order("0 10");
    started.0.hear("overhead");
    let done = started.order("stop");
    let (report, outcome) = started.end();
    let steps = recorded(&report);
    assert!(steps[0] == "exact" && steps.len() > 1, "{steps:?}");
    assert_ne!(report.mode.sampling, "exact");
    assert!(report.totals.alloc_objects > 0 && done[0] > 0);
    assert!(report.sites.iter().any(|site| site.has("hoard")), "{}", outcome.errors);
    let errors = outcome.errors.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["`heapscope run --exact` records every block", "at first every block is recorded, after"] {
        assert!(errors.contains(said), "{said}: {errors}");
    }
}

/// Whatever that costs.
fn a_program_for_every_block() {
    for options in [["--exact"].as_slice(), &["--budget", "off"], &["--at", "exit"], &["-o", "heap.pb.gz"]] {
        let started = Started::with(options);
        started.order_until("0 10", 400_000);
        let done = started.order("stop");
        let (report, outcome) = started.end();
        assert_eq!(recorded(&report), ["exact"], "{options:?}");
        assert_eq!(of_the_worker(&report), done, "{options:?}: {}", outcome.errors);
        assert_eq!(report.mode.budget_percent, None);
    }
}
