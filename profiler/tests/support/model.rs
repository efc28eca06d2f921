//! The model that a ledger is held against: a program that makes random histories of allocator calls and records them
//! (the fixture `model.c`), and its record.

use std::{collections::BTreeMap, process::Command};

use super::{
    fixture,
    program::Program,
    report::{Report, Totals},
};

/// A thread that ends hands the free chunks of its cache (64 sizes, 7 chunks each) to `free` for a second time: glibc's
/// `tcache_thread_shutdown`.
pub(crate) const THREAD_CACHE: u64 = 64 * 7;

/// For a number of histories or of seconds: the other one decides.
pub(crate) const UNBOUNDED: u64 = 0;

/// The program.
pub(crate) struct Driver(Program);

impl Driver {
    /// Starts it; it waits to be told to work. `threads` work on histories side by side, until so many histories are done
    /// or so many seconds are over.
    pub(crate) fn start(seed: u64, histories: u64, threads: u64, seconds: u64) -> Self {
        let mut command = Command::new(fixture::build("model.c", &["-fno-builtin"]));
        command.args([seed, histories, threads, seconds].map(|number| number.to_string()));
        Self(Program::start_until(&mut command, "ready"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Lets it work to its end, where it waits, and hears its record. Every few seconds of a bounded time, `progress` is
    /// told the calls so far.
    pub(crate) fn work(&mut self, progress: impl FnMut(u64)) -> Record {
        self.0.say("go");
        Record::hear(&self.0, progress)
    }
}

/// What the driver recorded.
pub(crate) struct Record {
    sites: BTreeMap<String, Totals>,
    pub(crate) calls: u64,
    pub(crate) frees: u64,
    pub(crate) failed: u64,
    /// All that were ever started.
    pub(crate) threads: u64,
}

impl Record {
    /// Hears a record, as `model.c` and `ledger.c` print it.
    pub(crate) fn hear(program: &Program, mut progress: impl FnMut(u64)) -> Self {
        let mut sites = BTreeMap::new();
        loop {
            let line = program.hear();
            let (name, numbers) = line.split_once(' ').unwrap();
            let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
            match (name, numbers.as_slice()) {
                ("progress", &[calls]) => progress(calls),
                ("total", &[calls, frees, failed, threads]) => {
                    return Self { sites, calls, frees, failed, threads };
                }
                (site, &[alloc_objects, alloc_space, inuse_objects, inuse_space]) => {
                    let totals = Totals { alloc_objects, alloc_space, inuse_objects, inuse_space };
                    sites.insert(site.to_owned(), totals);
                }
                _ => panic!("{line}"),
            }
        }
    }

    /// Its sites by their names.
    pub(crate) fn sites(&self) -> &BTreeMap<String, Totals> {
        &self.sites
    }

    /// Holds a report against the record, to the byte. `name_of` is the record's name for a stack, from the allocator's
    /// caller on.
    pub(crate) fn assert_equals(&self, report: &Report, name_of: impl Fn(&[&str]) -> Option<String>) {
        let (mut found, mut of_threads) = (BTreeMap::<String, Totals>::new(), Totals::default());
        for site in &report.sites {
            let functions = site.functions();
            match name_of(&functions) {
                Some(name) => found.entry(name).or_default().add(site.totals),
                None => {
                    assert!(functions.iter().any(|name| name.contains("pthread_create")), "{functions:?}");
                    of_threads.add(site.totals);
                }
            }
        }
        let differing: Vec<_> =
            self.sites.iter().filter(|(name, totals)| found.get(*name) != Some(totals)).take(9).collect();
        let found_there: Vec<_> = differing.iter().map(|(name, _)| found.get(*name)).collect();
        assert!(differing.is_empty(), "recorded {differing:#?}, found {found_there:#?}");
        assert_eq!(found.len(), self.sites.len());
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

/// The name of a stack of `model.c`.
pub(crate) fn site_function(functions: &[&str]) -> Option<String> {
    functions.iter().find(|function| function.starts_with("site_")).map(|name| (*name).to_owned())
}

/// The name that `ledger.c` records a stack by: its path from the root on.
pub(crate) fn path_of_site(functions: &[&str]) -> Option<String> {
    let letter = |function: &&str| match *function {
        "left" => Some('L'),
        "right" => Some('R'),
        _ => None,
    };
    let path: String = functions.iter().rev().filter_map(letter).collect();
    (!path.is_empty()).then_some(path)
}
