//! What happens where there is no more room, or a call was not seen: each loss has its counter, its sentence, and leaves the
//! rest of the account right.

use std::process::Command;

use rustix::process::Signal;

use crate::{
    script::{Script, path_of},
    support::{
        case::{Case, case},
        fixture::{build, source},
        heapscope::{Heapscope, Outcome},
        model::{Record, path_of_site},
        program::{Program, send},
        report::Report,
        until,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("limits::a_full_table_of_blocks", a_full_table_of_blocks),
    case("limits::a_table_of_blocks_in_parts", a_table_of_blocks_in_parts),
    case("limits::blocks_in_the_second_of_their_buckets", blocks_in_second_buckets),
    case("limits::a_full_table_of_sites", a_full_table_of_sites),
    case("limits::a_full_ring_buffer", a_full_ring_buffer),
    case("limits::a_block_given_twice", a_block_given_twice),
];

/// A program with many blocks and stacks, watched with so much memory.
struct Many {
    program: Program,
    heapscope: Heapscope,
}

impl Many {
    fn start(blocks: u64, sites: u64, memory: &str) -> Self {
        let mut command = Command::new(build("ledger.c", &["-fno-builtin"]));
        let program = Program::start_until(command.args([blocks.to_string(), sites.to_string()]), "ready");
        let options = ["--exact", "--max-memory", memory];
        let heapscope = Heapscope::attach(program.pid(), &options);
        Self { program, heapscope }
    }

    fn fill(&mut self, blocks: u64) {
        self.program.ask(&format!("fill {blocks}"));
    }

    fn end(self) -> (Report, Outcome, Program) {
        send(self.heapscope.pid(), Signal::INT);
        let mut outcome = self.heapscope.finish();
        assert_eq!(outcome.status, 0, "{}", outcome.errors);
        (outcome.report.take().expect("no report was written"), outcome, self.program)
    }
}

/// What was lost, for these reasons and no other.
pub(crate) fn assert_lost(report: &Report, reasons: &[&str]) {
    let lost: Vec<_> = report.quality.lost.iter().filter(|(_, lost)| **lost > 0).collect();
    assert!(lost.iter().map(|(reason, _)| reason.as_str()).eq(reasons.iter().copied()), "{lost:?}");
}

fn a_full_table_of_blocks() {
    // Room for 2,560 blocks in buckets, of which some may not find their place, and for 4,096 behind.
    let mut many = Many::start(9000, 10, "1MiB");
    many.fill(9000);
    let (report, outcome, mut program) = many.end();
    assert_lost(&report, &["live_map_full"]);
    let recorded = 9000 - report.quality.lost["live_map_full"];
    assert!((4096 + 2400..=4096 + 2560).contains(&recorded), "{recorded} recorded");
    // What is told is true of the blocks that are in it.
    assert_eq!((report.totals.alloc_objects, report.totals.inuse_objects), (recorded, recorded));
    assert!(outcome.output.contains(" allocations not recorded"), "{}", outcome.output);
    // The program has noticed nothing.
    program.ask("any 100");
}

/// Half full, with places for 122,880: a fifth of the blocks are in their second buckets, and next to none in hash maps.
fn blocks_in_second_buckets() {
    let mut many = Many::start(60_000, 1000, "48MiB");
    many.fill(60_000);
    many.program.ask("any 40000");
    let (report, _, mut program) = many.end();
    program.say("record");
    Record::hear(&program, |_| {}).assert_equals(&report, path_of_site);
}

/// As large tables are: their parts together are the whole.
fn a_table_of_blocks_in_parts() {
    let mut many = Many::start(200_000, 1000, "48MiB");
    many.fill(150_000);
    many.program.ask("any 20000");
    many.fill(50_000);
    let (report, _, mut program) = many.end();
    program.say("record");
    Record::hear(&program, |_| {}).assert_equals(&report, path_of_site);
}

fn a_full_table_of_sites() {
    const SITES: u64 = 9000;
    let mut many = Many::start(SITES, SITES, "8MiB");
    many.fill(SITES);
    let (report, outcome, _program) = many.end();
    let without = report.quality.lost["site_map_full"];
    // One for a thousand bytes, and the one for those that have none.
    assert_eq!(without, SITES - ((8 << 20) / 4 / 272 - 1));
    assert_eq!(report.quality.lost["live_map_full"], 0);
    assert_eq!((report.totals.alloc_objects, report.totals.inuse_objects), (SITES, SITES));
    let rest: Vec<_> = report.sites.iter().filter(|site| site.totals.alloc_objects > 1).collect();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].totals.alloc_objects, without);
    assert_eq!(rest[0].functions(), ["[stack not taken: no room for another site]"]);
    assert!(outcome.output.contains("1,291 allocations without a stack"), "{}", outcome.output);
}

/// Nobody takes the stacks out of the ring buffer while heapscope is stopped.
fn a_full_ring_buffer() {
    const SITES: u64 = 9000;
    let mut many = Many::start(2 * SITES, SITES, "16MiB");
    send(many.heapscope.pid(), Signal::STOP);
    many.fill(SITES);
    let pid = many.heapscope.pid();
    send(pid, Signal::CONT);
    until("heapscope goes on", || crate::support::program::state(pid) != "T");
    let (report, outcome, _program) = many.end();
    let lost = report.quality.lost["stack_record_lost"];
    assert_lost(&report, &["stack_record_lost"]);
    assert_eq!((report.totals.alloc_objects, report.totals.inuse_objects), (SITES, SITES));
    let without = report.sites.iter().filter(|site| site.functions()[0].starts_with("[stack lost")).count();
    assert_eq!((without as u64, report.sites.len() as u64), (lost, SITES));
    assert!(lost > 1000, "{lost}");
    assert!(outcome.output.contains("stack"), "{}", outcome.output);
}

/// A pool that is emptied without a word: nobody tells that its parts are gone until they are given out again.
fn a_block_given_twice() {
    let driver = build("calls.c", &["-rdynamic", source("pool.c").to_str().unwrap()]);
    let mut script = Script::of(&mut Command::new(driver));
    let heapscope =
        Heapscope::attach(script.pid(), &["--allocator", "alloc=pool_get(size=1);free=pool_put(ptr=1)"]);
    script.watched();
    script.any("red any 1 pool_chunk 65536", 65536);
    script.any("green any 2 pool_get 0 100", 100);
    script.free(1);
    // It lies where the first one lay.
    script.any("red any 3 pool_chunk 65536", 65536);
    script.any("blue any 4 pool_get 0 200", 200);
    let report = heapscope.stop();
    assert_lost(&report, &["address_clash"]);
    assert_eq!(report.quality.lost["address_clash"], 1);
    let held = |path: &str| {
        let site = report.sites.iter().find(|site| path_of(site).as_deref() == Some(path)).unwrap();
        (site.totals.inuse_objects, site.totals.inuse_space)
    };
    assert_eq!((held("green"), held("blue")), ((0, 0), (1, 200)));
}
