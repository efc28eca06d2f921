//! What a pair of malloc and free costs under heapscope, beside what the traps alone cost: probes in the same places whose
//! programs do nothing. `cargo xtask bench cost` runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::{fs, io::Read, process::Command};

use heapscope::{
    probe::{AttachMethod, Position, ProbePoint, ProbeSettings, ebpf::EbpfProbe},
    target::{allocator, maps::Maps, module_cache::ModuleCache, placement, process::Process},
};
use profiler_common::records::{Call, CallKind};
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
const ROUNDS: usize = 5;

/// What is in the target while it is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Alone,
    /// An entry probe on each of the two functions: what no tracer of both goes below.
    Entries,
    /// The same, and a return probe on malloc, all by one session.
    Session,
    Sampled,
    Exact,
}

const WAYS: [Way; 5] = [Way::Alone, Way::Entries, Way::Session, Way::Sampled, Way::Exact];

fn main() {
    let Some(object) = std::env::var_os("HEAPSCOPE_MEASURING_OBJECT") else {
        println!("costs are measured by `cargo xtask bench cost`, which builds what this loads");
        return;
    };
    let bytes = fs::read(object).unwrap();
    let mut object = vec![0u64; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut object)[..bytes.len()].copy_from_slice(&bytes);
    if let Ok(asked) = std::env::var("HEAPSCOPE_HOLD") {
        return hold(bytemuck::cast_slice(&object), &asked);
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
            measure(bytemuck::cast_slice(&object), depth, size);
        }
    }
    println!("by: what heapscope adds to alone, by what the empty probes add to it");
}

/// Holds probes that do nothing in a process for as long as standard input is open: `entries PID` or `session PID`. For
/// `cargo xtask bench peers`.
fn hold(object: &[u8], asked: &str) {
    let (way, pid) = asked.split_once(' ').expect("`entries PID` or `session PID`");
    let way = if way == "session" { Way::Session } else { Way::Entries };
    let _probe = empty(object, pid.parse().unwrap(), way);
    println!("attached");
    let _ = std::io::stdin().read_to_string(&mut String::new());
}

/// One line of the table.
fn measure(object: &[u8], depth: u32, size: u32) {
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
                Way::Entries | Way::Session => {
                    let _probe = empty(object, pid, way);
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

/// Probes that do nothing, where heapscope's are.
fn empty(object: &[u8], pid: u32, way: Way) -> EbpfProbe {
    let process = Process::open(pid).unwrap();
    let found =
        allocator::find(&process, &Maps::read(&process).unwrap(), &mut ModuleCache::default()).unwrap();
    let method = if way == Way::Session { AttachMethod::Session } else { AttachMethod::Multi };
    let mut probe = EbpfProbe::load_object(
        object,
        &ProbeSettings {
            pid,
            identity: process.own_identity().unwrap(),
            min_size: 0,
            max_size: u64::MAX,
            only_callers: false,
            told: false,
            sampling: false,
            control: profiler_common::control::Control::EXACT,
            custom_allocators: false,
            mappings: false,
            growth: false,
            python: false,
            max_memory: 1 << 20,
            method: Some(method),
            row_chunks: 1,
            pages: 1,
            rules: 1,
        },
    )
    .unwrap();
    // A program has its own beside the C library's, or not.
    let both = found.found.iter().flat_map(|of| ["malloc", "free"].map(|name| (of, name)));
    let points: Vec<_> = both
        .filter_map(|(of, name)| Some((of, of.functions.iter().find(|function| function.name == name)?)))
        .map(|(of, function)| {
            let call = if way == Way::Session { function.call } else { Call::free(0) };
            assert!(call.kind == CallKind::Free || call.needs_return());
            ProbePoint {
                path: of.module.attach_path().unwrap(),
                offset: placement::place(&of.module, function).unwrap().file_offset,
                call,
                allocator: 0,
                function: 0,
                custom: false,
                position: Position::Called,
            }
        })
        .collect();
    assert!(!points.is_empty(), "no malloc was found");
    probe.attach(&points).unwrap();
    probe
}
