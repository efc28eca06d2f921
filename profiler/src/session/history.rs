//! What happened while a target was watched: snapshots of all sites, and the marks that the user set.

use std::time::{Duration, Instant};

use profiler_common::{records::Held, sampling::blocks};

use crate::{
    ledger::{births::Spans, timeline::Timeline},
    probe::{ebpf::EbpfProbe, error::ProbeError},
    sys::clock::monotonic_nanoseconds,
    target::process::Process,
};

/// Marks at most: each bounds a generation of blocks, which is counted for each site.
const MAX_MARKS: usize = 1000;
/// How often snapshots are taken where the user does not say.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);

/// The beginning of a new generation of blocks.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) name: String,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) time: u64,
}

/// The snapshots and marks of one observation.
#[derive(Debug)]
pub(super) struct History {
    pub(super) timeline: Timeline,
    pub(super) marks: Vec<Mark>,
    /// When the probes came: `CLOCK_MONOTONIC` in nanoseconds.
    began: u64,
}

impl History {
    /// Begins now, with snapshots at this interval.
    pub(super) fn begin(interval: Option<Duration>) -> Self {
        Self {
            timeline: Timeline::new(interval.unwrap_or(SNAPSHOT_EVERY)),
            marks: Vec::new(),
            began: monotonic_nanoseconds(),
        }
    }

    /// Time from the beginning to this moment of `CLOCK_MONOTONIC`, in nanoseconds.
    pub(super) fn after(&self, time: u64) -> Duration {
        Duration::from_nanos(time.saturating_sub(self.began))
    }

    /// The spans of time that births are counted in, up to this moment of `CLOCK_MONOTONIC`, in nanoseconds.
    pub(super) fn spans_until(&self, now: u64) -> Spans {
        Spans::between(self.began, now)
    }

    /// Takes a snapshot of all sites, if it is time for one or it is the last.
    pub(super) fn snapshot(
        &mut self,
        probe: &EbpfProbe,
        process: &Process,
        after: Duration,
        is_last: bool,
    ) -> Result<(), ProbeError> {
        if !is_last && !self.timeline.is_due(after) {
            return Ok(());
        }
        let began = Instant::now();
        let mut held = Vec::new();
        let sampling = probe.sampling();
        probe.sites(|site, counters| {
            let Held { objects, space } = counters.held();
            held.push((site, Held { objects: blocks(sampling, objects), space }));
        })?;
        self.timeline.add(after, process.rss_bytes().ok(), began.elapsed(), held);
        Ok(())
    }

    /// Sets a mark: the blocks that are born from now on are a new generation. Without a name it gets its number.
    ///
    /// # Errors
    /// A sentence, where there are too many.
    pub(super) fn mark(&mut self, name: Option<String>) -> Result<&Mark, String> {
        if self.marks.len() >= MAX_MARKS {
            return Err(format!("there are {MAX_MARKS} marks already"));
        }
        let name = name.unwrap_or_else(|| (self.marks.len() + 1).to_string());
        self.marks.push(Mark { name, time: monotonic_nanoseconds() });
        self.marks.last().ok_or_else(|| "no mark".to_owned())
    }
}
