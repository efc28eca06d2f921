//! The ledger against a model: thousands of random histories of allocator calls by many threads, recorded by the program
//! that makes them (the fixture `model.c`), must come out equal to the byte.
//!
//! `cargo xtask soak` does the same with heapscope's release build for ten minutes.

use std::{collections::BTreeMap, process::Command};

use crate::{
    script::THREAD_CACHE,
    support::{
        case::{Case, case, methods},
        fixture,
        heapscope::Heapscope,
        program::Program,
        report::{Report, Totals},
    },
};

pub(crate) const CASES: &[Case] = &[case("model::random_histories_are_counted_exactly", random_histories)];

/// Histories for each way to attach, of some 370 calls each.
const HISTORIES: &str = "1200";
/// Threads that work on histories side by side; each history has up to three more.
const THREADS: &str = "4";

/// What the driver recorded.
struct Record {
    sites: BTreeMap<String, Totals>,
    calls: u64,
    frees: u64,
    failed: u64,
    threads: u64,
}

impl Record {
    /// Lets the driver work and hears its record.
    fn of(driver: &mut Program) -> Self {
        driver.say("go");
        let mut sites = BTreeMap::new();
        loop {
            let line = driver.hear();
            let (name, numbers) = line.split_once(' ').unwrap();
            let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
            let [first, second, third, fourth] = numbers[..] else { panic!("{line}") };
            if name == "total" {
                return Self { sites, calls: first, frees: second, failed: third, threads: fourth };
            }
            let totals = Totals {
                alloc_objects: first,
                alloc_space: second,
                inuse_objects: third,
                inuse_space: fourth,
            };
            sites.insert(name.to_owned(), totals);
        }
    }

    /// Holds a report against the record, to the byte.
    fn assert_equals(&self, report: &Report) {
        let (mut found, mut of_threads) = (BTreeMap::<String, Totals>::new(), Totals::default());
        for site in &report.sites {
            let functions = site.functions();
            match functions.iter().find(|function| function.starts_with("site_")) {
                Some(name) => found.entry((*name).to_owned()).or_default().add(site.totals),
                None => {
                    assert!(functions.iter().any(|name| name.contains("pthread_create")), "{functions:?}");
                    of_threads.add(site.totals);
                }
            }
        }
        assert_eq!(found, self.sites);
        let mut all = of_threads;
        self.sites.values().for_each(|totals| all.add(*totals));
        assert_eq!(report.totals, all);
        let recorded_frees: u64 =
            self.sites.values().map(|totals| totals.alloc_objects - totals.inuse_objects).sum();
        assert_eq!(recorded_frees, self.frees);
        report.assert_nothing_lost();
        report.assert_stacks_whole();
        assert_eq!(report.quality.failed_allocations, self.failed);
        assert_eq!(report.quality.filtered_allocations, 0);
        let most = self.threads * THREAD_CACHE;
        assert!(report.quality.unmatched_frees <= most, "{} <= {most}", report.quality.unmatched_frees);
    }
}

/// `HEAPSCOPE_SEED` asks for other histories.
fn random_histories() {
    let seed: u64 = std::env::var("HEAPSCOPE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let program = fixture::build("model.c", &["-fno-builtin"]);
    for (seed, method) in (seed..).zip(methods()) {
        let mut driver = Program::start_until(
            Command::new(&program).args([&seed.to_string(), HISTORIES, THREADS, "0"]),
            "ready",
        );
        let heapscope = Heapscope::attach(driver.pid(), &["--probes", method]);
        let record = Record::of(&mut driver);
        let report = heapscope.stop();
        println!(
            "{method}, seed {seed}: {} calls, {} frees, {} failed, {} threads, {} sites",
            record.calls,
            record.frees,
            record.failed,
            record.threads,
            report.sites.len()
        );
        assert!(record.calls > 100_000 && record.failed > 1000 && record.threads > 100);
        record.assert_equals(&report);
    }
}
