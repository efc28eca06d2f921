//! What a pair of malloc and free costs under heapscope, beside what the traps alone cost: probes in the same places whose
//! programs do nothing. `cargo xtask bench cost` runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "empty/mod.rs"]
mod empty;
#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::{io::Read, process::Command};

use empty::{Object, Places};
use rustix::process::Signal;
use support::{
    fixture,
    heapscope::Heapscope,
    program::{Program, send},
};

/// Frames above `main`.
const DEPTHS: [u32; 3] = [8, 32, 100];
const SIZES: [u32; 3] = [16, 256, 4096];
const PAIRS: u32 = 40_000;
const ROUNDS: usize = 11;

/// What is in the target while it is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Alone,
    /// [`Places::Entries`] and nothing else.
    Entries,
    /// [`Places::Session`].
    Session,
    Sampled,
    Exact,
}

const WAYS: [Way; 5] = [Way::Alone, Way::Entries, Way::Session, Way::Sampled, Way::Exact];

fn main() {
    let Some(object) = Object::read() else {
        println!("costs are measured by `cargo xtask bench cost`, which builds what this loads");
        return;
    };
    if let Ok(asked) = std::env::var("HEAPSCOPE_HOLD") {
        return hold(&object, &asked);
    }
    println!(
        "nanoseconds of CPU time for a pair of malloc and free, median of {ROUNDS} interleaved rounds (least to most)"
    );
    println!(
        "| frames | bytes | alone | two empty entries | with an empty return | --sample 512KiB | by two entries | --exact | by entries and return |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for depth in DEPTHS {
        for size in SIZES {
            measure(&object, depth, size);
        }
    }
    println!("by: what heapscope adds to alone, by what the empty probes add to it");
}

/// Holds probes that do nothing in a process for as long as standard input is open: `entries PID` or `session PID`. For
/// `cargo xtask bench peers`.
fn hold(object: &Object, asked: &str) {
    let (way, pid) = asked.split_once(' ').expect("`entries PID` or `session PID`");
    let places = if way == "session" { Places::Session } else { Places::Entries };
    let _probe = object.attach(pid.parse().unwrap(), places);
    println!("attached");
    let _ = std::io::stdin().read_to_string(&mut String::new());
}

/// One line of the table.
fn measure(object: &Object, depth: u32, size: u32) {
    let mut program =
        Program::start_until(&mut Command::new(fixture::build("pairs.c", &["-fno-builtin"])), "ready");
    let mut times = [const { Vec::new() }; WAYS.len()];
    for round in 0..=ROUNDS {
        for (way, times) in WAYS.into_iter().zip(&mut times) {
            let pid = program.pid();
            // What comes first is not measured: in the first tenth of a second the kernel measures our programs' run time, which
            // costs more than they do, and later for one tick in some seconds.
            let mut ask = || {
                let mut ask = || program.ask(&format!("{depth} {size} {PAIRS}")).parse::<f64>().unwrap();
                (ask(), ask()).1
            };
            let time = match way {
                Way::Alone => ask(),
                Way::Entries => {
                    let _probe = object.attach(pid, Places::Entries);
                    ask()
                }
                Way::Session => {
                    let _probe = object.attach(pid, Places::Session);
                    ask()
                }
                Way::Sampled => watched(pid, &["--sample", "512KiB"], ask),
                Way::Exact => watched(pid, &["--exact"], ask),
            };
            // The first round warms up.
            if round > 0 {
                times.push(time);
            }
        }
    }
    let median = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        (times[ROUNDS / 2], times[0], times[ROUNDS - 1])
    });
    let shown = |(median, least, most): (f64, f64, f64)| format!("{median:.0} ({least:.0} to {most:.0})");
    let [alone, entries, session, sampled, exact] = median;
    let ratio = |ours: (f64, f64, f64), floor: (f64, f64, f64)| (ours.0 - alone.0) / (floor.0 - alone.0);
    println!(
        "| {} | {size} | {} | {} | {} | {} | {:.2} | {} | {:.2} |",
        // `descend` itself, `main`, and the three below it.
        depth + 5,
        shown(alone),
        shown(entries),
        shown(session),
        shown(sampled),
        ratio(sampled, entries),
        shown(exact),
        ratio(exact, session)
    );
}

fn watched(pid: u32, options: &[&str], ask: impl FnOnce() -> f64) -> f64 {
    let heapscope = Heapscope::attach(pid, options);
    let time = ask();
    send(heapscope.pid(), Signal::INT);
    heapscope.report().assert_nothing_lost();
    time
}
