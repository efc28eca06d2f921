//! A process whose main thread has left while others go on: `/proc/PID` shows nothing of its memory any more, and the
//! kernel's filters of probes take it for a process without memory.

use std::{
    fs,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::support::{
    case::{Case, case, methods},
    fixture,
    heapscope::{Heapscope, heapscope},
    program::Program,
    report::{Site, Totals},
};

pub(crate) const CASES: &[Case] = &[
    case("leaderless::the_account_goes_on", the_account_goes_on),
    case("leaderless::attach_is_refused", attach_is_refused),
    case("leaderless::exec_is_followed_by_run", exec_is_followed_by_run),
];

/// A C library of its own: whenever another test takes its probes out of the common one, the kernel takes those of a
/// process without main thread along.
fn own_c_library() -> TempDir {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps
        .lines()
        .find_map(|line| Some(line.get(line.find('/')?..)?).filter(|path| path.ends_with("/libc.so.6")));
    let folder = TempDir::new().unwrap();
    fs::copy(path.unwrap(), folder.path().join("libc.so.6")).unwrap();
    folder
}

/// The main thread of this fixture leaves at once, so it cannot be attached to; `run` can watch it.
fn run_leaderless(options: &[&str], library: &TempDir) -> Heapscope {
    let mut command = heapscope(&["run", "-o", "report.json"]);
    command.args(options).arg("--").arg(fixture::build("leaderless.c", &[]));
    let mut heapscope =
        Heapscope::start_with(command.env("LD_LIBRARY_PATH", library.path()).stdin(Stdio::piped()));
    heapscope.hear("attached");
    assert_eq!(heapscope.hear_output(), "ready");
    heapscope
}

/// Waits until heapscope has seen mappings that `/proc/PID` does not show any more.
fn known(heapscope: &Heapscope) {
    heapscope.catch_up(|mark| {
        heapscope.write(&format!("map {}\n", mark.display()));
        assert_eq!(heapscope.hear_output(), "mapped");
    });
}

fn the_account_goes_on() {
    for method in methods() {
        let library = own_c_library();
        let mut heapscope = run_leaderless(&["--probes", method], &library);
        let allocate = |size: u64| {
            heapscope.write(&format!("malloc {size}\n"));
            assert_eq!(heapscope.hear_output(), "block");
        };
        known(&heapscope);
        allocate(1000);
        // The thread through which the mappings are seen goes as well.
        heapscope.write("leave\n");
        assert_eq!(heapscope.hear_output(), "ready");
        known(&heapscope);
        allocate(3000);
        heapscope.close_input();
        let report = heapscope.report();
        report.assert_nothing_lost();
        let warnings = &report.quality.warnings;
        assert!(warnings.iter().any(|warning| warning.contains("main thread has ended")), "{warnings:?}");
        // By perf the probes are gone with the main thread, of which the warning speaks.
        if method == "perf" {
            continue;
        }
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let mut both = Totals::default();
        both.allocated(1000);
        both.allocated(3000);
        assert_eq!(report.below("alone"), both, "{method}: {report:#?}");
        assert!(report.sites.iter().filter(|site| site.has("alone")).all(Site::is_whole), "{method}");
    }
}

fn attach_is_refused() {
    let mut program = Program::start_until(&mut Command::new(fixture::build("leaderless.c", &[])), "ready");
    let outcome = Heapscope::start(&mut heapscope(&["attach", &program.pid().to_string()])).finish();
    assert_ne!(outcome.status, 0);
    assert!(outcome.errors.contains("has ended"), "{}", outcome.errors);
    assert_eq!(program.ask("malloc 10"), "block");
}

fn exec_is_followed_by_run() {
    let library = own_c_library();
    let mut heapscope = run_leaderless(&[], &library);
    heapscope.write(&format!("malloc 1000\nexec {}\n", fixture::calls().display()));
    assert_eq!((heapscope.hear_output(), heapscope.hear_output()), ("block".into(), "ready".into()));
    heapscope.hear("attached");
    heapscope.write("red malloc 1 100\nexit 4\n");
    assert_eq!(heapscope.hear_output(), "block");
    let outcome = heapscope.finish();
    assert_eq!(outcome.status, 4, "{}", outcome.errors);
    let report = outcome.report.unwrap();
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    let mut once = Totals::default();
    once.allocated(100);
    assert_eq!((report.below("red"), report.totals), (once, once));
    let warnings = &report.quality.warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains("after its main thread had ended")),
        "{warnings:?}"
    );
}
