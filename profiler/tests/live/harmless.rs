//! The target is left as it was found, however heapscope ends and however often it comes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    script::Script,
    support::{
        case::{Case, case, case_with, methods},
        fixture,
        heapscope::{Heapscope, heapscope},
        needs::Need,
        program::{Program, send},
        until,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("harmless::killed_in_the_middle", killed_in_the_middle),
    case("harmless::two_at_once", two_at_once),
    case_with("harmless::cycles_on_a_busy_process", &[Need::Program("bpftool")], cycles_on_a_busy_process),
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

/// Attached, detached and killed at moments chosen at random, also while it attaches. `HEAPSCOPE_ROUNDS` asks for more of
/// them, `HEAPSCOPE_SEED` for other moments.
fn cycles_on_a_busy_process() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let (rounds, mut state) = (asked("HEAPSCOPE_ROUNDS").unwrap_or(40), asked("HEAPSCOPE_SEED").unwrap_or(1));
    let (programs, maps) = left_in_the_kernel();
    // Its two threads would else take all the time that two processors have.
    let program = fixture::build("busy.c", &[]);
    let mut busy = Program::start(Command::new("nice").args(["-n", "10"]).arg(&program));
    let mut done = 0;
    let mut goes_on = |busy: &mut Program| {
        until("the program works on, and nothing comes out wrong", || {
            let answer = busy.ask("how is it going");
            let (rounds, wrong) = answer.split_once(' ').unwrap();
            assert_eq!(wrong, "0");
            let before = std::mem::replace(&mut done, rounds.parse::<u64>().unwrap());
            done > before
        });
    };
    goes_on(&mut busy);
    let pid = busy.pid();
    assert_eq!(changed_bytes(pid), 0);
    let before = Footprint::of(pid);
    let (mut reports, mut seen, mut early) = (0, 0, 0);
    let mut ends = [0; 3];
    for method in methods().collect::<Vec<_>>().into_iter().cycle().take(usize::try_from(rounds).unwrap()) {
        let options = ["attach", &pid.to_string(), "--exact", "-o", "report.json", "--probes", method];
        let heapscope = Heapscope::start(&mut heapscope(&options));
        let end = usize::try_from(next(&mut state) % 3).unwrap();
        let signal = [Signal::INT, Signal::TERM, Signal::KILL][end];
        // What has to hold does not depend on what this moment hits.
        std::thread::sleep(Duration::from_micros(next(&mut state) % 400_000));
        send(heapscope.pid(), signal);
        let outcome = heapscope.finish();
        ends[end] += 1;
        let killed = 128 + signal.as_raw();
        let may_be = if signal == Signal::KILL { [killed, killed] } else { [0, killed] };
        assert!(may_be.contains(&outcome.status), "{signal:?}: {}, {}", outcome.status, outcome.errors);
        early += usize::from(!outcome.errors.contains("attached"));
        if outcome.status == 0 {
            let report = outcome.report.expect("no report was written");
            reports += 1;
            seen += usize::from(report.totals.alloc_objects > 0);
            assert_eq!(report.target.command, program.display().to_string());
        }
        goes_on(&mut busy);
        until("the probes are gone", || changed_bytes(pid) == 0);
    }
    println!(
        "{rounds} cycles: {} by SIGINT, {} by SIGTERM, {} by SIGKILL; {early} before it had attached, {reports} reports, \
         {seen} of them with allocations; the program did {done} rounds of work, none wrong",
        ends[0], ends[1], ends[2]
    );
    // A machine with other work may leave it no time in a short look, but hardly in all of them.
    assert!(seen > 0, "none of {reports} reports has an allocation");
    let after = Footprint::of(pid);
    println!("resident before: {} KiB, after: {} KiB", before.resident_kib, after.resident_kib);
    before.assert_left_by(&after);
    until("the kernel has let go of our programs and maps", || {
        let (programs_now, maps_now) = left_in_the_kernel();
        programs_now.is_subset(&programs) && maps_now.is_subset(&maps)
    });
    assert!(busy.is_alive());
}

/// splitmix64
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// What a process has that heapscope could have added to.
#[derive(PartialEq, Eq, Debug)]
struct Footprint {
    /// Mappings of files: addresses, rights, names.
    mappings: Vec<String>,
    /// The kernel's page for single-stepping. It stays once it is there.
    uprobe_pages: usize,
    threads: usize,
    descriptors: usize,
    files: Vec<PathBuf>,
    resident_kib: u64,
}

impl Footprint {
    fn of(pid: u32) -> Self {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let entries =
            |path: &str| fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
        let in_process = |folder: &str| entries(&format!("/proc/{pid}/{folder}")).count();
        let ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.contains("heapscope") && name.contains(&pid.to_string())
        };
        Self {
            mappings: maps.lines().filter(|line| line.contains(" /")).map(str::to_owned).collect(),
            uprobe_pages: maps.lines().filter(|line| line.ends_with("[uprobes]")).count(),
            threads: in_process("task"),
            descriptors: in_process("fd"),
            files: ["/tmp", "/run", "/dev/shm", "/sys/fs/bpf"]
                .into_iter()
                .flat_map(entries)
                .filter(ours)
                .collect(),
            resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    /// Holds what is there in the end against what was there before.
    fn assert_left_by(self, after: &Self) {
        assert!(after.uprobe_pages <= 1, "{after:?}");
        let most = self.resident_kib + 4096;
        assert!(after.resident_kib <= most, "{} <= {most} KiB", after.resident_kib);
        let same = Self { uprobe_pages: after.uprobe_pages, resident_kib: after.resident_kib, ..self };
        assert_eq!(same, *after);
    }
}

/// The numbers of the programs and of the maps in the kernel that no process holds, neither by itself nor through a
/// program.
fn left_in_the_kernel() -> (BTreeSet<u64>, BTreeSet<u64>) {
    let list = |kind: &str| -> Vec<serde_json::Value> {
        let output = Command::new("bpftool").args([kind, "show", "-j"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // What is held is read last: what comes and goes meanwhile may be taken for left, but not the other way round.
    let (all_programs, all_maps) = (list("prog"), list("map"));
    let (mut programs, mut maps) = (BTreeSet::new(), BTreeSet::new());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let descriptors =
        processes.filter_map(|process| fs::read_dir(process.path().join("fdinfo")).ok()).flatten();
    for descriptor in descriptors.flatten() {
        for line in fs::read_to_string(descriptor.path()).unwrap_or_default().lines() {
            let Some((name, number)) = line.split_once(':') else { continue };
            match (name, number.trim().parse::<u64>()) {
                ("prog_id", Ok(number)) => programs.insert(number),
                ("map_id", Ok(number)) => maps.insert(number),
                _ => continue,
            };
        }
    }
    let number = |object: &serde_json::Value| object["id"].as_u64().unwrap();
    for program in all_programs.iter().filter(|program| programs.contains(&number(program))) {
        maps.extend(
            program["map_ids"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64),
        );
    }
    let not_in = |all: &[serde_json::Value], held: &BTreeSet<u64>| {
        all.iter().map(number).filter(|number| !held.contains(number)).collect()
    };
    (not_in(&all_programs, &programs), not_in(&all_maps, &maps))
}
