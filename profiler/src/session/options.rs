//! What the user asked for, checked and plain.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

use crate::{
    probe::AttachMethod,
    report::{format::Format, profile::At},
    symbolize::wanted::WantedFunction,
    target::allocator::custom::CustomAllocator,
};

/// `heapscope attach`.
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// Process id or name.
    pub target: String,
    /// What all commands share.
    pub common: CommonOptions,
}

/// `heapscope run`.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Whether CPython is to ask malloc for small objects too.
    pub python_all: bool,
    /// What all commands share.
    pub common: CommonOptions,
}

/// `heapscope mark`.
#[derive(Clone, Debug)]
pub struct MarkOptions {
    /// Process id or name of the process that is watched.
    pub target: String,
    /// The mark's name; without one it gets its number.
    pub name: Option<String>,
}

/// `heapscope doctor`.
#[derive(Clone, Debug)]
pub enum DoctorOptions {
    /// With `--unwind`: what is known of these files.
    Unwind(UnwindOptions),
    /// Without: what this machine, and the target, allow.
    Machine {
        /// Process id or name of the target.
        target: Option<String>,
        /// Print JSON.
        json: bool,
        /// More places for separate debug files.
        debug_dirs: Vec<PathBuf>,
    },
}

/// `heapscope doctor --unwind`.
#[derive(Clone, Debug)]
pub struct UnwindOptions {
    /// Programs and libraries whose unwind information is looked at.
    pub files: Vec<PathBuf>,
    /// Which of their rows are listed.
    pub rows: Option<RowsShown>,
}

/// Rows that `heapscope doctor --rows` lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowsShown {
    /// Those that the walk searches.
    Calls,
    /// All that the file describes.
    All,
}

/// What all commands that watch a process share.
#[derive(Clone, Debug)]
pub struct CommonOptions {
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Reports to write.
    pub outputs: Vec<OutputSpec>,
    /// The format for a report that names none.
    pub fallback_format: Option<Format>,
    /// Watch the child processes too.
    pub children: bool,
    /// Count only blocks at least so old.
    pub min_age: Option<Duration>,
    /// Record only allocations of at least so many bytes.
    pub min_size: Option<u64>,
    /// Record only allocations of at most so many bytes.
    pub max_size: Option<u64>,
    /// Record only allocations by functions of these names, if there are any.
    pub only_callers: Vec<WantedFunction>,
    /// How much to record, and what that may cost.
    pub budget: BudgetOptions,
    /// Whether to record what the target tells by USDT probes of its own.
    pub usdt: UsdtUse,
    /// Allocators that the target is said to have beside those known by their names.
    pub allocators: Vec<CustomAllocator>,
    /// Keep an account of mapped memory too.
    pub mmap: bool,
    /// Watch page faults, brk and mmap, and no allocator.
    pub growth: bool,
    /// The moment that the reports are about.
    pub at: At,
    /// Print the table, and take a snapshot of all sites, at this interval.
    pub interval: Option<Duration>,
    /// Sites in the table.
    pub top: usize,
    /// Show the allocator's own frames too.
    pub full_stacks: bool,
    /// Demangle names.
    pub demangle: bool,
    /// More places for separate debug files.
    pub debug_dirs: Vec<PathBuf>,
    /// Most kernel memory for the account, in bytes.
    pub max_memory: u64,
    /// How to attach, where the user insists.
    pub method: Option<AttachMethod>,
    /// No status line.
    pub quiet: bool,
}

/// Whether to record what the target tells by USDT probes of its own, instead of probing its allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UsdtUse {
    /// Where it has such probes, and not every block was asked for.
    #[default]
    Auto,
    /// No.
    Never,
    /// Yes, or nothing.
    Always,
}

/// How much to record, and what that may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BudgetOptions {
    /// Percent of the target's CPU time that the probes may take; `None` for as much as it takes.
    pub percent: Option<f64>,
    /// Part of one processor, from 0 to 1, that they may take all the same: a target that uses little CPU time itself does
    /// not miss it.
    pub at_least: f64,
    /// Every block, or nothing.
    pub exact: bool,
    /// Samples: mean bytes from one to the next, or more where the budget wants it.
    pub sample: Option<u64>,
    /// Whether the target runs already, so that it can be measured before anything is recorded.
    pub measure_first: bool,
    /// What the budget pays in for so many seconds may be taken in advance.
    pub advance: f64,
}

impl CommonOptions {
    /// Those with which heapscope watches itself, to learn what that costs.
    pub(super) fn watching_ourselves(method: AttachMethod, max_memory: u64) -> Self {
        Self {
            duration: None,
            outputs: Vec::new(),
            fallback_format: None,
            children: false,
            min_age: None,
            min_size: None,
            max_size: None,
            only_callers: Vec::new(),
            usdt: UsdtUse::Never,
            budget: BudgetOptions::default(),
            allocators: Vec::new(),
            mmap: false,
            growth: false,
            at: At::End,
            interval: None,
            top: 0,
            full_stacks: false,
            demangle: true,
            debug_dirs: Vec::new(),
            max_memory,
            method: Some(method),
            quiet: true,
        }
    }
}

/// One report to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Where; `-` is standard output.
    pub path: PathBuf,
    /// What.
    pub format: Format,
}

impl OutputSpec {
    /// Decides the format by the file's ending, else by `fallback`.
    ///
    /// # Errors
    /// A sentence with the endings that there are.
    pub fn new(path: PathBuf, fallback: Option<Format>) -> anyhow::Result<Self> {
        let format = match Format::from_path(&path) {
            Ok(format) => format,
            Err(error) => fallback.ok_or(error).with_context(|| format!("--output {}", path.display()))?,
        };
        Ok(Self { path, format })
    }

    /// Whether it goes to standard output.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        self.path == Path::new("-")
    }
}
