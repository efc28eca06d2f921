//! heapscope's JSON report as the tests read it (docs/json.md).

use std::collections::BTreeMap;

use serde::Deserialize;

/// The whole report.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) version: u32,
    pub(crate) target: Target,
    pub(crate) duration_seconds: f64,
    pub(crate) mode: Mode,
    pub(crate) totals: Totals,
    /// Where the totals are estimates.
    pub(crate) standard_errors: Option<Totals>,
    pub(crate) quality: Quality,
    pub(crate) peak: Option<Moment>,
    pub(crate) exit: Option<Moment>,
    pub(crate) generations: Vec<Generation>,
    pub(crate) snapshots: Vec<Moment>,
    pub(crate) birth_span_seconds: f64,
    pub(crate) sites: Vec<Site>,
    /// With `--mmap`.
    pub(crate) mappings: Option<Mappings>,
    /// Where the target runs Python.
    pub(crate) python: Option<Python>,
    /// Where calls were seen in windows only.
    pub(crate) windows: Option<InWindows>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct InWindows {
    pub(crate) count: u64,
    pub(crate) kept: Kept,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Kept {
    pub(crate) space: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Recorded {
    pub(crate) sampling: String,
}

/// Python's small objects.
#[derive(Debug, Deserialize)]
pub(crate) struct Python {
    pub(crate) small_objects_by: String,
    pub(crate) pool_samples: Option<PoolSamples>,
    pub(crate) all_objects: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PoolSamples {
    pub(crate) pool_size: u64,
    pub(crate) opened: u64,
    pub(crate) inuse_pools: Option<u64>,
    pub(crate) sites: Vec<PoolSite>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PoolSite {
    pub(crate) opened: u64,
    pub(crate) inuse_pools: u64,
    pub(crate) inuse_object_space: u64,
    pub(crate) stack: Vec<Frame>,
}

/// Mapped memory.
#[derive(Debug, Deserialize)]
pub(crate) struct Mappings {
    pub(crate) inuse_space: u64,
    pub(crate) inuse_pieces: u64,
    pub(crate) alloc_space: u64,
    pub(crate) peak_space: u64,
    pub(crate) calls: MappingCalls,
    pub(crate) calls_inside_allocator: u64,
    pub(crate) brk: HeapGrowth,
    pub(crate) sites: Vec<MappedSite>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct MappingCalls {
    pub(crate) mmap: u64,
    pub(crate) munmap: u64,
    pub(crate) mremap: u64,
    pub(crate) failed: u64,
    pub(crate) unmatched: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HeapGrowth {
    pub(crate) begin_space: Option<u64>,
    pub(crate) end_space: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct MappedSite {
    pub(crate) inuse_space: u64,
    pub(crate) alloc_space: u64,
    pub(crate) alloc_calls: u64,
    ranges: Vec<[String; 2]>,
    /// The caller of mmap or mremap first.
    pub(crate) stack: Vec<Frame>,
}

impl MappedSite {
    /// Its pieces: first address and one past the last.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let number = |text: &String| u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap();
        self.ranges.iter().map(move |[start, end]| (number(start), number(end)))
    }

    /// Names, the leaf first; `?` where there is none.
    pub(crate) fn functions(&self) -> Vec<&str> {
        self.stack.iter().map(|frame| frame.function.as_deref().unwrap_or("?")).collect()
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) pid: u32,
    pub(crate) command: String,
    pub(crate) exe: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Mode {
    pub(crate) sampling: String,
    pub(crate) sample_interval: Option<u64>,
    pub(crate) budget_percent: Option<f64>,
    pub(crate) recorded: Vec<Recorded>,
    pub(crate) at: String,
    pub(crate) probes: String,
    pub(crate) only_caller: Option<OnlyCaller>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OnlyCaller {
    pub(crate) how: String,
    pub(crate) by_calls: bool,
}

/// Live memory at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Held {
    pub(crate) inuse_space: u64,
    pub(crate) inuse_objects: u64,
}

/// A moment, or a snapshot.
#[derive(Debug, Deserialize)]
pub(crate) struct Moment {
    pub(crate) seconds: f64,
    #[serde(flatten)]
    pub(crate) held: Held,
    pub(crate) rss: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Generation {
    pub(crate) mark: Option<String>,
    #[serde(flatten)]
    pub(crate) held: Held,
}

/// What a site holds of one generation.
#[derive(Debug, Deserialize)]
pub(crate) struct SiteGeneration {
    pub(crate) generation: usize,
    #[serde(flatten)]
    pub(crate) held: Held,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SizeClass {
    pub(crate) smallest: u64,
    pub(crate) largest: Option<u64>,
    pub(crate) alloc_objects: u64,
    pub(crate) inuse_objects: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Thread {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) held: Held,
}

/// pprof's four numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
pub(crate) struct Totals {
    pub(crate) inuse_space: u64,
    pub(crate) inuse_objects: u64,
    pub(crate) alloc_space: u64,
    pub(crate) alloc_objects: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Quality {
    pub(crate) unmatched_frees: u64,
    pub(crate) failed_allocations: u64,
    #[serde(default)]
    pub(crate) unsampled_allocations: u64,
    pub(crate) filtered_allocations: u64,
    #[serde(default)]
    pub(crate) other_callers: u64,
    pub(crate) lost: BTreeMap<String, u64>,
    pub(crate) stacks_walked: u64,
    pub(crate) truncated_stacks: u64,
    pub(crate) incomplete_stacks: BTreeMap<String, u64>,
    pub(crate) guessed_frames: u64,
    pub(crate) probe_hits: u64,
    pub(crate) overhead_percent: Option<f64>,
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Site {
    #[serde(flatten)]
    pub(crate) totals: Totals,
    pub(crate) standard_errors: Option<Totals>,
    pub(crate) oldest_seconds: Option<f64>,
    pub(crate) allocator: String,
    pub(crate) temporary_objects: u64,
    pub(crate) peak: Held,
    pub(crate) exit: Held,
    pub(crate) sizes: Vec<SizeClass>,
    pub(crate) threads: Vec<Thread>,
    pub(crate) generations: Vec<SiteGeneration>,
    /// Index of a snapshot, and live bytes from then on.
    pub(crate) over_time: Vec<(usize, u64)>,
    /// Number of a span of time, and the bytes and blocks born in it that live at the end.
    pub(crate) births: Vec<(usize, u64, u64)>,
    /// The allocator's caller first.
    pub(crate) stack: Vec<Frame>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Frame {
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) module: Option<String>,
    address: String,
    kind: String,
    inlined: bool,
    pub(crate) guessed: bool,
}

impl Frame {
    /// The return address of a frame that is really on the stack; `None` for an inlined function, one of a language's
    /// own, and the note that stands where a stack ends early.
    pub(crate) fn return_address(&self) -> Option<u64> {
        let address = u64::from_str_radix(self.address.strip_prefix("0x").unwrap(), 16).unwrap();
        (self.kind == "native" && !self.inlined && address != 0).then_some(address)
    }
}

impl Totals {
    pub(crate) fn add(&mut self, other: Self) {
        self.inuse_space += other.inuse_space;
        self.inuse_objects += other.inuse_objects;
        self.alloc_space += other.alloc_space;
        self.alloc_objects += other.alloc_objects;
    }

    pub(crate) fn allocated(&mut self, size: u64) {
        self.add(Self { inuse_space: size, inuse_objects: 1, alloc_space: size, alloc_objects: 1 });
    }

    pub(crate) fn freed(&mut self, size: u64) {
        self.inuse_space -= size;
        self.inuse_objects -= 1;
    }
}

impl Report {
    /// The sum of the sites that `wanted` holds for.
    pub(crate) fn sum(&self, wanted: impl Fn(&Site) -> bool) -> Totals {
        let mut sum = Totals::default();
        self.sites.iter().filter(|site| wanted(site)).for_each(|site| sum.add(site.totals));
        sum
    }

    /// What was allocated below a function.
    pub(crate) fn below(&self, function: &str) -> Totals {
        self.sum(|site| site.has(function))
    }

    /// Stacks that did not reach the thread's first function.
    pub(crate) fn incomplete(&self) -> u64 {
        self.quality.incomplete_stacks.values().sum()
    }

    /// The share of stacks that are whole.
    pub(crate) fn complete_share(&self) -> f64 {
        let walked = self.quality.stacks_walked;
        let whole = walked.saturating_sub(self.incomplete() + self.quality.truncated_stacks);
        if walked == 0 { 0.0 } else { whole as f64 / walked as f64 }
    }

    /// Fails where anything is missing from the account, or the account does not add up.
    pub(crate) fn assert_nothing_lost(&self) {
        assert_eq!(self.version, 1);
        let lost: Vec<_> = self.quality.lost.iter().filter(|(_, lost)| **lost > 0).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        // A zero must be a measurement: the reasons are all there.
        for reason in
            ["address_clash", "ledger_discrepancy", "live_map_full", "pending_map_full", "scratch_busy"]
        {
            assert!(self.quality.lost.contains_key(reason), "{reason} is not reported");
        }
        assert_eq!(self.sum(|_| true), self.totals, "the sites do not add up to the totals");
    }

    /// Fails where a stack is not whole, from the allocator's caller to the thread's first function.
    pub(crate) fn assert_stacks_whole(&self) {
        assert_eq!(self.incomplete(), 0, "{:?} {:#?}", self.quality.incomplete_stacks, self.broken());
        assert_eq!((self.quality.truncated_stacks, self.quality.guessed_frames), (0, 0));
        assert!(self.broken().is_empty(), "{:#?}", self.broken());
    }

    fn broken(&self) -> Vec<Vec<&str>> {
        let broken = self.sites.iter().filter(|site| !site.is_whole());
        broken.map(Site::functions).collect()
    }
}

/// The functions that no other function called: of a process, and of a thread (glibc's names).
const FIRST_FUNCTIONS: [&str; 4] = ["_start", "clone", "clone3", "__clone3"];

/// The Python frames of a stack, innermost first: function without what is around it, file, line.
pub(crate) fn python(stack: &[Frame]) -> Vec<(String, String, u32)> {
    let python = stack.iter().filter(|frame| frame.kind == "python");
    let name = |frame: &Frame| {
        let function = frame.function.as_deref().unwrap_or("?");
        function.rsplit('.').next().unwrap_or("?").to_owned()
    };
    python.map(|f| (name(f), f.file.clone().unwrap_or_default(), f.line.unwrap_or_default())).collect()
}

impl Site {
    /// Names from the allocator's caller on; `?` where there is none.
    pub(crate) fn functions(&self) -> Vec<&str> {
        self.stack.iter().map(|frame| frame.function.as_deref().unwrap_or("?")).collect()
    }

    pub(crate) fn has(&self, function: &str) -> bool {
        self.stack.iter().any(|frame| frame.function.as_deref() == Some(function))
    }

    /// The return addresses on the stack, as a debugger would list them.
    pub(crate) fn return_addresses(&self) -> Vec<u64> {
        self.stack.iter().filter_map(Frame::return_address).collect()
    }

    /// The Python frames, innermost first: function without what is around it, file, line.
    pub(crate) fn python(&self) -> Vec<(String, String, u32)> {
        python(&self.stack)
    }

    /// Whether a note stands where the rest of the stack should.
    pub(crate) fn ended_early(&self) -> bool {
        self.functions().last().is_some_and(|last| last.starts_with("[stack "))
    }

    /// Whether it ends with a function that no other function called.
    pub(crate) fn reaches_the_first_function(&self) -> bool {
        FIRST_FUNCTIONS.contains(&self.functions().last().copied().unwrap_or_default())
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.reaches_the_first_function() && self.stack.iter().all(|frame| !frame.guessed)
    }
}
