//! heapscope's own weight: CPU time and memory while a process allocates at various rates, time from the command to the first
//! probe, and from Ctrl-C to the report. `cargo xtask bench weight` runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use support::{
    fixture,
    heapscope::Heapscope,
    program::{Program, send},
};

/// How long each rate is watched.
const WATCHED: Duration = Duration::from_secs(6);

fn main() {
    println!(
        "| allocations a second | heapscope's CPU time, of a core | most memory (VmHWM) | Ctrl-C to the end |"
    );
    println!("|---|---|---|---|");
    // Turns of a loop between two blocks.
    for spin in [2_000_000_000, 40_000, 2_500, 20, 0] {
        rate(spin);
    }
    println!();
    println!(
        "| process | mapped files | command to `attached`, --exact | with the default budget | most memory (VmHWM) |"
    );
    println!("|---|---|---|---|---|");
    let python = "import json, sys; print('ready', flush=True); sys.stdin.read()";
    first_probe("python3", Command::new("python3").args(["-c", python]));
    first_probe("pairs.c", &mut Command::new(fixture::build("pairs.c", &["-fno-builtin"])));
    // It reads its input, which does not come.
    let clang = "echo ready; exec clang -fsyntax-only -x c -";
    first_probe("clang", Command::new("sh").args(["-c", clang]));
}

fn rate(spin: u64) {
    let mut load =
        Program::start_until(&mut Command::new(fixture::build("load.c", &["-fno-builtin"])), "ready");
    load.ask(&format!("{spin} 0"));
    let heapscope = Heapscope::attach(load.pid(), &["--exact"]);
    let pid = heapscope.pid();
    let blocks = |answer: String| answer.split(' ').next().unwrap().parse::<f64>().unwrap();
    let (begin, cpu) = (Instant::now(), cpu_seconds(pid));
    let before = blocks(load.ask(&format!("{spin} 0")));
    std::thread::sleep(WATCHED);
    let after = blocks(load.ask(&format!("{spin} 0")));
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds(pid) - cpu);
    let memory = high_water(pid);
    let stopped = Instant::now();
    send(pid, Signal::INT);
    heapscope.report();
    println!(
        "| {:.0} | {:.1}% | {memory:.1} MiB | {:.0} ms |",
        (after - before) / seconds,
        100.0 * cpu / seconds,
        stopped.elapsed().as_secs_f64() * 1e3
    );
}

fn first_probe(name: &str, command: &mut Command) {
    let program = Program::start_until(command.stderr(Stdio::null()), "ready");
    // Until what it maps at its start is there.
    std::thread::sleep(Duration::from_secs(1));
    let maps = fs::read_to_string(format!("/proc/{}/maps", program.pid())).unwrap();
    let mut files: Vec<_> =
        maps.lines().filter_map(|line| line.split('/').nth(1).map(|_| line.rsplit(' ').next())).collect();
    files.sort_unstable();
    files.dedup();
    let mut memory = 0.0;
    let mut attach = |options: &[&str]| {
        let mut times: Vec<f64> = (0..5)
            .map(|_| {
                let began = Instant::now();
                let heapscope = Heapscope::attach(program.pid(), options);
                let took = began.elapsed().as_secs_f64() * 1e3;
                memory = high_water(heapscope.pid());
                heapscope.stop();
                took
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (exact, budgeted) = (attach(&["--exact"]), attach(&["--budget", "10%"]));
    println!("| {name} | {} | {exact:.0} ms | {budgeted:.0} ms | {memory:.1} MiB |", files.len());
}

/// CPU time that a process has used, in seconds (proc(5), fields 14 and 15 of stat, in hundredths).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// In MiB.
fn high_water(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
