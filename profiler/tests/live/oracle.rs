//! gdb as the judge of stacks: it stops a process in its allocator's functions and walks, heapscope sees the same calls,
//! and the return addresses must be the same, one by one. The walk in user space, over the memory of the process where
//! gdb holds it, must find them too. Each test prints how many were compared; together over a thousand. What gdb does is
//! in `stacks.gdb.py`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    process::Command,
};

use heapscope::unwind::walk::Walk;
use profiler_common::records::walk_end;

use crate::{
    support::{
        case::{Case, case_with},
        fixture,
        heapscope::Heapscope,
        needs::Need,
        program::Program,
        report::{Report, Site},
    },
    twin::Twin,
    worker::Worker,
};

pub(crate) const CASES: &[Case] = &[
    case_with("oracle::clang", &[Need::Debugger, Need::Program("clang++")], || {
        all_same(Worker::clang(), 150)
    }),
    case_with("oracle::node", &[Need::Debugger, Need::Program("node")], || {
        compare(Worker::node(), 150, Some(ASTRAY));
    }),
    case_with("oracle::python", &[Need::Debugger, Need::Program("python3")], || {
        all_same(Worker::python(), 150)
    }),
    case_with("oracle::cpp", &[Need::Debugger, Need::Program("c++")], || all_same(Worker::cpp(), 150)),
    case_with("oracle::rust", &[Need::Debugger, Need::Program("rustc")], || all_same(Worker::rust(), 150)),
    case_with("oracle::go", &[Need::Debugger, Need::Program("go")], || {
        compare(Worker::go(), 100, Some(CROSSING));
    }),
    case_with("oracle::recursion", &[Need::Debugger], || all_same(Worker::shape("recursion"), 100)),
    case_with("oracle::variable", &[Need::Debugger], || all_same(Worker::shape("variable"), 60)),
    case_with("oracle::signals", &[Need::Debugger], || all_same(Worker::shape("signals"), 60)),
    case_with("oracle::alternate_stack", &[Need::Debugger], || all_same(Worker::shape("alternate"), 60)),
    case_with("oracle::threads", &[Need::Debugger], || all_same(Worker::shape("threads"), 100)),
    case_with("oracle::coroutines", &[Need::Debugger], || {
        compare(Worker::shape("coroutines"), 60, Some(ZERO));
    }),
    case_with("oracle::too_deep", &[Need::Debugger], || {
        compare(Worker::shape("too_deep"), 20, Some(CUT));
    }),
];

/// gdb shows the zero at which a stack ends for a frame.
const ZERO: &str = "gdb shows the zero that ends the stack";
/// Through code without unwind information gdb goes by the look of the code, and arrives where there is none.
/// What Go's call frame information does not say.
const CROSSING: &str = "gdb does not get from the thread's stack to the goroutine's, up to there the same";
const ASTRAY: &str = "gdb leaves the code where there is no unwind information";
/// 512 frames, and the rest is not there.
const CUT: &str = "cut at 512 frames, up to there the same";

/// What heapscope knows of the stacks with the same return addresses.
#[derive(Default)]
struct Known {
    allocations: u64,
    /// Frames before the first that was guessed.
    certain: usize,
    /// Whether the walk itself says that it did not come to the end.
    ended_early: bool,
    /// The first frame of the function by which Go calls C.
    crossing: Option<usize>,
}

/// Return addresses, the allocator's caller first.
type Stack = Vec<u64>;

/// A stack as a walk of ours found it: which frames were guessed, and whether it came to its end.
type Seen = (Vec<(u64, bool)>, bool);

fn seen_by_twin(walk: &Walk) -> Seen {
    let guessed = |index: usize| walk.guessed[index / 64] >> (index % 64) & 1 == 1;
    let frames = walk.frames.iter().enumerate().map(|(index, address)| (*address, guessed(index)));
    (frames.collect(), walk.end == walk_end::COMPLETE)
}

fn seen_in_bpf(site: &Site) -> Seen {
    let frames = site.stack.iter().filter_map(|frame| Some((frame.return_address()?, frame.guessed)));
    (frames.collect(), !site.ended_early())
}

fn all_same(worker: Worker, wanted: u64) {
    compare(worker, wanted, None);
}

/// Lets both look at the same calls. Stacks may differ for no reason but this one.
fn compare(mut worker: Worker, wanted: u64, reason: Option<&'static str>) {
    let mut gdb = Program::start(&mut gdb(worker.pid(), wanted));
    // Among its own remarks.
    while gdb.hear() != "ready" {}
    let twin = Twin::of(worker.pid());
    let heapscope = Heapscope::attach(worker.pid(), &[]);
    gdb.say("go");
    worker.begin();
    let mut judged: HashMap<Stack, u64> = HashMap::new();
    let (mut registers, mut twins) = (Vec::new(), HashSet::new());
    loop {
        let line = gdb.hear();
        let (word, numbers) = line.split_once(' ').unwrap_or((&line, ""));
        let numbers = || numbers.split(' ').map(|number| u64::from_str_radix(number, 16).unwrap()).collect();
        match word {
            "end" => break,
            "at" => registers = numbers(),
            "stack" => {
                let walk = twin.walk_from_entry(registers[0], registers[1]);
                gdb.say("");
                twins.insert(seen_by_twin(&walk));
                *judged.entry(numbers()).or_default() += 1;
            }
            // gdb also tells where it stopped.
            _ => {}
        }
    }
    let code = code_of(worker.pid());
    assert!(gdb.wait().success());
    let report = worker.finish(heapscope);
    report.assert_nothing_lost();
    verdict(&judged, &stacks_of(&report), &code, reason);
    let seen: HashSet<Seen> = report.sites.iter().map(seen_in_bpf).collect();
    let strange: Vec<_> = twins.difference(&seen).take(5).collect();
    assert!(strange.is_empty(), "only the walk in user space has these: {strange:x?}");
}

fn gdb(pid: u32, wanted: u64) -> Command {
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-nx", "-p", &pid.to_string(), "-x"]).arg(fixture::source("stacks.gdb.py"));
    gdb.env("STACKS", wanted.to_string()).stderr(std::process::Stdio::null());
    gdb
}

/// The address ranges that hold code.
fn code_of(pid: u32) -> Vec<(u64, u64)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let code = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.contains('x')));
    let range = code.map(|line| line.split(' ').next().unwrap().split_once('-').unwrap());
    let address = |hex| u64::from_str_radix(hex, 16).unwrap();
    range.map(|(begin, end)| (address(begin), address(end))).collect()
}

fn stacks_of(report: &Report) -> HashMap<Stack, Known> {
    let mut stacks: HashMap<Stack, Known> = HashMap::new();
    for site in &report.sites {
        let frames: Vec<_> = site.stack.iter().filter(|frame| frame.return_address().is_some()).collect();
        let known = stacks.entry(site.return_addresses()).or_default();
        known.allocations += site.totals.alloc_objects;
        known.certain = frames.iter().position(|frame| frame.guessed).unwrap_or(frames.len());
        known.ended_early |= site.ended_early();
        known.crossing = frames.iter().position(|frame| {
            frame.function.as_deref().is_some_and(|function| function.starts_with("runtime.asmcgocall"))
        });
    }
    stacks
}

fn verdict(
    judged: &HashMap<Stack, u64>,
    known: &HashMap<Stack, Known>,
    code: &[(u64, u64)],
    reason: Option<&'static str>,
) {
    let (mut same, mut explained, mut different) = (0, BTreeMap::<&str, u64>::new(), Vec::new());
    for (stack, &times) in judged {
        // Each call that gdb saw is one that heapscope counted.
        if known.get(stack).is_some_and(|known| known.allocations >= times) {
            same += times;
        } else if let Some(reason) = reason.filter(|reason| explains(reason, stack, known, code)) {
            *explained.entry(reason).or_default() += times;
        } else {
            different.push((times, stack));
        }
    }
    let compared: u64 = judged.values().sum();
    let of_frames: usize = judged.keys().map(Vec::len).sum();
    println!(
        "{compared} stacks compared ({} distinct, of {of_frames} frames): {same} the same, explained {explained:?}",
        judged.len()
    );
    assert!(different.is_empty(), "{}", describe(&different, known));
}

fn explains(reason: &str, stack: &[u64], known: &HashMap<Stack, Known>, code: &[(u64, u64)]) -> bool {
    match reason {
        ZERO => stack.strip_suffix(&[0]).is_some_and(|stack| known.contains_key(stack)),
        CUT => stack.get(..512).and_then(|stack| known.get(stack)).is_some_and(|known| known.ended_early),
        CROSSING => known.iter().any(|(ours, known)| {
            known.crossing.is_some_and(|at| stack.starts_with(&ours[..=at])) && !known.ended_early
        }),
        _ => {
            let is_code = |address: &u64| code.iter().any(|(begin, end)| (begin..end).contains(&address));
            !stack.iter().all(is_code)
                && known.iter().any(|(ours, known)| {
                    let uncertain = known.ended_early || known.certain < ours.len();
                    uncertain && known.certain > 0 && stack.starts_with(&ours[..known.certain])
                })
        }
    }
}

/// The stacks that differ, each with the one of heapscope's that has most in common with it.
fn describe(different: &[(u64, &Stack)], known: &HashMap<Stack, Known>) -> String {
    let common = |a: &[u64], b: &[u64]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let mut text = format!("{} distinct stacks differ:\n", different.len());
    for (times, stack) in different.iter().take(5) {
        let nearest = known.keys().max_by_key(|ours| common(ours, stack));
        let agree = nearest.map_or(0, |nearest| common(nearest, stack));
        text += &format!(
            "{times} times, the first {agree} frames agree\n  gdb       {stack:x?}\n  heapscope {nearest:x?}\n"
        );
    }
    text
}
