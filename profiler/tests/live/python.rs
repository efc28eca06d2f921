//! Python frames beside what the interpreter itself says of them.
//!
//! `HEAPSCOPE_PYTHONS` names more interpreters than the system's own, separated by colons.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use heapscope::target::{
    address::Svma,
    module::{Content, Module},
    python::Interpreter,
};
use object::{Object, ObjectSymbol};
use rustix::process::Signal;

use crate::support::{
    case::{Case, case_with, methods},
    fixture,
    heapscope::{Heapscope, heapscope},
    needs::Need,
    program::{Program, send},
    report::{Report, Site},
};

const NEEDS: &[Need] = &[Need::Program("/usr/bin/python3")];

pub(crate) const CASES: &[Case] = &[
    case_with("python::stacks_are_those_of_the_interpreter", NEEDS, stacks_are_those_of_the_interpreter),
    case_with("python::an_interpreter_that_begins_while_it_is_watched", NEEDS, begins_while_watched),
    case_with("python::small_objects_too_if_asked_for", NEEDS, small_objects_too_if_asked_for),
    case_with("python::code_that_is_gone_has_no_other_name", NEEDS, code_that_is_gone_has_no_other_name),
    case_with("python::as_py_spy_has_them", &[Need::Program("py-spy")], as_py_spy_has_them),
    case_with("python::below_extensions", &[Need::PythonPackages], below_extensions),
    case_with("python::parts_of_the_loop_that_were_moved_away", &[Need::Program("strip")], moved_parts),
];

/// Stacks that `everything` of the program tells.
const EVERYTHING: usize = 17;

/// Sizes with the stacks of the blocks, innermost frame first: function, file, line.
type Told = Vec<(u64, Vec<(String, String, u32)>)>;

pub(crate) fn interpreters() -> Vec<String> {
    let others = std::env::var("HEAPSCOPE_PYTHONS").unwrap_or_default();
    let others = others.split(':').filter(|path| !path.is_empty()).map(str::to_owned);
    std::iter::once("/usr/bin/python3".to_owned()).chain(others).collect()
}

fn profiled(interpreter: &str, what: &str, probes: &str) -> (Report, Told) {
    let mut python =
        Program::start_until(Command::new(interpreter).arg(fixture::source("python_lines.py")), "ready");
    let heapscope = Heapscope::attach(python.pid(), &["--probes", probes]);
    let told = serde_json::from_str(&python.ask(what)).unwrap();
    let report = heapscope.stop();
    (report, told)
}

/// The sites of one block each, as `totals` tells, by its size: a bytearray has a byte behind its own.
fn by_size(report: &Report, totals: impl Fn(&Site) -> (u64, u64)) -> HashMap<u64, Vec<&Site>> {
    let mut sites: HashMap<u64, Vec<&Site>> = HashMap::new();
    for site in &report.sites {
        if let (1, size) = totals(site) {
            sites.entry(size - 1).or_default().push(site);
        }
    }
    sites
}

fn live(site: &Site) -> (u64, u64) {
    (site.totals.inuse_objects, site.totals.inuse_space)
}

fn stacks_are_those_of_the_interpreter() {
    for (interpreter, probes) in interpreters().iter().flat_map(|i| methods().map(move |p| (i, p))) {
        let (report, told) = profiled(interpreter, "everything", probes);
        report.assert_nothing_lost();
        assert_eq!(told.len(), EVERYTHING, "{interpreter}");
        assert_agrees(&report, &told, &format!("{interpreter} {probes}"), live);
        let said = &report.quality.warnings;
        assert!(!said.iter().any(|warning| warning.contains("do not match")), "{said:?}");
    }
}

fn assert_agrees(report: &Report, told: &Told, which: &str, totals: impl Fn(&Site) -> (u64, u64)) {
    let sites = by_size(report, totals);
    for (size, stack) in told {
        let found = sites.get(size).map_or(&[][..], Vec::as_slice);
        let agrees = found.iter().any(|site| site.python() == *stack);
        assert!(agrees, "{which}, {size}: {stack:#?} but {found:#?}");
    }
}

/// py-spy stops the program where it has just kept a block, and looks.
fn as_py_spy_has_them() {
    for interpreter in interpreters() {
        let mut command = Command::new(&interpreter);
        let mut python = Program::start_until(
            command.arg(fixture::source("python_lines.py")).stderr(Stdio::null()),
            "ready",
        );
        let heapscope = Heapscope::attach(python.pid(), &[]);
        let mut seen: Told = Vec::new();
        python.say("pause");
        loop {
            let line = python.hear();
            let Some(size) = line.strip_prefix("paused ") else { break };
            seen.push((size.parse().unwrap(), py_spy(python.pid())));
            python.say("go");
        }
        let report = heapscope.stop();
        // One of them comes twice.
        assert!(seen.len() >= EVERYTHING, "{interpreter}: {}", seen.len());
        assert_agrees(&report, &seen, &format!("{interpreter}, py-spy"), live);
        let frames: usize = seen.iter().map(|(_, frames)| frames.len()).sum();
        println!("{interpreter}: {} stacks, {frames} frames as py-spy has them", seen.len());
    }
}

/// The frames of the thread that waits in `told`, without that one.
fn py_spy(pid: u32) -> Vec<(String, String, u32)> {
    let output = Command::new("py-spy").args(["dump", "--json", "--pid", &pid.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let threads: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let frames = threads.as_array().unwrap().iter().find_map(|thread| {
        let frames = thread["frames"].as_array().unwrap();
        let told = frames.iter().position(|frame| frame["name"] == "told")?;
        Some(frames[told + 1..].to_vec())
    });
    let text = |frame: &serde_json::Value, name: &str| frame[name].as_str().unwrap().to_owned();
    let line = |frame: &serde_json::Value| u32::try_from(frame["line"].as_u64().unwrap()).unwrap();
    // From 3.11 on its names are qualified.
    let name = |frame| text(frame, "name").rsplit('.').next().unwrap_or_default().to_owned();
    let frames = frames.unwrap();
    frames.iter().map(|frame| (name(frame), text(frame, "filename"), line(frame))).collect()
}

/// Rust's PyO3, Cython, and numpy call back into Python, or allocate themselves. `HEAPSCOPE_PYTHON_PACKAGES` is an
/// interpreter that has them.
fn below_extensions() {
    let interpreter = std::env::var("HEAPSCOPE_PYTHON_PACKAGES").unwrap();
    let mut command = Command::new(&interpreter);
    let mut python = Program::start_until(command.arg(fixture::source("python_extensions.py")), "ready");
    let heapscope = Heapscope::attach(python.pid(), &[]);
    let told: Told = serde_json::from_str(&python.ask("everything")).unwrap();
    let report = heapscope.stop();
    report.assert_nothing_lost();
    assert_eq!(told.len(), 8, "{interpreter}");
    assert_agrees(&report, &told, &interpreter, live);
    println!("{interpreter}: {} stacks equal, {:.2}% whole", told.len(), report.complete_share() * 100.0);
    assert!(report.complete_share() >= 0.995, "{:?}", report.quality.incomplete_stacks);
}

fn begins_while_watched() {
    let mut command = heapscope(&["run", "-o", "report.json", "--", "/usr/bin/python3"]);
    let mut heapscope =
        Heapscope::start_with(command.arg(fixture::source("python_lines.py")).stdin(Stdio::piped()));
    heapscope.hear("attached");
    assert_eq!(heapscope.hear_output(), "ready");
    // Between two marks heapscope looks whether the interpreter is there, and what the new stacks are.
    let look = |heapscope: &mut Heapscope| {
        for _ in 0..2 {
            send(heapscope.pid(), Signal::USR1);
            heapscope.hear("marked");
        }
    };
    look(&mut heapscope);
    heapscope.write("everything\n");
    let told: Told = serde_json::from_str(&heapscope.hear_output()).unwrap();
    look(&mut heapscope);
    heapscope.close_input();
    let report = heapscope.report();
    assert_eq!(told.len(), EVERYTHING);
    // The cold parts of the interpreter's loop, which imports go through, are known as such.
    assert!(!report.quality.warnings.iter().any(|warning| warning.contains("do not match")));
    // It has ended since, and freed them all.
    assert_agrees(&report, &told, "run", |site| (site.totals.alloc_objects, site.totals.alloc_space));
}

/// A thousand objects of 400 bytes: pymalloc's, unless malloc is asked for them. What a program was started with else is
/// its own affair.
fn small_objects_too_if_asked_for() {
    let program = "import os\nassert os.environ['KEPT'] == 'a b'\n\
                   def small():\n    return [bytes(367) for n in range(1000)]\n\
                   kept = small()\nos._exit(len(kept) % 256)";
    for (options, all) in [(&["--python-all"][..], true), (&[], false)] {
        let mut command = heapscope(&["run", "-o", "report.json"]);
        command.args(options).args(["--", "/usr/bin/python3", "-c", program]);
        let outcome = Heapscope::start(command.env("KEPT", "a b").env("PYTHONMALLOC", "pymalloc")).finish();
        assert_eq!(outcome.status, 1000 % 256, "{}", outcome.errors);
        let report = outcome.report.expect("no report was written");
        report.assert_nothing_lost();
        // `bytes` has 33 bytes of its own. The interpreter itself has a few objects of that size.
        let of_that_size = report.sum(|site| site.totals.inuse_space == site.totals.inuse_objects * 400);
        assert_eq!(of_that_size.inuse_objects >= 1000, all, "{options:?}: {of_that_size:?}");
    }
}

fn code_that_is_gone_has_no_other_name() {
    for interpreter in interpreters() {
        let (report, told) = profiled(&interpreter, "churn", "session");
        report.assert_nothing_lost();
        let sites = by_size(&report, live);
        let (mut right, mut gone) = (0, 0);
        for (size, stack) in &told {
            let found = sites.get(size).map_or(&[][..], Vec::as_slice);
            let found: Vec<_> = found.iter().map(|site| site.python()).filter(|f| !f.is_empty()).collect();
            let [found] = found.as_slice() else { continue };
            assert_eq!(found.len(), stack.len(), "{interpreter}: {found:#?}");
            for (found, told) in found.iter().zip(stack) {
                let is_gone = found.0 == "[Python function that is gone]";
                assert!(is_gone || found == told, "{interpreter}: {found:?} for {told:?}");
                *(if is_gone { &mut gone } else { &mut right }) += 1;
            }
        }
        assert_eq!(told.len(), 500, "{interpreter}");
        println!("{interpreter}: {right} frames right, {gone} gone");
        assert!(right >= 2400 && gone * 200 < right, "{interpreter}: {right} right, {gone} gone");
        let says_so = report.quality.warnings.iter().any(|warning| warning.contains("code was gone"));
        assert_eq!(gone > 0, says_so, "{:?}", report.quality.warnings);
    }
}

/// A stripped file does not name them; the file before it was stripped does.
fn moved_parts() {
    let whole = fixture::build("cold.c", &["-rdynamic"]);
    let stripped = whole.with_extension("stripped");
    let status = Command::new("strip").arg("-o").args([&stripped, &whole]).status().unwrap();
    assert!(status.success());
    let data = fs::read(&whole).unwrap();
    let symbols = object::File::parse(&*data).unwrap();
    let range_of = |name: &str| {
        let symbol = symbols.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
        symbol.address()..symbol.address() + symbol.size()
    };
    let part = range_of("_PyEval_EvalFrameDefault.cold");
    let others = [range_of("rarely"), range_of("main")];
    for file in [&whole, &stripped] {
        let interpreter = Interpreter::find_in(&module(file)).unwrap().unwrap();
        let evaluates = |range: &std::ops::Range<u64>| {
            // Return addresses lie behind their calls.
            range.clone().filter(|at| interpreter.evaluates_at(Svma(at + 1))).count() as u64
        };
        assert_eq!(evaluates(&part), part.end - part.start, "{}", file.display());
        assert_eq!(others.each_ref().map(evaluates), [0, 0], "{}", file.display());
    }
}

fn module(path: &Path) -> Arc<Module> {
    let content = Content::File(File::open(path).unwrap());
    Arc::new(Module::new(path.to_owned(), content, true).unwrap())
}
