//! The account of what is observed: live blocks and sites out of the kernel, added up by the ledger.

use std::time::Duration;

use profiler_common::{mappings::MAPPING_SITE, records::SiteCounters};

use super::{blocks::read_blocks, growth, observation::Observation, pools};
use crate::{
    ledger::{Account, Ledger},
    probe::error::ProbeError,
};

impl Observation {
    /// The account as it stands; `now` is `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) fn account(&self, now: u64, min_age: Option<Duration>) -> Result<Account, ProbeError> {
        let age = min_age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let marks = self.history.marks.iter().map(|mark| mark.time).collect();
        let windowed = &self.governor.windowed;
        let empty = Ledger::new(age.map(|age| now.saturating_sub(age)), marks, self.probe.moments()?)
            .drawn(self.probe.sampling(), self.known())
            .in_windows(windowed.boundaries())
            .with_births(self.history.spans_until(now));
        let mut ledger = read_blocks(&self.probe, self.probe.counters()?.inuse_objects(), &empty)?;
        self.probe.blocks_on_the_way(|block| ledger.add_blocks(&mut [*block]))?;
        self.probe.sites(|site, counters: SiteCounters| {
            if !self.is_of_no_block(site, &counters) {
                ledger.add_site(site, &counters);
            }
        })?;
        let mut account = ledger.close();
        windowed.apply(&mut account, self.probe.sampling());
        Ok(account)
    }

    /// Whether a site has mapped memory or opened pools, and not allocated blocks. One whose stack is lost may have done
    /// any of these.
    pub(super) fn is_of_no_block(&self, site: u64, counters: &SiteCounters) -> bool {
        let is_other = |allocator| {
            allocator == MAPPING_SITE || pools::is_of_pools(allocator) || growth::is_of_faults(allocator)
        };
        let by_stack = || self.stacks.get(&site).is_none_or(|stack| is_other(stack.allocator));
        (self.mapped.is_some() || self.pools.is_some()) && counters.alloc_objects == 0 && by_stack()
    }
}
