//! Recordings: `.hscope` files, which hold all that a report is made of, named, so that every report can be made again on
//! any machine. docs/format.md describes the format, docs/hscope.proto its messages.
//!
//! A file only ever grows, chunk by chunk ([`chunk`]): whatever ends heapscope or cuts the file, the chunks before are
//! whole, and say what was known by then. [`Writer`] appends, [`Recording`] reads. Neither knows a process, a file or a
//! clock: bytes go to a `Write` and come from a slice.

mod budget;
pub mod chunk;
mod decode;
mod encode;
mod memory;
pub mod message;
mod reader;
mod replay;
mod series;
mod writer;

use std::{
    io::{self, Write},
    time::Duration,
};

pub use self::{
    reader::{MAX_FILE, ReadError, Recording, Taken},
    writer::{Head, Writer},
};
use super::{options::ReportOptions, profile::Profile};

/// What a site has allocated and holds, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Blocks allocated since attach.
    pub alloc_objects: u64,
    /// Bytes of them.
    pub alloc_space: u64,
    /// Those that live.
    pub inuse_objects: u64,
    /// Bytes of them.
    pub inuse_space: u64,
    /// Blocks that their thread freed again before it allocated another one.
    pub temporary_objects: u64,
    /// Standard errors of the first four in pprof's order (`inuse_space`, `inuse_objects`, `alloc_space`,
    /// `alloc_objects`); zero where they are no estimates.
    pub errors: [u64; 4],
}

/// The process's resident memory, in bytes, as `/proc/PID/status` splits it; `None` where it could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resident {
    /// All of it.
    pub rss: Option<u64>,
    /// Of that: anonymous memory, the heap among it.
    pub anon: Option<u64>,
    /// Of that: pages of files.
    pub file: Option<u64>,
    /// Of that: shared memory.
    pub shmem: Option<u64>,
    /// Not resident: what was moved to the swap.
    pub swap: Option<u64>,
    /// Not resident, address space: what was mapped while the process was watched and is not unmapped, if that was watched.
    pub mapped: Option<u64>,
}

/// What a snapshot is about, beside its sites.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Time since the probes went live.
    pub after: Duration,
    /// The process's memory as the kernel counts it.
    pub resident: Resident,
    /// The marks that were set just before.
    pub marks: Vec<String>,
}

/// Writes a finished profile as a recording of its own. What each site held over time is in it in bytes, not in blocks:
/// a profile does not know more.
///
/// # Errors
/// Those of `out`.
pub fn write(profile: &Profile, _options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    let mut writer = Writer::begin(out, &Head::of(profile))?;
    let keys: Vec<u64> = (0..).take(profile.sites.len()).collect();
    writer.close(profile, &keys, true)
}
