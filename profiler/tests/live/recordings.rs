//! Recordings of real processes: what is in them is what the reports of the same run say, whatever ended heapscope; and what
//! Python's own tracemalloc says.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    case::{Case, case, case_with},
    fixture,
    heapscope::{Heapscope, heapscope},
    needs::Need,
    program::{Program, send},
    until,
};

pub(crate) const CASES: &[Case] = &[
    case("recordings::every_report_again", every_report_again),
    case("recordings::what_is_left_by_sigkill", what_is_left_by_sigkill),
    case_with(
        "recordings::the_same_as_tracemalloc",
        &[Need::Program("/usr/bin/python3")],
        the_same_as_tracemalloc,
    ),
];

/// What `report` or `diff` prints.
fn ask(arguments: &[&str]) -> String {
    let output = heapscope(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn moments() -> Program {
    Program::start_until(&mut Command::new(fixture::build("moments.c", &["-pthread"])), "ready")
}

fn order(program: &mut Program, order: &str) {
    assert_eq!(program.ask(order), "done", "{order}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Without what depends on when a snapshot was taken.
fn lasting(json: &str) -> Value {
    let mut json: Value = serde_json::from_str(json).unwrap();
    let object = json.as_object_mut().unwrap();
    object.remove("snapshots");
    for site in object["sites"].as_array_mut().unwrap() {
        site.as_object_mut().unwrap().remove("over_time");
    }
    json
}

/// That the recording says what the JSON of the same run says.
pub(crate) fn assert_says(recording: &Path, json: &Path) {
    let live = lasting(&std::fs::read_to_string(json).unwrap());
    assert_eq!(lasting(&ask(&["report", text(recording), "--format", "json"])), live);
}

fn every_report_again() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("leak.hscope");
    let [json, folded] = ["leak.json", "leak.folded"].map(|name| folder.path().join(name));
    let mut program = moments();
    let outputs = ["-o", text(&file), "-o", text(&json), "-o", text(&folded), "--mmap"];
    let mut heapscope = Heapscope::attach(program.pid(), &outputs);
    order(&mut program, "leak 10 1000");
    send(heapscope.pid(), Signal::USR1);
    heapscope.hear("marked");
    until("the mark's snapshot is in the file", || {
        heapscope_says(&["report", text(&file), "--at", "mark:1"]).is_some()
    });
    order(&mut program, "bulk 50 5000");
    order(&mut program, "thread worker 20 300");
    order(&mut program, "temporary 7 64");
    heapscope.stop();

    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    let live = lasting(&read(&json));
    assert_says(&file, &json);
    assert!(live["totals"]["inuse_space"].as_u64() >= Some(16_000), "{live}");
    assert_eq!(ask(&["report", text(&file), "--format", "folded"]), read(&folded));
    let number = |arguments: &[&str], pointer: &str| {
        let json = ask(&[&["report", text(&file), "--format", "json"], arguments].concat());
        serde_json::from_str::<Value>(&json).unwrap().pointer(pointer).unwrap().as_u64().unwrap()
    };
    assert_eq!(
        number(&["--at", "peak"], "/totals/inuse_space"),
        live["peak"]["inuse_space"].as_u64().unwrap()
    );
    assert_eq!(
        number(&["--at", "mark:1"], "/totals/inuse_objects"),
        10,
        "the mark, when only so much was there"
    );
    assert_eq!(number(&["--between", "1", "end", "--focus", "^leak$"], "/totals/inuse_space"), 6000);
    assert_eq!(number(&["--focus", "^bulk$"], "/totals/alloc_objects"), 50);
    assert!(ask(&["report", text(&file), "--by", "thread"]).contains("worker"));
    let grown = ask(&["diff", &format!("{}@mark:1", text(&file)), text(&file), "--by", "function"]);
    assert!(grown.contains(": size=15.6 KiB (+6000 B), count=30 (+20), average=533 B\n"), "{grown}");
    // A recording of the recording says the same, but for what it is a part of.
    let copy = folder.path().join("copy.hscope");
    ask(&["report", text(&file), "-o", text(&copy)]);
    assert_eq!(lasting(&ask(&["report", text(&copy), "--format", "json"])), live);
}

fn what_is_left_by_sigkill() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("leak.hscope");
    let mut program = moments();
    let mut heapscope = Heapscope::attach(program.pid(), &["-o", text(&file)]);
    order(&mut program, "leak 10 1000");
    send(heapscope.pid(), Signal::USR1);
    heapscope.hear("marked");
    until("the mark's snapshot is in the file", || {
        heapscope_says(&["report", text(&file), "--at", "mark:1"]).is_some()
    });
    send(heapscope.pid(), Signal::KILL);
    assert_eq!(heapscope.finish().status, 128 + 9);
    let output = self::heapscope(&["report", text(&file), "--format", "json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json["totals"]["inuse_space"], &json["totals"]["inuse_objects"]),
        (&10_000.into(), &10.into())
    );
    assert_eq!(json["sites"][0]["stack"][0]["function"], "leak");
    let warning = json["quality"]["warnings"].as_array().unwrap().iter();
    assert!(warning.clone().any(|said| said.as_str().unwrap().contains("has no end")), "{json}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no end"));
}

fn heapscope_says(arguments: &[&str]) -> Option<String> {
    let output = heapscope(arguments).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[derive(Deserialize)]
struct Told {
    line: Vec<String>,
    file: Vec<String>,
    changes: Vec<String>,
}

/// The same program, once with tracemalloc in it and once with heapscope beside it; small objects come from malloc in both,
/// for tracemalloc sees them and heapscope does not see pymalloc's pools.
fn the_same_as_tracemalloc() {
    let source = fixture::source("traced.py");
    let start = |arguments: &[&str]| {
        let mut python = Command::new("/usr/bin/python3");
        python.arg(&source).args(arguments).env("PYTHONMALLOC", "malloc").env("PYTHONDONTWRITEBYTECODE", "1");
        Program::start_until(&mut python, "ready")
    };
    let mut traced = start(&["traced"]);
    let told = ["grow", "change"].map(|what| {
        order(&mut traced, what);
        serde_json::from_str::<Told>(&traced.ask("snapshot")).unwrap()
    });

    let folder = TempDir::new().unwrap();
    let file = folder.path().join("python.hscope");
    let mut watched = start(&[]);
    let mut heapscope = Heapscope::attach(watched.pid(), &["-o", text(&file)]);
    order(&mut watched, "grow");
    send(heapscope.pid(), Signal::USR1);
    heapscope.hear("marked");
    until("the mark's snapshot is in the file", || {
        heapscope_says(&["report", text(&file), "--at", "mark:1"]).is_some()
    });
    order(&mut watched, "change");
    heapscope.stop();

    let lines = |arguments: &[&str]| {
        let only = ["--include", "*/traced_work.py", "--top", "100"];
        let printed = ask(&[arguments, &only].concat());
        let lines =
            printed.lines().filter(|line| line.contains("traced_work.py:") && line.contains(": size="));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let file = text(&file);
    let [grown, changed] = told;
    assert_eq!(lines(&["report", file, "--by", "line", "--at", "mark:1"]), grown.line);
    assert_eq!(lines(&["report", file, "--by", "line"]), changed.line);
    assert_eq!(lines(&["report", file, "--by", "file"]), changed.file);
    assert_eq!(lines(&["diff", &format!("{file}@mark:1"), file]), changed.changes);
}
