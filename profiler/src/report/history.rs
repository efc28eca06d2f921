//! What a profile says beyond its end: the peak, the exit, marks and generations, snapshots, and the details of a site.

use std::time::Duration;

use profiler_common::records::Held;

/// A moment's live memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Time since the probes went live.
    pub after: Duration,
    /// Live blocks and bytes, of all ages.
    pub held: Held,
    /// Its standard error, where it is an estimate.
    pub error: Option<Held>,
}

/// The live blocks that were born after a mark, or before all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Generation {
    /// The mark's name; `None` for the blocks from before the first.
    pub mark: Option<String>,
    /// When it was set, since the probes went live.
    pub after: Duration,
    /// Those that live at the end.
    pub held: Held,
    /// Its standard error, where it is an estimate.
    pub error: Option<Held>,
}

/// The state of the account at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Time since the probes went live.
    pub after: Duration,
    /// Live blocks and bytes, of all ages.
    pub inuse: Held,
    /// The process's resident memory, in bytes, where it could be read.
    pub rss: Option<u64>,
}

/// What the whole profile says of its time.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// When the most bytes were live; `None` where nothing was allocated.
    pub peak: Option<Moment>,
    /// When the process called `exit`, before its exit handlers ran; `None` where it did not.
    pub exit: Option<Moment>,
    /// What lived at the end, whatever [`super::profile::Mode::at`] says.
    pub end: Held,
    /// One more than there are marks; empty without marks.
    pub generations: Vec<Generation>,
    /// In order.
    pub snapshots: Vec<Snapshot>,
    /// Length of the spans of time that [`SiteHistory::births`] speaks of; zero where births were not counted.
    pub birth_span: Duration,
    /// [`SiteHistory::births`] of all sites together.
    pub births: Vec<(usize, Held)>,
}

/// Blocks of one size class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SizeClass {
    /// The smallest size in it, in bytes.
    pub smallest: u64,
    /// The largest; `None` for the class without bound.
    pub largest: Option<u64>,
    /// Blocks allocated since attach.
    pub alloc_objects: u64,
    /// Those that live at the end.
    pub inuse_objects: u64,
}

/// What is known of a site beside its totals.
#[derive(Clone, Debug, Default)]
pub struct SiteHistory {
    /// What lived when the process held the most bytes.
    pub peak: Held,
    /// What lived when the process called `exit`; only meaningful where [`History::exit`] is there.
    pub exit: Held,
    /// Blocks that their thread freed again before it allocated another one.
    pub temporary_objects: u64,
    /// The classes that have blocks, ascending.
    pub sizes: Vec<SizeClass>,
    /// The live blocks by the name of the thread that allocated them, most bytes first.
    pub threads: Vec<(String, Held)>,
    /// The live blocks by the index of their generation, ascending; those without blocks are left out.
    pub generations: Vec<(usize, Held)>,
    /// Live bytes over time: index of a snapshot, and the bytes from then on.
    pub over_time: Vec<(usize, u64)>,
    /// When the blocks that live at the end were born: number of a span of [`History::birth_span`] since the probes went
    /// live, ascending, and the blocks; spans without blocks are left out.
    pub births: Vec<(usize, Held)>,
}
