//! What running probes are told: the interval that they sample at; and windows, between which the allocators have no probes.

use std::{io, time::Duration};

use profiler_common::{
    control::Control,
    pending::TAKEN_OVER,
    records::{LiveBlock, SiteCounters},
};

use super::EbpfProbe;
use crate::probe::error::ProbeError;

impl EbpfProbe {
    /// Whether blocks are sampled, or may be some time: sums in the kernel are then those of weights.
    #[must_use]
    pub fn sampling(&self) -> bool {
        self.sampling
    }

    /// What the probes have been told.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Has blocks recorded at the interval with this number from now on. A call that is under way keeps the one that it was
    /// drawn at.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn record_at(&mut self, number: u64) -> Result<(), ProbeError> {
        self.control.current = number;
        self.publish_control()
    }

    /// Ends a window: nothing is recorded from now on, and the allocators' probes are taken out, which takes longer.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn close_window(&mut self) -> Result<(), ProbeError> {
        self.control.paused = 1;
        self.publish_control()?;
        self.attachments.suspend(&mut self.ebpf);
        self.forget_calls_under_way().map_err(|source| ProbeError::Map { name: "PENDING", source })
    }

    /// Begins a window, and says so to the probes once all are in place; `now` tells the time then, in nanoseconds of
    /// `CLOCK_MONOTONIC`. Where they cannot be placed, it remains closed.
    ///
    /// # Errors
    /// [`ProbeError::Attach`], [`ProbeError::Map`].
    pub fn open_window(&mut self, now: impl FnOnce() -> u64) -> Result<(), ProbeError> {
        if let Err(error) = self.attachments.resume(&mut self.ebpf) {
            self.attachments.suspend(&mut self.ebpf);
            return Err(error);
        }
        self.control.unbroken_since = now();
        self.publish_control()?;
        self.control.paused = 0;
        self.publish_control()
    }

    pub(super) fn publish_control(&self) -> Result<(), ProbeError> {
        let written = self.control_map.update(&0, &self.control);
        written.map_err(|source| ProbeError::Map { name: "CONTROL", source })
    }

    /// Calls that were under way when the probes were taken out have no return. A block that was handed to one lives on, as far
    /// as is known. No probe runs meanwhile.
    fn forget_calls_under_way(&self) -> io::Result<()> {
        let mut calls = Vec::new();
        self.pending.for_each(|key, call| calls.push((*key, *call)))?;
        for (key, call) in calls {
            if call.old_key != 0 && call.old_key != TAKEN_OVER {
                self.put_back(call.old_key, &call.old)?;
            }
            self.pending.delete(&key)?;
        }
        let mut handed_in = Vec::new();
        self.reallocating.for_each(|block, _| handed_in.push(*block))?;
        handed_in.iter().try_for_each(|block| self.reallocating.delete(block))
    }

    fn put_back(&self, key: u64, block: &LiveBlock) -> io::Result<()> {
        if !self.live.holds(key)? {
            return self.live.put_back(key, block);
        }
        // Its address has been given out again.
        let Some(site) = self.sites.look_up(&block.site)? else { return Ok(()) };
        let (objects, space) = self.stands_for(block);
        let freed = SiteCounters {
            freed_objects: site.freed_objects.wrapping_add(objects),
            freed_space: site.freed_space.wrapping_add(space),
            ..site
        };
        self.sites.update(&block.site, &freed)
    }

    fn stands_for(&self, block: &LiveBlock) -> (u64, u64) {
        use profiler_common::sampling::{weight, weighted_space};
        if !self.sampling {
            return (1, block.size);
        }
        if block.is_told() {
            return profiler_common::told::stands_for(block.size, block.thread);
        }
        let weight = weight(self.control.interval(block.interval()), block.size);
        (weight, weighted_space(block.size, weight))
    }

    /// How long placing the allocators' probes took the last time, and taking them out.
    #[must_use]
    pub fn window_took(&self) -> [Duration; 2] {
        self.attachments.took
    }
}
