//! What the account holds in the kernel: counters, sites, live blocks, moments, names of threads.

use std::io;

use profiler_common::{
    counters::Counter,
    pending::TAKEN_OVER,
    records::{LiveBlock, Moments, SiteCounters, ThreadName},
    sampling,
};

use super::EbpfProbe;
use crate::probe::{Counters, error::ProbeError};

impl EbpfProbe {
    /// Everything counted so far.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn counters(&self) -> Result<Counters, ProbeError> {
        let sums: io::Result<Vec<u64>> =
            Counter::ALL.iter().map(|counter| self.counters.sum(*counter as u32)).collect();
        let mut sums = sums.map_err(|source| ProbeError::Map { name: "COUNTERS", source })?;
        derive(&mut sums, self.sampling);
        for counter in [Counter::AllocObjects, Counter::FreedObjects] {
            if let Some(sum) = sums.get_mut(counter as usize) {
                *sum = sampling::blocks(self.sampling, *sum);
            }
        }
        Ok(Counters(sums))
    }

    /// The account's peak, and the target's exit.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn moments(&self) -> Result<Moments, ProbeError> {
        let moments = self.moments.look_up(&0);
        Ok(moments.map_err(|source| ProbeError::Map { name: "MOMENTS", source })?.unwrap_or_default())
    }

    /// Hands out the names of the target's threads with their numbers in [`LiveBlock::thread`].
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn thread_names(&self, mut each: impl FnMut(u64, &ThreadName)) -> Result<(), ProbeError> {
        self.thread_names
            .for_each(|name, number| each(*number, name))
            .map_err(|source| ProbeError::Map { name: "THREAD_NAMES", source })
    }

    /// Hands out every site with its counters, as the probes have them: of a sampler, weighted.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn sites(&self, mut each: impl FnMut(u64, SiteCounters)) -> Result<(), ProbeError> {
        self.sites
            .for_each(|site, counters| each(*site, *counters))
            .map_err(|source| ProbeError::Map { name: "SITES", source })
    }

    /// The counters of one site, if it has been met.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn site(&self, site: u64) -> Result<Option<SiteCounters>, ProbeError> {
        self.sites.look_up(&site).map_err(|source| ProbeError::Map { name: "SITES", source })
    }

    /// Hands out the live blocks of calls of realloc that have not returned: until they do, these blocks live.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn blocks_on_the_way(&self, mut each: impl FnMut(&LiveBlock)) -> Result<(), ProbeError> {
        self.pending
            .for_each(|_, call| {
                if call.old_key != 0 && call.old_key != TAKEN_OVER {
                    each(&call.old);
                }
            })
            .map_err(|source| ProbeError::Map { name: "PENDING", source })
    }

    /// How many parts the table of live blocks has.
    #[must_use]
    pub fn live_parts(&self) -> usize {
        self.live.parts()
    }

    /// Hands out all other live blocks that are in one part of their table; none where there is no such part.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn live_blocks(&self, part: usize, each: impl FnMut(&[LiveBlock])) -> Result<(), ProbeError> {
        self.live.read(part, each).map_err(super::map_error("BLOCKS"))
    }
}

/// Puts together what the probes count once, in one place of several: a hit that passed as such, a stack as walked or as
/// recognised, a block as recorded where each stands for itself.
fn derive(sums: &mut [u64], sampling: bool) {
    let mut add = |counter: Counter, parts: &[Counter]| {
        let of = |part: &Counter| sums.get(*part as usize).copied().unwrap_or(0);
        let more = parts.iter().map(of).fold(0, u64::wrapping_add);
        if let Some(sum) = sums.get_mut(counter as usize) {
            *sum = sum.wrapping_add(more);
        }
    };
    add(Counter::ProbeHits, &[Counter::UnsampledAllocations, Counter::MeasuredAllocations]);
    add(Counter::StacksWalked, &[Counter::StacksRecognised]);
    if !sampling {
        add(Counter::AllocObjects, &[Counter::RecordedBlocks]);
    }
}
