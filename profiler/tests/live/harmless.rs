//! The target is left as it was found, however heapscope ends and however often it comes.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    process::Command,
};

use rustix::process::Signal;

use crate::{
    script::Script,
    support::{
        case::{Case, case, methods},
        fixture,
        heapscope::{Heapscope, heapscope},
        program::{Program, send},
        until,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("harmless::killed_in_the_middle", killed_in_the_middle),
    case("harmless::two_at_once", two_at_once),
    case("harmless::round_after_round_on_a_busy_process", round_after_round_on_a_busy_process),
];

/// Bytes of a process's code that are not those of the files that it came from.
fn changed_bytes(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut compared = 0;
    let mut changed = 0;
    for line in maps.lines() {
        // start-end permissions offset device inode path
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words.len() < 6 || words[1] != "r-xp" || !words[5].starts_with('/') {
            continue;
        }
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = words[0].split_once('-').map(|(start, end)| (hex(start), hex(end))).unwrap();
        let length = usize::try_from(end - start).unwrap();
        let (mut there, mut original) = (vec![0; length], vec![0; length]);
        memory.read_exact_at(&mut there, start).unwrap();
        let file = File::open(words[5]).unwrap();
        // The last page may reach beyond the end of the file, where there are zeros.
        let mut read = 0;
        while let Ok(more @ 1..) = file.read_at(&mut original[read..], hex(words[2]) + read as u64) {
            read += more;
        }
        compared += length;
        changed += there.iter().zip(&original).filter(|(there, original)| there != original).count();
    }
    assert!(compared > 100_000, "only {compared} bytes of code were compared");
    changed
}

fn killed_in_the_middle() {
    for method in methods() {
        let mut script = Script::start();
        assert_eq!(changed_bytes(script.pid()), 0);
        let heapscope = Heapscope::attach(script.pid(), &["--probes", method]);
        script.repeat(100, "red", 100, 50);
        // The look works: a probe is a byte that is not the file's.
        assert!(changed_bytes(script.pid()) > 0);
        send(heapscope.pid(), Signal::KILL);
        assert_eq!(heapscope.finish().status, 128 + 9);
        until("the probes are gone", || changed_bytes(script.pid()) == 0);
        script.free_range(100, 100);
        script.orders(&["blue realloc 1 100", "blue realloc 1 100000"]);
        // Whoever comes next finds nothing amiss.
        let next = Heapscope::attach(script.pid(), &["--probes", method]);
        script.watched();
        script.orders(&["green malloc 2 100"]);
        script.assert_account(&next.stop());
        until("the probes are gone", || changed_bytes(script.pid()) == 0);
    }
}

fn two_at_once() {
    let mut script = Script::start();
    let first = Heapscope::attach(script.pid(), &[]);
    let second = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&["red malloc 1 100", "green calloc 2 10 30", "blue realloc 1 9000"]);
    script.repeat(300, "red", 1000, 20);
    script.free_range(1000, 100);
    let report = first.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
    // The one that stays is none the worse.
    script.free(2);
    script.repeat(300, "blue", 3000, 21);
    let report = second.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
    until("the probes are gone", || changed_bytes(script.pid()) == 0);
}

/// `HEAPSCOPE_ROUNDS` asks for more of them.
fn round_after_round_on_a_busy_process() {
    let rounds = std::env::var("HEAPSCOPE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(30);
    // Its two threads would else take all the time that two processors have.
    let program = fixture::build("busy.c", &[]);
    let mut busy = Program::start(Command::new("nice").args(["-n", "10"]).arg(&program));
    busy.ask("begin");
    let pid = busy.pid().to_string();
    let (mut done, mut seen) = (0, 0);
    for (round, method) in (0..rounds).zip(methods().collect::<Vec<_>>().into_iter().cycle()) {
        let options = ["attach", &pid, "-d", "50ms", "-o", "report.json", "--probes", method];
        let report = Heapscope::start(&mut heapscope(&options)).report();
        seen += usize::from(report.totals.alloc_objects > 0);
        assert_eq!(report.target.command, program.display().to_string());
        let answer = busy.ask("how is it going");
        let (rounds, wrong) = answer.split_once(' ').unwrap();
        assert_eq!(wrong, "0", "after round {round}");
        let before = std::mem::replace(&mut done, rounds.parse::<u64>().unwrap());
        assert!(done > before, "the program stands still");
    }
    // A machine with other work may leave it no time in so short a look, but hardly in all of them.
    assert!(seen > 0, "none of {rounds} rounds saw something");
    until("the probes are gone", || changed_bytes(busy.pid()) == 0);
    assert!(busy.is_alive());
}
