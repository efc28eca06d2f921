//! The model test at length and at full load: as many calls as the machine can make, for minutes, counted to the byte by a
//! heapscope whose memory stays what it was. `cargo xtask soak` runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_precision_loss)]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::{
    fs,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use support::{
    heapscope::Heapscope,
    model::{Driver, UNBOUNDED, site_function},
};

/// Threads that work on histories, for each core; each history has up to three more.
const THREADS_PER_CORE: u64 = 2;
/// Lines are printed this far apart; the resident memory is read at each of the driver's reports, every five seconds.
const SHOWN_EVERY: Duration = Duration::from_secs(30);
/// What the resident memory may grow by in the last quarter of the time, in KiB. The first half is warm-up.
const MOST_GROWTH: u64 = 1024;

fn main() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let (Some(minutes), Some(seed)) = (asked("HEAPSCOPE_SOAK_MINUTES"), asked("HEAPSCOPE_SOAK_SEED")) else {
        println!("the soak is run by `cargo xtask soak`, which says for how long");
        return;
    };
    let cores = available_parallelism().unwrap().get() as u64;
    let threads = cores * THREADS_PER_CORE;
    let mut driver = Driver::start(seed, UNBOUNDED, threads, minutes * 60);
    let heapscope = Heapscope::attach(driver.pid(), &["--exact"]);
    println!("{minutes} minutes, seed {seed}, {threads} threads on {cores} cores");

    let began = Instant::now();
    let mut shown = began;
    let mut resident = vec![resident_kib(heapscope.pid())];
    let record = driver.work(|calls| {
        resident.push(resident_kib(heapscope.pid()));
        if shown.elapsed() >= SHOWN_EVERY {
            shown = Instant::now();
            let (seconds, now) = (began.elapsed().as_secs(), resident[resident.len() - 1]);
            println!(
                "{seconds:>6} s  {calls:>12} calls  {:>8} a second  {now} KiB resident",
                calls / seconds
            );
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    let report = heapscope.stop();

    let each_second = record.calls as f64 / seconds;
    println!(
        "calls: {} in {seconds:.1} s, {each_second:.0} a second, in {} threads",
        record.calls, record.threads
    );
    println!("heapscope's resident memory, KiB: {}", Resident::of(&resident));
    // Each of these ends the program, with what differs.
    record.assert_equals(&report, site_function);
    println!(
        "equal to the byte: {} allocations of {} bytes at {} sites, {} frees, {} failed calls; {} bytes in {} blocks live; \
         nothing lost",
        report.totals.alloc_objects,
        report.totals.alloc_space,
        report.sites.len(),
        record.frees,
        record.failed,
        report.totals.inuse_space,
        report.totals.inuse_objects
    );
    Resident::of(&resident).assert_flat();
}

/// What was resident, in KiB.
struct Resident {
    start: u64,
    median: u64,
    most: u64,
    end: u64,
    /// Medians of the last two quarters.
    third: u64,
    last: u64,
}

impl Resident {
    fn of(samples: &[u64]) -> Self {
        let quarter = samples.len() / 4;
        let (earlier, last) = samples.split_at(samples.len() - quarter);
        Self {
            start: samples[0],
            median: median(samples),
            most: *samples.iter().max().unwrap(),
            end: samples[samples.len() - 1],
            third: median(&earlier[earlier.len() - quarter..]),
            last: median(last),
        }
    }

    fn assert_flat(&self) {
        assert!(self.last <= self.third + MOST_GROWTH, "it grew in the last quarter of the time: {self}");
    }
}

impl std::fmt::Display for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { start, median, most, end, third, last } = self;
        write!(
            f,
            "start {start}, median {median}, most {most}, end {end}; third quarter {third}, last quarter {last} (medians)"
        )
    }
}

fn median(samples: &[u64]) -> u64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("heapscope has ended");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
