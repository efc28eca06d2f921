//! What a recording of a day takes: 20,000 sites, a snapshot a minute for 24 hours.
//!
//! `cargo bench -p heapscope --bench recording`. Three days: of a service of which half the sites allocate in each minute,
//! one of which all do, and one of which all do and is sampled. A tenth of the sites leak, the others free what they
//! allocate, sooner or later, some as temporary blocks; how many blocks there are in a minute is drawn anew each time.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a program for developers"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use heapscope::{
    report::{
        profile::{Mode, Profile, Quality, SiteReport, TargetInfo, Totals},
        recording::{Counters, Head, Moment, Recording, Resident, Writer},
    },
    symbolize::frame::{Frame, FrameKind, FrameRole},
};

const SITES: u64 = 20_000;
const SNAPSHOTS: u64 = 24 * 60;
/// Frames of a stack, of which the sites share all but the first two.
const FRAMES: u64 = 24;
/// What the design promises.
const MOST_BYTES: usize = 50_000_000;
const MOST_TIME: Duration = Duration::from_secs(2);
/// Runs of which the median is shown.
const RUNS: usize = 5;

fn main() {
    println!(
        "{:<22} {:>12} {:>10} {:>12} {:>10} {:>10}  promise",
        "a day of", "changes", "size", "bytes/change", "written in", "opened in"
    );
    measure("half the sites a minute", 2, false);
    measure("all sites a minute", 1, false);
    measure("all, sampled", 1, true);
}

/// A sequence of numbers that looks like chance (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn measure(name: &str, one_in: u64, sampled: bool) {
    let mut out = Vec::new();
    let begun = Instant::now();
    let changes = record(&mut out, one_in, sampled);
    let written = begun.elapsed();
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let bytes = out.clone();
        let begun = Instant::now();
        let recording = Recording::read(bytes).unwrap();
        let profile = recording.profile();
        times.push(begun.elapsed());
        assert_eq!(recording.damage(), None);
        assert_eq!(profile.sites.len() as u64, SITES);
    }
    times.sort();
    let opened = times[RUNS / 2];
    println!(
        "{name:<22} {changes:>12} {:>7.1} MB {:>12.2} {:>8.1} s {:>7} ms  {}",
        out.len() as f64 / 1e6,
        out.len() as f64 / changes as f64,
        written.as_secs_f64(),
        opened.as_millis(),
        if out.len() < MOST_BYTES && opened < MOST_TIME { "kept" } else { "BROKEN" },
    );
}

fn frame(function: String, line: u64) -> Arc<Frame> {
    Arc::new(Frame {
        file: Some(format!("/build/service/src/module_{}.cc", line % 97)),
        line: u32::try_from(line).ok(),
        module: Some("/usr/lib/x86_64-linux-gnu/libservice.so.7".into()),
        address: 0x7f00_0000_0000 + 16 * line,
        module_offset: Some(16 * line),
        kind: FrameKind::Native,
        role: FrameRole::Library,
        ..Frame::remark(&function)
    })
}

fn stack(site: u64) -> Vec<Arc<Frame>> {
    let own =
        |at: u64| frame(format!("service::Handler<{}>::step_{at}", site / (1 + at)), 100_000 + site * 2 + at);
    let shared = |at: u64| {
        let line = at * 64 + (site >> at.min(12)) % 64;
        frame(format!("service::layer_{at}::dispatch_{}", line % 64), line)
    };
    (0..2).map(own).chain((2..FRAMES).map(shared)).collect()
}

/// Writes the recording; how many changes of sites it has.
fn record(out: &mut Vec<u8>, one_in: u64, sampled: bool) -> u64 {
    let mode = Mode { sample_interval: sampled.then_some(512 << 10), ..Mode::default() };
    let head = Head { target: TargetInfo::default(), started: SystemTime::UNIX_EPOCH, mode };
    let mut writer = Writer::begin(out, &head).unwrap();
    for site in 0..SITES {
        writer.define(site, "glibc", &stack(site)).unwrap();
    }
    let mut random = Random(1);
    let mut state = vec![Counters::default(); SITES as usize];
    let mut changes = 0;
    for minute in 0..SNAPSHOTS {
        let mut changed = Vec::new();
        for site in 0..SITES {
            if random.below(one_in) == 0 {
                let counters = &mut state[site as usize];
                step(counters, site, &mut random, sampled);
                changed.push((site, *counters));
            }
        }
        changes += changed.len() as u64;
        let rss = Some((1 << 30) + 4096 * random.below(1 << 16));
        let moment = Moment {
            after: Duration::from_secs(60 * minute),
            resident: Resident { rss, anon: rss, ..Resident::default() },
            marks: Vec::new(),
        };
        let quality = Quality { probe_hits: minute * 1_000_003, ..Quality::default() };
        writer.snapshot(&moment, &quality, &head.mode, changed).unwrap();
    }
    writer.close(&closing(&head, &state), &(0..SITES).collect::<Vec<_>>(), false).unwrap();
    changes
}

/// A minute of one site.
fn step(counters: &mut Counters, site: u64, random: &mut Random, sampled: bool) {
    // Most stacks allocate blocks of one size.
    let mean = 16 + 8 * (site % 512);
    let rate = 1 + site % 600;
    let blocks = rate + random.below(1 + rate / 4);
    let varies = site.is_multiple_of(8);
    let size = if varies { mean + random.below(mean) } else { mean };
    let kept = match site % 10 {
        0 => blocks,
        1..6 => 0,
        // A cache that breathes.
        _ => blocks / 2,
    };
    let freed = (blocks - kept).min(counters.inuse_objects + blocks)
        + (site % 10 > 5) as u64 * (counters.inuse_objects / 3);
    let freed = freed.min(counters.inuse_objects + blocks);
    let freed_space = if freed == counters.inuse_objects + blocks {
        counters.inuse_space + blocks * size
    } else {
        freed * if varies { size } else { mean }
    };
    counters.alloc_objects += blocks;
    counters.alloc_space += blocks * size;
    counters.inuse_objects = counters.inuse_objects + blocks - freed;
    counters.inuse_space = (counters.inuse_space + blocks * size).saturating_sub(freed_space);
    if site.is_multiple_of(3) {
        counters.temporary_objects += freed;
    }
    if sampled {
        let error = |number: u64| ((number as f64).sqrt() * 17.0) as u64;
        counters.errors = [
            error(counters.inuse_space),
            error(counters.inuse_objects),
            error(counters.alloc_space),
            error(counters.alloc_objects),
        ];
    }
}

fn closing(head: &Head, state: &[Counters]) -> Profile {
    let mut totals = Totals::default();
    let sites = (0..).zip(state).map(|(site, counters)| {
        let Counters { inuse_space, inuse_objects, alloc_space, alloc_objects, .. } = *counters;
        totals.inuse_space += inuse_space;
        totals.inuse_objects += inuse_objects;
        totals.alloc_space += alloc_space;
        totals.alloc_objects += alloc_objects;
        SiteReport {
            totals: Totals { inuse_space, inuse_objects, alloc_space, alloc_objects },
            errors: None,
            oldest: Some(Duration::from_secs(60)),
            allocator: "glibc".into(),
            stack: stack(site),
            history: Default::default(),
            kept: None,
        }
    });
    let sites = sites.collect();
    Profile {
        target: head.target.clone(),
        started: head.started,
        duration: Duration::from_secs(86_400),
        mode: head.mode.clone(),
        totals,
        errors: None,
        quality: Quality::default(),
        history: Default::default(),
        sites,
        code: Vec::new(),
        mapped: None,
        windowed: None,
        python: None,
        growth: None,
    }
}
