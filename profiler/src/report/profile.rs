//! The finished, named account that every report is made from.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use profiler_common::records::Held;

use super::{
    budget::{BudgetReport, Kept, Recorded, Windowed},
    growth::GrowthReport,
    history::{History, SiteHistory},
    mapped::MappedMemory,
    pools::PythonMemory,
};
use crate::symbolize::frame::Frame;

/// Whose memory this is.
#[derive(Clone, Debug, Default)]
pub struct TargetInfo {
    /// Process id, as seen by the person who attached.
    pub pid: u32,
    /// The command line, arguments separated by spaces.
    pub command: String,
    /// The executable's path in the target's own view.
    pub exe: String,
}

/// pprof's four sample types, in bytes and objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Bytes allocated since attach and not freed by the moment that [`Mode::at`] names.
    pub inuse_space: u64,
    /// Blocks of those.
    pub inuse_objects: u64,
    /// Bytes allocated since attach.
    pub alloc_space: u64,
    /// Blocks allocated since attach.
    pub alloc_objects: u64,
}

impl Totals {
    /// The same errors, but of what was allocated those given, if there are any.
    #[must_use]
    pub fn with_alloc(self, error: Option<Held>) -> Self {
        match error {
            Some(Held { objects, space }) => Self { alloc_objects: objects, alloc_space: space, ..self },
            None => self,
        }
    }
}

/// The moment that a profile's live memory is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum At {
    /// The end of the observation.
    #[default]
    End,
    /// When the most bytes were live.
    Peak,
    /// When the process called `exit`, before its exit handlers ran.
    Exit,
}

impl At {
    /// The name that reports and flags use.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Peak => "peak",
            Self::Exit => "exit",
        }
    }
}

/// How the numbers came about.
#[derive(Clone, Debug, Default)]
pub struct Mode {
    /// The moment that `inuse_space` and `inuse_objects` are of.
    pub at: At,
    /// Mean bytes from one sample to the next, at most; `None` where every allocation was recorded.
    pub sample_interval: Option<u64>,
    /// The budget, and what it led to.
    pub budget: BudgetReport,
    /// `attach` or `run`.
    pub command: String,
    /// `session`, `multi` or `perf`: how the probes were attached.
    pub probes: String,
    /// Only allocations of at least so many bytes, where asked for.
    pub min_size: Option<u64>,
    /// Only allocations of at most so many bytes, where asked for.
    pub max_size: Option<u64>,
    /// Only blocks at least so old at the end are counted as in use, where asked for.
    pub min_age: Option<Duration>,
    /// Only allocations by certain functions, where asked for.
    pub only_caller: Option<OnlyCaller>,
}

/// Allocations by certain functions alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OnlyCaller {
    /// What was asked for.
    pub asked: String,
    /// Which functions these are, and how their calls are told from others, as the end of a sentence.
    pub how: String,
    /// Whether their calls alone have probes, so that others are not even counted.
    pub by_calls: bool,
}

impl Mode {
    /// Whether the numbers are what the program told of itself.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.budget.steps.iter().any(|(_, recorded)| *recorded == Recorded::Told)
    }

    /// The name that reports use for how allocations were chosen.
    #[must_use]
    pub fn sampling(&self) -> &'static str {
        if self.budget.steps.iter().any(|(_, recorded)| matches!(recorded, Recorded::Windows(_))) {
            "windows"
        } else if self.is_told() {
            "usdt"
        } else if self.sample_interval.is_some() {
            "sampled"
        } else {
            "exact"
        }
    }
}

/// How far the numbers can be trusted. A zero here is a measurement.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// Frees of blocks that are older than the attach or were filtered out. Not an error.
    pub unmatched_frees: u64,
    /// Allocator calls that returned no memory.
    pub failed_allocations: u64,
    /// Allocations left out by the size filters.
    pub filtered_allocations: u64,
    /// Allocations left out because another function made them, of those that were seen.
    pub other_callers: u64,
    /// Allocations that a sampler has not recorded.
    pub unsampled_allocations: u64,
    /// Losses by reason (a counter's label); reasons with a count of zero are listed too.
    pub lost: BTreeMap<String, u64>,
    /// Stacks walked, the denominator of the two below.
    pub stacks_walked: u64,
    /// Stacks cut at the frame limit.
    pub truncated_stacks: u64,
    /// Stacks that ended before the thread's first function, by reason.
    pub incomplete_stacks: BTreeMap<String, u64>,
    /// Frames found by frame-pointer guess.
    pub guessed_frames: u64,
    /// What was caused in the target: probe hits and our share of its CPU time in percent, where it could be measured.
    pub probe_hits: u64,
    /// Our estimated share of the target's CPU time, in percent.
    pub overhead_percent: Option<f64>,
    /// Sentences that the reader must see: libraries without unwind tables, an exec, no events at all.
    pub warnings: Vec<String>,
}

/// One site: a whole stack at allocation, with what it allocated.
#[derive(Clone, Debug)]
pub struct SiteReport {
    /// Its part of the totals.
    pub totals: Totals,
    /// Their standard errors, where they are estimates.
    pub errors: Option<Totals>,
    /// Age of its oldest block that lives at the end; `None` where it has none.
    pub oldest: Option<Duration>,
    /// The allocator that served it, for example `glibc` or `jemalloc`.
    pub allocator: String,
    /// Leaf first: the allocator's caller, then its caller, to the thread's first function.
    pub stack: Vec<Arc<Frame>>,
    /// Moments, sizes, threads.
    pub history: SiteHistory,
    /// What it kept, where calls were seen in windows only.
    pub kept: Option<Kept>,
}

impl SiteReport {
    /// What the pictures and the table show of it: live blocks, or what it kept where it is not known what is live.
    #[must_use]
    pub fn shown(&self) -> Held {
        let Totals { inuse_objects, inuse_space, .. } = self.totals;
        self.kept.map_or(Held { objects: inuse_objects, space: inuse_space }, |kept| kept.held)
    }
}

/// A file with code as it was mapped into the target.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct CodeMapping {
    /// The file as the target sees it: [`Frame::module`] of the frames in it.
    pub path: String,
    /// Its GNU build-id in hexadecimal digits, where it has one.
    pub build_id: Option<String>,
    /// First address and one past the last.
    pub range: Range<u64>,
    /// The offset in the file that the first address shows, in bytes.
    pub file_offset: u64,
}

/// Everything that a report needs.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Whose memory.
    pub target: TargetInfo,
    /// When the probes went live.
    pub started: SystemTime,
    /// How long they were.
    pub duration: Duration,
    /// How.
    pub mode: Mode,
    /// Sums over all sites.
    pub totals: Totals,
    /// Their standard errors, where they are estimates.
    pub errors: Option<Totals>,
    /// How far to trust it.
    pub quality: Quality,
    /// What happened on the way.
    pub history: History,
    /// The sites, most live bytes first.
    pub sites: Vec<SiteReport>,
    /// Windows, if calls were seen in such only.
    pub windowed: Option<Windowed>,
    /// Where the frames' files were mapped. Two may overlap where one came after the other.
    pub code: Vec<CodeMapping>,
    /// Mapped memory, if it was watched.
    pub mapped: Option<MappedMemory>,
    /// Python's small objects, if the process runs an interpreter.
    pub python: Option<PythonMemory>,
    /// Growth, if that was watched and not blocks.
    pub growth: Option<GrowthReport>,
}
