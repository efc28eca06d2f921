//! The account of live blocks, by site.
//!
//! Numbers go in, sums come out: no process, file or clock is known here, so the ledger can be tested by exhaustion. A
//! block counts as live if it was allocated since attach and not freed; "leaked" is a word for people, not for here.

use std::collections::HashMap;

use profiler_common::records::{LiveBlock, SiteCounters};

/// What one site has allocated and what of it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SiteAccount {
    /// Bytes allocated since attach.
    pub alloc_space: u64,
    /// Blocks allocated since attach.
    pub alloc_objects: u64,
    /// Bytes of the live blocks that pass the filter.
    pub inuse_space: u64,
    /// Live blocks that pass the filter.
    pub inuse_objects: u64,
    /// When the oldest of those was allocated, in nanoseconds of the clock that `LiveBlock::born` uses.
    pub oldest_born: Option<u64>,
}

/// Adds up blocks and sites.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    sites: HashMap<u64, SiteAccount>,
    /// Blocks born later than this are too young to be counted.
    born_by: Option<u64>,
    unfiltered_objects: i128,
}

/// The finished account.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Sites with their keys, most live bytes first, then most allocated bytes, then by key.
    pub sites: Vec<(u64, SiteAccount)>,
    /// The sum over all sites.
    pub totals: SiteAccount,
    /// Blocks by which the live blocks and the sites' counters disagree. Anything but 0 is a bug or a snapshot that
    /// was taken while the probes were running.
    pub discrepancy: u64,
}

impl Ledger {
    /// An empty ledger. With `born_by`, only blocks allocated at that time or earlier are counted as live (minimum
    /// age); the allocation counters are not affected.
    #[must_use]
    pub fn new(born_by: Option<u64>) -> Self {
        Self { born_by, ..Self::default() }
    }

    /// Enters the counters of a site.
    pub fn add_site(&mut self, site: u64, counters: &SiteCounters) {
        let account = self.sites.entry(site).or_default();
        account.alloc_space = account.alloc_space.saturating_add(counters.alloc_space);
        account.alloc_objects = account.alloc_objects.saturating_add(counters.alloc_objects);
        self.unfiltered_objects += i128::from(counters.alloc_objects) - i128::from(counters.freed_objects);
    }

    /// Enters a live block.
    pub fn add_block(&mut self, block: &LiveBlock) {
        self.unfiltered_objects -= 1;
        if self.born_by.is_some_and(|latest| block.born > latest) {
            return;
        }
        let account = self.sites.entry(block.site).or_default();
        account.inuse_space = account.inuse_space.saturating_add(block.size);
        account.inuse_objects += 1;
        account.oldest_born = Some(account.oldest_born.map_or(block.born, |oldest| oldest.min(block.born)));
    }

    /// Sums up. Sites that never allocated are left out.
    #[must_use]
    pub fn close(self) -> Account {
        let mut sites: Vec<(u64, SiteAccount)> = self
            .sites
            .into_iter()
            .filter(|(_, account)| account.alloc_objects > 0 || account.inuse_objects > 0)
            .collect();
        sites.sort_by(|(key_a, a), (key_b, b)| {
            (b.inuse_space, b.alloc_space, key_a).cmp(&(a.inuse_space, a.alloc_space, key_b))
        });
        let mut totals = SiteAccount::default();
        for (_, account) in &sites {
            totals.alloc_space = totals.alloc_space.saturating_add(account.alloc_space);
            totals.alloc_objects = totals.alloc_objects.saturating_add(account.alloc_objects);
            totals.inuse_space = totals.inuse_space.saturating_add(account.inuse_space);
            totals.inuse_objects = totals.inuse_objects.saturating_add(account.inuse_objects);
            totals.oldest_born = [totals.oldest_born, account.oldest_born].into_iter().flatten().min();
        }
        let discrepancy = u64::try_from(self.unfiltered_objects.unsigned_abs()).unwrap_or(u64::MAX);
        Account { sites, totals, discrepancy }
    }
}

#[cfg(test)]
mod tests;
