//! What `heapscope doctor` says of a process is what `attach` then does.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt,
    process::Command,
};

use serde_json::Value;

use crate::support::{
    case::{Case, case, case_with, methods},
    fixture,
    heapscope::{Heapscope, heapscope},
    needs::Need,
    program::Program,
};

pub(crate) const CASES: &[Case] = &[
    case("doctor::probes_sit_where_it_says", probes_sit_where_it_says),
    case("doctor::a_stopped_process", a_stopped_process),
    case_with("doctor::python_and_its_names", &[Need::Program("python3")], python_and_its_names),
];

/// What it says of a process, with the status that it must have.
fn doctor(pid: u32, status: i32) -> Value {
    let outcome = Heapscope::start(&mut heapscope(&["doctor", &pid.to_string(), "--json"])).finish();
    assert_eq!((outcome.status, outcome.errors.as_str()), (status, ""), "{}", outcome.output);
    serde_json::from_str(&outcome.output).unwrap()
}

/// The verdict on a thing, and what is said of it.
fn check<'a>(part: &'a Value, name: &str) -> (&'a str, &'a str) {
    let checks = part["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no {name}: {part:#}"));
    (check["verdict"].as_str().unwrap(), check["says"].as_str().unwrap())
}

/// Offsets in the file at which a process's code is not the file's.
fn changed(pid: u32, file: &str) -> BTreeSet<u64> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut changed = BTreeSet::new();
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words.len() < 6 || words[1] != "r-xp" || words[5] != file {
            continue;
        }
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = words[0].split_once('-').map(|(start, end)| (hex(start), hex(end))).unwrap();
        let mut there = vec![0; usize::try_from(end - start).unwrap()];
        memory.read_exact_at(&mut there, start).unwrap();
        let (content, offset) = (fs::read(file).unwrap(), hex(words[2]));
        let original = content[usize::try_from(offset).unwrap()..].iter();
        let places = there.iter().zip(original).zip(offset..);
        changed.extend(places.filter(|((a, b), _)| a != b).map(|(_, place)| place));
    }
    changed
}

fn probes_sit_where_it_says() {
    let target = Program::start_until(&mut Command::new(fixture::calls()), "ready");
    let said = doctor(target.pid(), 0);
    assert_eq!((&said["works"], &said["target"]["pid"]), (&Value::from(true), &Value::from(target.pid())));
    assert_eq!(check(&said["machine"], "self-test").0, "ok");
    assert!(said["machine"]["pair_nanoseconds"].as_f64().unwrap() > 0.0, "{said:#}");
    let [allocator] = &said["target"]["allocators"].as_array().unwrap()[..] else { panic!("{said:#}") };
    assert_eq!(allocator["name"], "glibc");
    let file = allocator["file"].as_str().unwrap();
    let functions = allocator["functions"].as_array().unwrap();
    let places: BTreeSet<u64> =
        functions.iter().map(|function| function["place"]["file_offset"].as_u64().unwrap()).collect();
    assert!(functions[0]["name"] == "malloc" && places.len() == functions.len(), "{said:#}");
    assert!(functions.iter().all(|f| !f["place"]["instruction"].as_str().unwrap().is_empty()));
    // It has not touched the process itself.
    assert_eq!(changed(target.pid(), file), BTreeSet::new());
    let heapscope = Heapscope::attach(target.pid(), &[]);
    let probed = changed(target.pid(), file);
    assert!(probed.is_superset(&places), "{places:x?} are not all in {probed:x?}");
    assert_eq!(
        probed.len(),
        places.len() + 1,
        "`exit`, which is no allocator's, alone is probed beside them"
    );
    let report = heapscope.stop();
    assert_eq!(said["machine"]["probes"], report.mode.probes.as_str());
    assert_eq!(Some(report.mode.probes.as_str()), methods().next());
}

fn a_stopped_process() {
    let target = Program::start_until(&mut Command::new(fixture::calls()), "ready");
    crate::support::program::send(target.pid(), rustix::process::Signal::STOP);
    crate::support::until("it is stopped", || crate::support::program::state(target.pid()) == "T");
    let said = doctor(target.pid(), 0);
    let (verdict, says) = check(&said["target"], "state");
    assert_eq!(verdict, "warn", "{says}");
    assert_eq!(crate::support::program::state(target.pid()), "T");
}

fn python_and_its_names() {
    let program = "import sys; print('ready', flush=True); sys.stdin.read()";
    let target = Program::start_until(Command::new("python3").args(["-c", program]), "ready");
    let said = doctor(target.pid(), 0);
    let (verdict, says) = check(&said["target"], "python");
    let version = said["target"]["python"].as_str().unwrap();
    assert!(version.starts_with("3.") && says.starts_with(version), "{verdict}: {says}");
    let files = said["target"]["files"].as_array().unwrap();
    let libc = files.iter().find(|file| file["path"].as_str().unwrap().ends_with("/libc.so.6")).unwrap();
    let [text, described] = ["text_bytes", "described_bytes"].map(|key| libc[key].as_u64().unwrap());
    assert!(described > text / 10 * 9 && text > 1_000_000, "{libc:#}");
}
