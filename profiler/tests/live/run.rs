//! `heapscope run`: unnoticed by the program and by whoever started it.

use std::{fs, process::Stdio};

use crate::support::{
    case::{Case, case},
    fixture,
    heapscope::{Heapscope, Outcome, heapscope},
    report::Totals,
};

pub(crate) const CASES: &[Case] = &[
    case("run::the_exit_status_passes_through", the_exit_status_passes_through),
    case("run::standard_streams_pass_through", standard_streams_pass_through),
    case("run::what_cannot_be_started", what_cannot_be_started),
    case("run::the_first_allocation_is_counted", the_first_allocation_is_counted),
    case("run::the_last_image_is_accounted_for", the_last_image_is_accounted_for),
    case("run::everything_is_named_after_the_end", everything_is_named_after_the_end),
    case("run::the_program_outlives_the_watching", the_program_outlives_the_watching),
];

/// Runs a program under heapscope with this input, to its end.
fn run(words: &[&str], input: &str) -> Outcome {
    let mut heapscope = Heapscope::start_with(
        heapscope(&["run", "-o", "report.json", "--"]).args(words).stdin(Stdio::piped()),
    );
    heapscope.write(input);
    heapscope.close_input();
    heapscope.finish()
}

fn the_exit_status_passes_through() {
    for (script, status) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("ulimit -c 0; kill -SEGV $$", 128 + 11),
        ("kill -KILL $$", 128 + 9),
    ] {
        let outcome = run(&["sh", "-c", script], "");
        assert_eq!(outcome.status, status, "{script}: {}", outcome.errors);
        let report = outcome.report.unwrap();
        report.assert_nothing_lost();
        assert!(report.totals.alloc_objects > 0, "{script}");
    }
}

fn standard_streams_pass_through() {
    let outcome = run(&["sh", "-c", "cat; printf 'no line end'; echo complaint >&2"], "one\ntwo\n");
    assert_eq!(outcome.output, "one\ntwo\nno line end");
    assert_eq!(outcome.status, 0);
    assert!(outcome.errors.contains("complaint\n"));
    // What is ours is on the other side.
    assert!(outcome.errors.contains("attached to sh"), "{}", outcome.errors);
    assert!(outcome.errors.contains("wrote report.json"), "{}", outcome.errors);
}

fn what_cannot_be_started() {
    for (word, status, complaint) in [
        ("heapscope-no-such-command", 127, "not found"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/", 126, ""),
    ] {
        let outcome = run(&[word], "");
        assert_eq!(outcome.status, status, "{}", outcome.errors);
        assert!(outcome.errors.contains(word) && outcome.errors.contains(complaint), "{}", outcome.errors);
        assert_eq!(outcome.output, "");
    }
}

fn the_first_allocation_is_counted() {
    let program = fixture::build("constructor.c", &[]);
    let outcome = run(&[program.to_str().unwrap()], "");
    assert_eq!(outcome.status, 0);
    let report = outcome.report.unwrap();
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    let expected = Totals { inuse_space: 12345, inuse_objects: 1, alloc_space: 12345, alloc_objects: 1 };
    assert_eq!(report.totals, expected);
    assert_eq!(report.sites[0].functions()[0], "early");
}

fn the_last_image_is_accounted_for() {
    let program = fixture::calls();
    let script = format!("true; exec {}", program.display());
    let outcome = run(&["sh", "-c", &script], "red malloc 1 100\nblue malloc 2 200\nfree 1\nexit 5\n");
    assert_eq!(outcome.output, "ready\nblock\nblock\ndone\n");
    assert_eq!(outcome.status, 5);
    let report = outcome.report.unwrap();
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    assert_eq!(report.target.exe, program.display().to_string());
    // Nothing of the shell's.
    let expected = Totals { inuse_space: 200, inuse_objects: 1, alloc_space: 300, alloc_objects: 2 };
    assert_eq!(report.totals, expected);
    assert!(report.sites.iter().all(|site| site.has("red") || site.has("blue")));
}

fn everything_is_named_after_the_end() {
    // Neither the process nor its file is there any more when the report is made.
    let folder = tempfile::TempDir::new().unwrap();
    let program = folder.path().join("short-lived");
    fs::copy(fixture::calls(), &program).unwrap();
    let script = "exec 3<\"$0\"; rm \"$0\"; exec /proc/self/fd/3";
    let outcome = run(&["sh", "-c", script, program.to_str().unwrap()], "blue malloc 1 100\n");
    assert_eq!(outcome.status, 0, "{}", outcome.errors);
    assert!(!program.exists());
    let report = outcome.report.unwrap();
    report.assert_stacks_whole();
    let functions = report.sites[0].functions();
    assert_eq!(functions[..4], ["chosen", "call", "green", "blue"]);
    assert_eq!(
        report.sites[0].stack[0].file.as_deref().and_then(|file| file.rsplit('/').next()),
        Some("calls.c")
    );
}

fn the_program_outlives_the_watching() {
    let program = fixture::calls();
    let mut heapscope = Heapscope::start_with(
        heapscope(&["run", "-d", "1s", "-o", "report.json", "--"]).arg(&program).stdin(Stdio::piped()),
    );
    heapscope.hear("attached");
    heapscope.write("red malloc 1 100\n");
    assert_eq!((heapscope.hear_output(), heapscope.hear_output()), ("ready".into(), "block".into()));
    heapscope.hear("wrote");
    heapscope.write("red malloc 2 100\nexit 7\n");
    assert_eq!(heapscope.hear_output(), "block");
    let outcome = heapscope.finish();
    assert_eq!(outcome.status, 7);
    assert_eq!(outcome.report.unwrap().totals.alloc_objects, 1);
}
