//! The ledger when it is large: ten million live blocks from more than a hundred thousand sites at once, in a real process.
//! Whether the totals are right, what a block takes in the kernel, how long a report takes, and what a call costs beside
//! one in a process with a thousand blocks. `cargo xtask bench ledger` runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_precision_loss)]

#[path = "empty/mod.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod empty;
#[path = "fdinfo/mod.rs"]
mod fdinfo;
#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, SystemTime},
};

use empty::{Object, Places};
use fdinfo::{Descriptor, RunTime};
use heapscope::probe::ebpf::EbpfProbe;
use profiler_common::{
    blocks::Bucket,
    records::{LiveBlock, SiteCounters},
};
use rustix::process::Signal;
use support::{
    fixture,
    heapscope::Heapscope,
    model::{Record, path_of_site},
    program::{Program, send},
};

/// `HEAPSCOPE_LEDGER_BLOCKS` asks for others, where there is less memory.
const BLOCKS: u64 = 10_000_000;
/// All paths of the fixture.
const SITES: u64 = 1 << 17;
/// Of the process that it is compared with.
const FEW_BLOCKS: u64 = 1000;
/// Memory that heapscope is given for a block, so that the buckets of its table are about half full, and the eighths of its memory
/// that are for blocks.
const BYTES_PER_BLOCK: u64 = 64;
const EIGHTHS: u64 = 5;
/// A fill of so many is answered before anyone takes the program for hung.
const FILLED_AT_ONCE: u64 = 500_000;
/// Rounds, of which the median counts, and pairs of calls in each.
const ROUNDS: usize = 15;
const PAIRS: u64 = 20_000;
/// Pairs in which the programs' run time is measured.
const RUN_TIME_PAIRS: u64 = 100_000;

fn main() {
    let asked = std::env::var("HEAPSCOPE_LEDGER_BLOCKS").ok().and_then(|number| number.parse().ok());
    let blocks: u64 = asked.unwrap_or(BLOCKS);
    let Some(object) = Object::read() else {
        println!("this is measured by `cargo xtask bench ledger`, which builds what it loads");
        return;
    };
    // Those that the last one is compared with: with few blocks, from few sites and from as many.
    let mut processes = [(FEW_BLOCKS, FEW_BLOCKS), (FEW_BLOCKS, SITES), (blocks, SITES)]
        .map(|(live, sites)| Process::start(&object, live, sites, blocks));
    let [few, few_of_many_sites, many] = &mut processes;
    few.fill();
    few_of_many_sites.fill();
    let before = Memory::of(many.watched.heapscope.pid());
    many.fill();
    let after = Memory::of(many.watched.heapscope.pid());
    println!("{blocks} live blocks, {SITES} sites\n");
    after.print(&before, blocks);

    println!(
        "\nnanoseconds of CPU time for a free and a malloc of random blocks, median of {ROUNDS} interleaved rounds; added: with \
         probes less alone"
    );
    println!(
        "| stacks | live blocks | sites | alone | empty probes | watched | added by empty probes | by heapscope | heapscope by \
         empty | many blocks by these, empty | heapscope |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for stacks in ["same", "any"] {
        let mut times = [const { [const { Vec::new() }; 3] }; 3];
        for round in 0..=ROUNDS {
            for (process, times) in processes.iter_mut().zip(&mut times) {
                for (program, times) in process.programs().into_iter().zip(times) {
                    let time: f64 = program.ask(&format!("{stacks} {PAIRS}")).parse().unwrap();
                    // The first round warms up.
                    if round > 0 {
                        times.push(time);
                    }
                }
            }
        }
        let medians = times.map(|of_process| of_process.map(median));
        let added = medians.map(|[alone, empty, watched]| [empty - alone, watched - alone]);
        for ((process, [alone, empty, watched]), [by_empty, by_ours]) in
            processes.iter().zip(medians).zip(added)
        {
            println!(
                "| {stacks} | {} | {} | {alone:.0} | {empty:.0} | {watched:.0} | {by_empty:.0} | {by_ours:.0} | {:.2} | {:.2} | \
                 {:.2} |",
                process.blocks,
                process.sites,
                by_ours / by_empty,
                added[2][0] / by_empty,
                added[2][1] / by_ours
            );
        }
    }

    println!(
        "\nnanoseconds of run time of heapscope's programs, as the kernel measures it: of a free, and of a malloc's entry and return"
    );
    println!("| stacks | live blocks | sites | free | malloc |");
    println!("|---|---|---|---|---|");
    for stacks in ["same", "any"] {
        for process in &mut processes {
            let [free, malloc] = process.watched.run_time(stacks);
            println!("| {stacks} | {} | {} | {free:.0} | {malloc:.0} |", process.blocks, process.sites);
        }
    }

    println!();
    let [few, few_of_many_sites, many] = processes;
    few.watched.conclude(false);
    few_of_many_sites.watched.conclude(false);
    many.watched.conclude(true);
}

/// The same program three times: alone, with probes that do nothing, watched.
struct Process {
    blocks: u64,
    sites: u64,
    alone: Program,
    empty: Program,
    /// On `empty`.
    _probes: EbpfProbe,
    watched: Watched,
}

impl Process {
    /// With heapscope that has room for so many blocks.
    fn start(object: &Object, blocks: u64, sites: u64, room: u64) -> Self {
        let [alone, empty] = [(); 2].map(|()| start(blocks, sites));
        let probes = object.attach(empty.pid(), Places::Session);
        Self { blocks, sites, alone, empty, _probes: probes, watched: Watched::start(blocks, sites, room) }
    }

    fn programs(&mut self) -> [&mut Program; 3] {
        [&mut self.alone, &mut self.empty, &mut self.watched.program]
    }

    fn fill(&mut self) {
        let blocks = self.blocks;
        self.programs().into_iter().for_each(|program| fill(program, blocks));
    }
}

fn start(blocks: u64, sites: u64) -> Program {
    let program = fixture::build("ledger.c", &["-fno-builtin"]);
    Program::start_until(
        Command::new(program).args([blocks, sites].map(|number| number.to_string())),
        "ready",
    )
}

fn fill(program: &mut Program, blocks: u64) {
    let mut left = blocks;
    while left > 0 {
        let now = left.min(FILLED_AT_ONCE);
        program.ask(&format!("fill {now}"));
        left -= now;
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A process, and heapscope with room for so many blocks.
struct Watched {
    program: Program,
    heapscope: Heapscope,
}

impl Watched {
    fn start(blocks: u64, sites: u64, room: u64) -> Self {
        let program = start(blocks, sites);
        let memory = (room * BYTES_PER_BLOCK / EIGHTHS * 8).to_string();
        let options = ["--exact", "--max-memory", &memory, "-o", "heap.svg", "-o", "heap.folded"];
        let heapscope = Heapscope::attach(program.pid(), &options);
        Self { program, heapscope }
    }

    /// What heapscope's programs take of a step's free and of its malloc, in nanoseconds. That of frees runs once a step, that
    /// of allocations at a call's entry and at its return.
    fn run_time(&mut self, stacks: &str) -> [f64; 2] {
        let measured = RunTime::of(self.heapscope.pid());
        let before = measured.read();
        self.program.ask(&format!("{stacks} {RUN_TIME_PAIRS}"));
        let programs: Vec<_> = before.into_iter().zip(measured.read()).collect();
        [RUN_TIME_PAIRS, 2 * RUN_TIME_PAIRS].map(|often| {
            let ran_so_often = |([before, _], [after, _]): &&([u64; 2], [u64; 2])| after - before == often;
            let ([_, before], [_, after]) =
                programs.iter().find(ran_so_often).expect("no program ran so often");
            (after - before) as f64 / RUN_TIME_PAIRS as f64
        })
    }

    /// Ends the watching, and holds the report against the program's own record.
    fn conclude(mut self, shown: bool) {
        let asked = SystemTime::now();
        send(self.heapscope.pid(), Signal::INT);
        self.heapscope.hear_output();
        let table = asked.elapsed().unwrap();
        while !self.heapscope.hear_output().starts_with("wrote") {}
        let most_resident = status_kib(self.heapscope.pid(), "VmHWM:");
        let written = |name: &str| {
            let file = self.heapscope.file(name).metadata().unwrap();
            (file.modified().unwrap().duration_since(asked).unwrap_or_default(), file.len())
        };
        let [(json, json_size), (svg, svg_size), (folded, folded_size)] =
            ["report.json", "heap.svg", "heap.folded"].map(written);
        if shown {
            let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
            println!("from Ctrl-C to the table: {}", seconds(table));
            println!("the flamegraph, {svg_size} bytes: {} more", seconds(svg.saturating_sub(json)));
            println!("folded stacks, {folded_size} bytes: {} more", seconds(folded.saturating_sub(svg)));
            println!("JSON, {json_size} bytes: {} more", seconds(json.saturating_sub(table)));
            println!("heapscope's own memory at most: {} MiB", most_resident / 1024);
        }
        let report = self.heapscope.finish().report.expect("no report was written");
        self.program.say("record");
        let record = Record::hear(&self.program, |_| {});
        record.assert_equals(&report, path_of_site);
        if shown {
            println!(
                "totals right: {} bytes in {} blocks live at {} sites, {} allocations, {} frees; nothing lost",
                report.totals.inuse_space,
                report.totals.inuse_objects,
                report.sites.len(),
                report.totals.alloc_objects,
                record.frees
            );
        }
    }
}

/// What the kernel has given, in bytes.
#[derive(Default)]
struct Memory {
    /// `memlock` of heapscope's maps: of those that hold blocks, of those that hold sites, of all.
    blocks: u64,
    sites: u64,
    all: u64,
    slab: u64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let mut memory = Self { slab: meminfo("Slab:"), ..Self::default() };
        let mut seen = BTreeSet::new();
        for descriptor in Descriptor::all(pid) {
            let fields = descriptor.fields(["map_id", "memlock", "map_type", "value_size"]);
            let Some([id, bytes, map_type, value_size]) = fields else { continue };
            if !seen.insert(id) {
                continue;
            }
            memory.all += bytes;
            // BPF_MAP_TYPE_HASH and BPF_MAP_TYPE_ARRAY; the values tell blocks from sites.
            match (map_type, value_size) {
                (1, size) if size == size_of::<LiveBlock>() as u64 => memory.blocks += bytes,
                (2, size) if size == size_of::<Bucket>() as u64 => memory.blocks += bytes,
                (1, size) if size == size_of::<SiteCounters>() as u64 => memory.sites += bytes,
                _ => {}
            }
        }
        memory
    }

    fn print(&self, before: &Self, blocks: u64) {
        let a_block = |bytes: u64| bytes as f64 / blocks as f64;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!("kernel memory by `memlock` of the maps");
        println!("| what | MiB | bytes a block |");
        println!("|---|---|---|");
        let line =
            |what: &str, bytes: u64| println!("| {what} | {:.1} | {:.1} |", mib(bytes), a_block(bytes));
        line("the blocks' table, from the start", before.blocks);
        line("the blocks", self.blocks - before.blocks);
        line("both", self.blocks);
        line("the sites and their hash table", self.sites);
        line("all else, from the start", self.all - self.blocks - self.sites);
        line("growth of all slabs of the machine (`/proc/meminfo`)", self.slab.saturating_sub(before.slab));
    }
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    kib(&text, name) * 1024
}

fn status_kib(pid: u32, name: &str) -> u64 {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), name)
}

fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
