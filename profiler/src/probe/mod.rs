//! Where events come from: the probes in the target, and what they have counted so far.
//!
//! [`ebpf`] is the one backend there is. It knows nothing of names or unwind formats: it is handed places to probe and
//! finished tables, and hands out numbers.

pub mod ebpf;
pub mod error;
pub mod rights;

use std::path::PathBuf;

use profiler_common::{
    control::Control,
    counters::Counter,
    limits::{MAX_FRAMES, MAX_PYTHON_FRAMES},
    python::PythonFrame,
    records::{Call, StackHead},
};

use crate::target::{address::FileOffset, process::OwnIdentity};

/// How probes are attached. The kernel decides what is possible; the first of these that is, is best.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum AttachMethod {
    /// One program at entry and return, one link for all places (kernel 6.13).
    Session,
    /// One link for all places, entries and returns apart (kernel 6.6).
    Multi,
    /// One perf event a place (kernel 5.15).
    Perf,
}

impl AttachMethod {
    /// The name that reports and flags use.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Multi => "multi",
            Self::Perf => "perf",
        }
    }
}

/// Where a probe sits with respect to the call that it tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Position {
    /// In the function that is called: the return address is on the stack.
    #[default]
    Called,
    /// The same in a function that leaves by its return alone.
    CalledToReturn,
    /// On a jump to it, where that is so too.
    AtJump,
    /// On the instruction that calls.
    AtCall,
    /// So many bytes behind the call's return address, with its result in rax.
    BehindCall(u8),
    /// On a probe that the program has itself, whose arguments [`ebpf::EbpfProbe::publish_places`] says under this number.
    Told {
        /// The number.
        place: u16,
        /// The counter of its listeners.
        semaphore: Option<FileOffset>,
    },
}

/// One place to probe.
#[derive(Clone, Debug)]
pub struct ProbePoint {
    /// The file, as this process can name it to the kernel.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: FileOffset,
    /// What the function there does with its arguments.
    pub call: Call,
    /// Index of the allocator that it belongs to.
    pub allocator: u8,
    /// Number of the function in its allocator.
    pub function: u8,
    /// Whether the user named the allocator.
    pub custom: bool,
    /// With respect to the call.
    pub position: Position,
}

impl ProbePoint {
    /// What the program there is told.
    #[must_use]
    pub const fn cookie(&self) -> u64 {
        let position = match self.position {
            Position::Told { place, .. } => {
                return self.call.kind as u64 | (self.allocator as u64) << 8 | (place as u64) << 16;
            }
            Position::Called => 0,
            Position::CalledToReturn => Call::RETURNS,
            Position::AtJump | Position::AtCall => Call::ONE_CALLER,
            Position::BehindCall(bytes) => Call::ONE_CALLER | (bytes as u64) << Call::BEHIND_SHIFT,
        };
        self.call.cookie(self.allocator, self.function)
            | if self.custom { Call::CUSTOM } else { 0 }
            | position
    }
}

/// What the probes are told before they are loaded.
#[derive(Clone, Debug)]
pub struct ProbeSettings {
    /// The process to watch.
    pub pid: u32,
    /// The same, as the kernel names it to a program that runs in its context.
    pub identity: OwnIdentity,
    /// Smallest allocation to record, in bytes.
    pub min_size: u64,
    /// Largest allocation to record, in bytes.
    pub max_size: u64,
    /// Whether only calls out of certain functions are recorded, which [`ebpf::EbpfProbe::publish_callers`] names.
    pub only_callers: bool,
    /// Whether the program may tell of its allocations by probes of its own; sums are those of weights then.
    pub told: bool,
    /// Whether blocks are to be sampled, or may be some time.
    pub sampling: bool,
    /// What the probes are told first; without sampling, [`Control::EXACT`].
    pub control: Control,
    /// Whether there are allocators that the user named.
    pub custom_allocators: bool,
    /// Whether mmap, munmap and mremap are to be watched.
    pub mappings: bool,
    /// Whether page faults are to be noted.
    pub growth: bool,
    /// Whether the target runs Python, whose frames are to be collected.
    pub python: bool,
    /// Most kernel memory for live blocks and sites, in bytes.
    pub max_memory: u64,
    /// The way to attach, where the user insists on one.
    pub method: Option<AttachMethod>,
    /// Chunks of unwind rows to make room for.
    pub row_chunks: u32,
    /// Pages of unwind rows to make room for.
    pub pages: u32,
    /// Rules to make room for.
    pub rules: u32,
}

impl ProbeSettings {
    /// Every block and nothing besides, in so many bytes of kernel memory, with room for one piece of each unwind table.
    #[must_use]
    pub const fn every_block(pid: u32, identity: OwnIdentity, max_memory: u64) -> Self {
        Self {
            pid,
            identity,
            min_size: 0,
            max_size: u64::MAX,
            only_callers: false,
            told: false,
            sampling: false,
            control: Control::EXACT,
            custom_allocators: false,
            mappings: false,
            growth: false,
            python: false,
            max_memory,
            method: None,
            row_chunks: 1,
            pages: 1,
            rules: 1,
        }
    }
}

/// A stack that was met for the first time.
#[derive(Clone, Debug)]
pub struct StackRecord {
    /// Site, allocator, and how the walk ended.
    pub head: StackHead,
    /// Return addresses, the allocator's caller first.
    pub frames: Vec<u64>,
    /// Python frames, the innermost first.
    pub python: Vec<PythonFrame>,
}

impl StackRecord {
    /// Reads a record of the ring buffer; `None` where it is shorter than its head. No more frames are taken than there
    /// are bytes for, whatever the head says, nor more than [`MAX_FRAMES`] and [`MAX_PYTHON_FRAMES`].
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<Self> {
        let (head, rest) = record.split_at_checked(size_of::<StackHead>())?;
        let head: StackHead = bytemuck::pod_read_unaligned(head);
        let native = usize::from(head.frames).min(MAX_FRAMES) * size_of::<u64>();
        let (frames, python) = rest.split_at(native.min(rest.len()));
        let frames = frames.chunks_exact(size_of::<u64>()).map(bytemuck::pod_read_unaligned).collect();
        let python = python
            .chunks_exact(size_of::<PythonFrame>())
            .take(usize::try_from(head.python).unwrap_or(MAX_PYTHON_FRAMES).min(MAX_PYTHON_FRAMES))
            .map(bytemuck::pod_read_unaligned)
            .collect();
        Some(Self { head, frames, python })
    }

    /// Whether frame `index` was found by a frame-pointer guess.
    #[must_use]
    pub fn guessed(&self, index: usize) -> bool {
        index < MAX_FRAMES
            && self.head.guessed.get(index / 64).is_some_and(|bits| bits >> (index % 64) & 1 == 1)
    }
}

/// What has been counted since the probes were loaded.
#[derive(Clone, Debug, Default)]
pub struct Counters(Vec<u64>);

impl Counters {
    /// The value of one counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// Bytes allocated since attach and not freed.
    #[must_use]
    pub fn inuse_space(&self) -> u64 {
        self.get(Counter::AllocSpace).saturating_sub(self.get(Counter::FreedSpace))
    }

    /// Blocks allocated since attach and not freed.
    #[must_use]
    pub fn inuse_objects(&self) -> u64 {
        self.get(Counter::AllocObjects).saturating_sub(self.get(Counter::FreedObjects))
    }
}
