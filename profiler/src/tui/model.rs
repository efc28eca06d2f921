//! What the view is fed: numbers of all sites once a second, and of few of them their names and details.

use std::{sync::Arc, time::Duration};

use profiler_common::records::Held;

use crate::{
    report::{history::SiteHistory, quality::Remark},
    symbolize::frame::Frame,
};

/// Whom the view is of, and how it is watched.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The name that the kernel keeps.
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// The command line.
    pub command: String,
    /// `session`, `multi` or `perf`.
    pub probes: String,
    /// Mean bytes from one sample to the next, where not every block is recorded.
    pub sample_interval: Option<u64>,
    /// Whether the numbers are what the program tells of itself.
    pub told: bool,
    /// The names of the allocators found.
    pub allocators: Vec<String>,
}

/// The state of the account at one moment.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Time since the probes went live.
    pub after: Duration,
    /// What lives.
    pub live: Held,
    /// Its standard error, where it is an estimate.
    pub live_error: Option<Held>,
    /// What was allocated since attach.
    pub allocated: Held,
    /// Resident memory of the process in bytes, where it could be read.
    pub rss: Option<u64>,
    /// Growth over the last minute, or since attach where that is less long ago.
    pub lately: Growth,
    /// Growth since the last mark, if there is one.
    pub marked: Option<Marked>,
    /// Allocations a second since the last update.
    pub allocations_per_second: f64,
    /// Frees a second since the last update, of blocks that are older than the attach too.
    pub frees_per_second: f64,
    /// Our share of the target's CPU time in percent, where it could be measured.
    pub overhead_percent: Option<f64>,
    /// Events lost, for whatever reason.
    pub lost: u64,
    /// What the reader must know of the numbers.
    pub remarks: Vec<Remark>,
    /// All sites, in any order.
    pub sites: Vec<SiteNumbers>,
}

/// How much more lives than at an earlier moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Growth {
    /// How long ago that was.
    pub over: Duration,
    /// Live bytes.
    pub live: i64,
    /// Resident bytes.
    pub rss: Option<i64>,
}

/// Growth since a mark.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marked {
    /// Its name.
    pub name: String,
    /// How much.
    pub growth: Growth,
}

/// What is known of a site without reading its blocks.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct SiteNumbers {
    /// Its key.
    pub site: u64,
    /// What it holds: since nothing is counted that is older than the attach, its growth since then.
    pub live: Held,
    /// The standard error of that, where it is an estimate.
    pub error: Option<Held>,
    /// What it allocated since attach.
    pub allocated: Held,
    /// Of those, blocks that their thread freed again before it allocated another one.
    pub temporary_objects: u64,
    /// Bytes that it gained over the last minute.
    pub lately: i64,
    /// Bytes that it gained since the last mark, if there is one.
    pub marked: Option<i64>,
    /// Allocations a second.
    pub allocations_per_second: f64,
    /// Age of its oldest live block, when the blocks were read last; `None` where it had none.
    pub oldest: Option<Duration>,
}

/// The stack of a site, named.
#[derive(Clone, Debug)]
pub struct Named {
    /// The allocator that serves it.
    pub allocator: String,
    /// Leaf first, with the allocator's own frames.
    pub stack: Vec<Arc<Frame>>,
}

/// What the live blocks of one site say of it.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The site.
    pub site: u64,
    /// When they were read, since the probes went live.
    pub after: Duration,
    /// Sizes and threads.
    pub history: SiteHistory,
}
