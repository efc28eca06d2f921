//! What taking a stack costs: by unwind tables, by the kernel's walk over frame pointers, and nothing at all, at the same
//! probe on the same program in one run. `cargo xtask bench walk` builds the BPF object for it and calls this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "empty/mod.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod empty;
#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::{
    collections::{HashMap, HashSet},
    process::Command,
    sync::Arc,
};

use heapscope::{
    probe::{AttachMethod, Position, ProbePoint, ProbeSettings, ebpf::EbpfProbe},
    target::{
        address::{FileOffset, Svma},
        maps::Maps,
        module::Module,
        module_cache::ModuleCache,
        process::Process,
    },
    unwind::{
        rows::rows,
        table::{Capacity, TableBuilder},
    },
};
use object::{Object, ObjectSymbol};
use profiler_common::{
    counters::Counter,
    records::{Call, walk_end},
    tables::{MappingRange, RowChunk},
};
use support::{fixture, program::Program};

/// Rounds, of which the median counts.
const ROUNDS: usize = 9;
/// Calls a round by one path, and by paths that were not taken before.
const SAME: u64 = 20_000;
const NEW: u64 = 4_000;
/// Frames of the stacks. Five are not the recursion's: its last call, `main`, and the C library's three below it.
const FRAMES: [u32; 3] = [8, 32, 100];
const OTHER_FRAMES: u32 = 5;
const CAPACITY: Capacity = Capacity { chunks: 16, pages: 4096, rules: 4096 };

/// What the probe does, by the number that `profiler-ebpf/src/measure.rs` knows it by.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// No probe at all.
    Alone,
    Nothing,
    Kernel,
    Ours,
}
const WAYS: [Way; 4] = [Way::Alone, Way::Nothing, Way::Kernel, Way::Ours];

fn main() {
    let Some(object) = empty::Object::read() else {
        println!("the walk is measured by `cargo xtask bench walk`, which builds what this loads");
        return;
    };
    println!("nanoseconds a call, median of {ROUNDS} interleaved rounds (least to most)");
    println!(
        "{:>6} {:>5}  {:>17}  {:>20}  {:>20}  {:>20}  {:>6}",
        "frames", "path", "alone", "empty probe", "bpf_get_stackid", "heapscope", "ratio"
    );
    for frames in FRAMES {
        for (path, calls) in [("same", SAME), ("new", NEW)] {
            measure(&object, frames - OTHER_FRAMES, path, calls);
        }
    }
    println!("ratio: what heapscope adds to the empty probe, by what bpf_get_stackid adds to it");
    print_verified_instructions();
}

/// What the verifier had to follow of the real programs.
fn print_verified_instructions() {
    let process = Process::open(std::process::id()).unwrap();
    for method in [AttachMethod::Session, AttachMethod::Multi] {
        match EbpfProbe::load(&settings(&process, method)) {
            Ok(probe) => println!(
                "verified instructions, {}: {:?}",
                method.label(),
                probe.verified_instructions().unwrap()
            ),
            Err(error) => println!("{}: {error}", method.label()),
        }
    }
}

fn settings(process: &Process, method: AttachMethod) -> ProbeSettings {
    empty::settings(process, method, 256 << 20, CAPACITY)
}

/// One line of the table.
fn measure(object: &empty::Object, depth: u32, path: &str, calls: u64) {
    let flags = ["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"];
    let mut program = Program::start_until(&mut Command::new(fixture::build("paths.c", &flags)), "ready");
    let target = Target::read(program.pid());
    let mut times = [const { Vec::new() }; WAYS.len()];
    let mut depths = HashSet::new();
    for round in 0..=ROUNDS {
        for (way, times) in times.iter_mut().enumerate() {
            // What was detached is not attached again.
            let mut probe = target.load(object, WAYS[way]);
            if let Some(probe) = &mut probe {
                probe.attach(&[target.point(WAYS[way])]).unwrap();
            }
            // The last level calls the probed function: it and `main` and what is below are frames too.
            let time: f64 = program.ask(&format!("{path} {depth} {calls}")).parse().unwrap();
            if let Some(probe) = &mut probe {
                probe.new_stacks(|stack| {
                    assert_eq!(stack.head.end, walk_end::COMPLETE);
                    depths.insert(stack.frames.len());
                });
                let counters = probe.counters().unwrap();
                if WAYS[way] == Way::Ours {
                    let lost = [Counter::RingFull, Counter::SiteMapFull, Counter::ScratchBusy];
                    assert!(lost.into_iter().all(|reason| counters.get(reason) == 0));
                    assert_eq!(counters.get(Counter::StacksWalked), calls);
                }
                probe.detach();
            }
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
    let [alone, empty, kernel, ours] = median;
    let shown = |(median, least, most): (f64, f64, f64)| format!("{median:.0} ({least:.0} to {most:.0})");
    let frames = depths.into_iter().max().unwrap_or(0);
    println!(
        "{frames:>6} {path:>5}  {:>17}  {:>20}  {:>20}  {:>20}  {:>6.2}",
        shown(alone),
        shown(empty),
        shown(kernel),
        shown(ours),
        (ours.0 - empty.0) / (kernel.0 - empty.0)
    );
}

/// The program under the probe, and its unwind tables.
struct Target {
    process: Process,
    builder: TableBuilder,
    ranges: Vec<MappingRange>,
    module: Arc<Module>,
    probed: FileOffset,
}

impl Target {
    fn read(pid: u32) -> Self {
        let process = Process::open(pid).unwrap();
        let mut cache = ModuleCache::default();
        let mut builder = TableBuilder::new(CAPACITY);
        let mut tables = HashMap::new();
        let mut ranges = Vec::new();
        let mut found = None;
        for mapping in Maps::read(&process).unwrap().executable() {
            let Some(module) = cache.open(&process, mapping).unwrap() else { continue };
            let data = module.data().unwrap();
            let table = tables
                .entry(Arc::as_ptr(&module))
                .or_insert_with(|| builder.add_module(&rows(&data).unwrap()).unwrap());
            let bias = module.bias(mapping).unwrap();
            ranges.push(table.mapping(mapping.range.start, mapping.range.end, bias));
            let file = object::File::parse(&*data).unwrap();
            if let Some(symbol) = file.symbol_by_name("probed") {
                found = Some((Arc::clone(&module), module.file_offset_of(Svma(symbol.address())).unwrap()));
            }
        }
        ranges.sort_by_key(|range| range.begin);
        let (module, probed) = found.expect("the program has `probed`");
        Self { process, builder, ranges, module, probed }
    }

    /// A probe that is ready to be attached.
    fn load(&self, object: &empty::Object, way: Way) -> Option<EbpfProbe> {
        if way == Way::Alone {
            return None;
        }
        let mut probe = object.load(&settings(&self.process, AttachMethod::Multi));
        probe.write_rules(0, self.builder.rules()).unwrap();
        for index in self.builder.pending().chunks() {
            probe.write_rows(index, &[RowChunk { rows: *self.builder.chunk(index).unwrap() }]).unwrap();
        }
        probe.write_pages(0, self.builder.pages()).unwrap();
        assert_eq!(probe.publish_mappings(&self.ranges).unwrap(), 0);
        Some(probe)
    }

    fn point(&self, way: Way) -> ProbePoint {
        let path = self.module.attach_path().unwrap();
        ProbePoint {
            path,
            offset: self.probed,
            call: Call::allocate(0),
            allocator: way as u8 - 1,
            function: 0,
            custom: false,
            position: Position::Called,
        }
    }
}
