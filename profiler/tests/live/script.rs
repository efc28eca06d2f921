//! Orders to the fixture `calls.c` and the account that must come out of them, kept here by the rules of the C standard
//! and of glibc's manual, without any knowledge of heapscope.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::Command,
};

use crate::support::{
    fixture,
    heapscope::Heapscope,
    model::THREAD_CACHE,
    program::Program,
    report::{Report, Site, Totals},
};

/// A block in a slot: its path and size, or nothing where heapscope cannot know it.
type Known = Option<(String, u64)>;

/// What an allocator call of the driver came back with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// A block at another address than the one handed in, if any.
    Block,
    /// The block at the address that was handed in.
    Same,
    /// Nothing, and errno.
    Null(i32),
}

/// The driver and its account.
pub(crate) struct Script {
    pub(crate) program: Program,
    watched: bool,
    /// Sizes that are recorded.
    pub(crate) recorded: std::ops::RangeInclusive<u64>,
    slots: HashMap<u64, Known>,
    paths: BTreeMap<String, Totals>,
    unmatched_frees: u64,
    failed_allocations: u64,
    filtered_allocations: u64,
    /// Parts of the names of C library functions that allocate for themselves, and were ordered to.
    helpers: Vec<&'static str>,
    threads: u64,
}

/// What the driver's paths are called.
const PATHS: [&str; 6] = ["red", "green", "blue", "deep", "variable", "aligned"];

/// A path of so many calls of this function: `step1`, `step2` and so on are paths of their own.
const STEP: &str = "step";

impl Script {
    pub(crate) fn start() -> Self {
        Self::of(&mut Command::new(fixture::calls()))
    }

    /// A driver that is started in some other way.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self {
            program: Program::start_until(command, "ready"),
            watched: false,
            recorded: 0..=u64::MAX,
            slots: HashMap::new(),
            paths: BTreeMap::new(),
            unmatched_frees: 0,
            failed_allocations: 0,
            filtered_allocations: 0,
            helpers: Vec::new(),
            threads: 0,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// From now on heapscope watches: the account begins.
    pub(crate) fn watched(&mut self) {
        self.watched = true;
    }

    /// One allocator call: `red malloc SLOT SIZE` and the like.
    pub(crate) fn order(&mut self, order: &str) -> Answer {
        let answer = self.say(order);
        self.account(order, answer);
        answer
    }

    /// The same, where the driver may lack the function: then `None`.
    pub(crate) fn try_order(&mut self, order: &str) -> Option<Answer> {
        let answer = self.say(order);
        (answer != Answer::Null(0) || order.ends_with(" 0")).then(|| {
            self.account(order, answer);
            answer
        })
    }

    /// Several, none of which may fail.
    pub(crate) fn orders(&mut self, orders: &[&str]) {
        for order in orders {
            let answer = self.order(order);
            assert!(!matches!(answer, Answer::Null(_)), "{order}: {answer:?}");
        }
    }

    /// One call in a thread of its own, which ends with it.
    pub(crate) fn in_thread(&mut self, order: &str) {
        self.helpers.push("pthread_create");
        self.threads += 1;
        let answer = answer(&self.program.ask(&format!("thread {order}")));
        self.account(order, answer);
    }

    /// `PATH malloc FIRST_SLOT SIZE`, so many times, each in a slot of its own.
    pub(crate) fn repeat(&mut self, count: u64, path: &str, first_slot: u64, size: u64) {
        let reply = self.program.ask(&format!("repeat {count} {path} malloc {first_slot} {size}"));
        assert_eq!(reply, "block");
        for slot in first_slot..first_slot + count {
            self.allocated(path, slot, size);
        }
    }

    pub(crate) fn free(&mut self, slot: u64) {
        self.control(&format!("free {slot}"), "done");
        self.freed(slot);
    }

    pub(crate) fn free_in_thread(&mut self, slot: u64) {
        self.helpers.push("pthread_create");
        self.threads += 1;
        self.control(&format!("thread free {slot}"), "done");
        self.freed(slot);
    }

    pub(crate) fn free_range(&mut self, first_slot: u64, count: u64) {
        self.control(&format!("free_range {first_slot} {count}"), "done");
        (first_slot..first_slot + count).for_each(|slot| self.freed(slot));
    }

    /// Loads the library; the dynamic loader allocates for it.
    pub(crate) fn load_plugin(&mut self, library: &Path) {
        self.helpers.push("dlopen");
        self.control(&format!("dlopen {}", library.display()), "done");
    }

    /// Waits until heapscope has taken up all that is mapped.
    pub(crate) fn is_known_to(&mut self, heapscope: &Heapscope) {
        heapscope.catch_up(|mark| self.control(&format!("map {}", mark.display()), "mapped"));
    }

    /// An order that allocates nothing itself.
    pub(crate) fn control(&mut self, order: &str, expected: &str) {
        assert_eq!(self.program.ask(order), expected, "{order}");
    }

    /// What glibc itself says is in use, in bytes.
    pub(crate) fn mallinfo(&mut self) -> u64 {
        self.program.ask("mallinfo").strip_prefix("bytes ").unwrap().parse().unwrap()
    }

    /// The expected totals of one path.
    pub(crate) fn expected(&self, path: &str) -> Totals {
        self.paths.get(path).copied().unwrap_or_default()
    }

    /// Calls any function that gives a block of this size: `red any SLOT NAME ARGUMENTS…`, or `into` where it stores the
    /// block. With `@` among the arguments it is handed the block in the slot, as realloc is.
    pub(crate) fn any(&mut self, order: &str, size: u64) -> Answer {
        let answer = self.say(order);
        self.outcome(order, size, order.contains(" @"), answer);
        answer
    }

    /// Calls a function that raises a signal, whose handler carries out another order; the answer is the function's.
    pub(crate) fn interrupted(&mut self, by: &str, order: &str, size: u64) -> Answer {
        let answer = self.say(&format!("interrupted {} {by} {order}", by.split(' ').count()));
        // The handler's stack ends at the function, whose return address is the kernel's as long as it is watched.
        self.account(by, Answer::Block);
        self.outcome(order, size, order.contains(" @"), answer);
        answer
    }

    /// Calls a function that resizes a block in place: `red resize SLOT NAME ARGUMENTS…`. Whether it has that size now.
    pub(crate) fn resize(&mut self, order: &str, size: u64) -> bool {
        let now: u64 = self.program.ask(order).strip_prefix("size ").unwrap().parse().unwrap();
        if now >= size {
            self.outcome(order, size, true, Answer::Same);
        }
        now >= size
    }

    /// Calls a function that frees the block in the slot: `NAME ARGUMENTS…`.
    pub(crate) fn drop_by(&mut self, slot: u64, call: &str) {
        self.control(&format!("drop {slot} {call}"), "done");
        self.freed(slot);
    }

    /// A function of the C library that is known to allocate without a stack to a path.
    pub(crate) fn tolerate(&mut self, function: &'static str) {
        self.helpers.push(function);
    }

    /// Whether anything was allocated on a path.
    pub(crate) fn made(&self, path: &str) -> bool {
        self.paths.contains_key(path)
    }

    /// Holds the sum over all sites against the sum over all paths, up to what a thread's start may allocate.
    pub(crate) fn assert_totals(&self, report: &Report) {
        let mut sum = Totals::default();
        self.paths.values().for_each(|totals| sum.add(*totals));
        let of_threads = report.sum(|site| {
            path_of(site).is_none()
                && site.functions().iter().any(|function| function.contains("pthread_create"))
        });
        sum.add(of_threads);
        assert_eq!(report.totals, sum);
    }

    /// Notes that the block in the slot is gone, by something that was not ordered here.
    pub(crate) fn gone(&mut self, slot: u64) {
        self.freed(slot);
    }

    /// Whether the driver can call this function.
    pub(crate) fn has(&mut self, function: &str) -> bool {
        self.program.ask(&format!("has {function}")) == "yes"
    }

    /// What a report says of each path; sites that lie on none must be of functions known to allocate for themselves.
    pub(crate) fn found(&self, report: &Report) -> BTreeMap<String, Totals> {
        let mut found: BTreeMap<String, Totals> = BTreeMap::new();
        for site in &report.sites {
            match path_of(site) {
                Some(path) => found.entry(path).or_default().add(site.totals),
                None => {
                    let known = |function: &&str| self.helpers.iter().any(|helper| function.contains(helper));
                    let known = site.functions().iter().any(known);
                    assert!(known, "nobody ordered this: {:?}", site.functions());
                }
            }
        }
        found
    }

    /// Holds a report against the account, to the byte.
    pub(crate) fn assert_account(&self, report: &Report) {
        assert_eq!(report.target.pid, self.pid());
        assert_eq!(self.found(report), self.paths);
        self.assert_quality(report);
    }

    /// The same for all but the sites.
    pub(crate) fn assert_quality(&self, report: &Report) {
        report.assert_nothing_lost();
        let quality = &report.quality;
        assert_eq!(
            (quality.failed_allocations, quality.filtered_allocations),
            (self.failed_allocations, self.filtered_allocations),
            "failed and filtered allocations"
        );
        let most = self.unmatched_frees + self.threads * THREAD_CACHE;
        assert!(
            (self.unmatched_frees..=most).contains(&quality.unmatched_frees),
            "{} <= {} <= {most} unmatched frees",
            self.unmatched_frees,
            quality.unmatched_frees
        );
    }

    fn say(&mut self, order: &str) -> Answer {
        answer(&self.program.ask(order))
    }

    fn account(&mut self, order: &str, answer: Answer) {
        let words: Vec<&str> = order.split(' ').collect();
        let number = |index: usize| words[index].parse::<u64>().unwrap();
        let size = match words[1] {
            "malloc" | "valloc" | "pvalloc" | "realloc" | "plugin" => number(3),
            "calloc" | "reallocarray" => number(3).saturating_mul(number(4)),
            "memalign" | "aligned_alloc" | "posix_memalign" => number(4),
            "strdup" => number(3) + 1,
            _ => panic!("{order}"),
        };
        self.outcome(order, size, words[1].starts_with("realloc"), answer);
    }

    fn outcome(&mut self, order: &str, size: u64, reallocates: bool, answer: Answer) {
        let mut words = order.split(' ');
        let path = words.next().unwrap();
        let path =
            if path.starts_with(STEP) { path } else { path.trim_end_matches(|c: char| c.is_ascii_digit()) };
        let slot = words.nth(1).unwrap().parse().unwrap();
        match answer {
            // The block is gone; nothing comes in its place.
            Answer::Null(_) if reallocates && size == 0 && self.slots.contains_key(&slot) => self.freed(slot),
            Answer::Null(_) if reallocates || self.recorded.contains(&size) => {
                self.failed_allocations += u64::from(self.watched);
            }
            Answer::Null(_) => self.filtered_allocations += u64::from(self.watched),
            Answer::Block | Answer::Same => {
                if reallocates {
                    self.freed(slot);
                }
                self.allocated(path, slot, size);
            }
        }
    }

    fn allocated(&mut self, path: &str, slot: u64, size: u64) {
        let recorded = self.watched && self.recorded.contains(&size);
        self.filtered_allocations += u64::from(self.watched && !recorded);
        if recorded {
            self.paths.entry(path.to_owned()).or_default().allocated(size);
        }
        let before = self.slots.insert(slot, recorded.then(|| (path.to_owned(), size)));
        assert!(before.is_none(), "slot {slot} is taken");
    }

    fn freed(&mut self, slot: u64) {
        match self.slots.remove(&slot) {
            Some(Some((path, size))) => self.paths.get_mut(&path).unwrap().freed(size),
            Some(None) => self.unmatched_frees += u64::from(self.watched),
            // free(NULL)
            None => {}
        }
    }
}

/// The driver's path on which a site lies: the one nearest to the root.
pub(crate) fn path_of(site: &Site) -> Option<String> {
    let mut functions = site.functions();
    functions.reverse();
    let steps = functions.iter().filter(|&&function| function == STEP).count();
    if steps > 0 {
        return Some(format!("{STEP}{steps}"));
    }
    functions.into_iter().find(|function| PATHS.contains(function)).map(str::to_owned)
}

fn answer(reply: &str) -> Answer {
    match reply {
        "block" => Answer::Block,
        "same" => Answer::Same,
        _ => {
            let errno = reply.strip_prefix("null ").unwrap_or_else(|| panic!("the driver said `{reply}`"));
            Answer::Null(errno.parse().unwrap())
        }
    }
}
