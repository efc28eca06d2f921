//! The account of live blocks, by site.
//!
//! Numbers go in, sums come out: no process, file or clock is known here, so the ledger can be tested by exhaustion. A
//! block counts as live if it was allocated since attach and not freed; "leaked" is a word for people, not for here.

pub mod births;
pub mod breaks;
pub mod estimate;
pub mod growth;
pub mod growth_sample;
pub mod mappings;
pub mod moves;
pub mod timeline;
pub mod window;
pub mod windows;

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
};

use profiler_common::{
    control::Control,
    records::{Held, LiveBlock, Moments, SIZE_CLASSES, SiteCounters},
    sampling, told,
};

use self::{
    births::{Births, Spans},
    estimate::Variance,
};

/// What one site has allocated and what of it lives.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SiteAccount {
    /// Bytes allocated since attach.
    pub alloc_space: u64,
    /// Blocks allocated since attach.
    pub alloc_objects: u64,
    /// How far the two may be off where they were seen in windows alone.
    pub alloc_error: Option<Held>,
    /// Live blocks that pass the filter.
    pub inuse: Held,
    /// Blocks that pass the filter and were not seen freed, but are older than the last gap between two windows, in which frees
    /// are not seen: they may live or not.
    pub unknown: Held,
    /// `inuse` and `unknown` together by the window that they were born in, sorted by that; empty without windows.
    pub windows: Vec<(u64, Held)>,
    /// The largest interval, by its number, that one of its blocks was drawn at.
    pub coarsest: u8,
    /// How far `inuse` may be off; nothing where every block is recorded.
    pub inuse_variance: Variance,
    /// When the oldest of those and of `unknown` was allocated, in nanoseconds of the clock that `LiveBlock::born` uses.
    pub oldest_born: Option<u64>,
    /// Blocks freed by the thread that had allocated them and no other since.
    pub temporary_objects: u64,
    /// What lived when the process held the most bytes; no filter.
    pub peak: Held,
    /// What lived when the process called `exit`, or lives now; no filter.
    pub exit: Held,
    /// Allocations by size class ([`largest_of_class`]).
    pub alloc_sizes: [u64; SIZE_CLASSES],
    /// The blocks of `inuse` and `unknown` by size class.
    pub inuse_sizes: [u64; SIZE_CLASSES],
    /// The same by the number of their thread's name, sorted by that.
    pub threads: Vec<(u64, Held)>,
    /// The same by generation, sorted by that: those from before the first mark are of generation 0,
    /// those from between the first and the second of generation 1, and so on.
    pub generations: Vec<(u64, Held)>,
    /// The live blocks of `inuse` by the span of time in which they were born ([`Account::spans`]), sorted by that.
    pub births: Vec<(u64, Held)>,
}

/// Adds up blocks and sites.
#[derive(Clone, Debug)]
pub struct Ledger {
    sites: HashMap<u64, SiteAccount>,
    /// Blocks born later than this are too young to be counted.
    born_by: Option<u64>,
    /// The marks' times, ascending.
    marks: Vec<u64>,
    moments: Moments,
    /// Whether blocks are weighted, in units of 1 / [`sampling::ONE`], until the account is closed.
    sampling: bool,
    /// What they are weighted by.
    control: Control,
    /// When windows were opened, ascending.
    windows: Vec<u64>,
    unfiltered_objects: i128,
    births: Births,
}

/// The finished account.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Sites with their keys, most live bytes first, then most allocated bytes, then by key.
    pub sites: Vec<(u64, SiteAccount)>,
    /// The sum over all sites.
    pub totals: SiteAccount,
    /// The peak and the exit that the sites speak of.
    pub moments: Moments,
    /// The spans of time that births are counted in.
    pub spans: Spans,
    /// Blocks by which the live blocks and the sites' counters disagree. Anything but 0 is a bug or a snapshot that
    /// was taken while the probes were running.
    pub discrepancy: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(None, Vec::new(), Moments::default())
    }
}

impl Ledger {
    /// An empty ledger. With `born_by`, only blocks allocated at that time or earlier are counted as live (minimum
    /// age); the allocation counters are not affected. `marks`, ascending, bound the generations.
    #[must_use]
    pub fn new(born_by: Option<u64>, marks: Vec<u64>, moments: Moments) -> Self {
        Self {
            sites: HashMap::new(),
            born_by,
            marks,
            moments,
            sampling: false,
            control: Control::EXACT,
            windows: Vec::new(),
            births: Births::default(),
            unfiltered_objects: 0,
        }
    }

    /// The same, of blocks drawn at the intervals that the probes were told; whether they may have been.
    #[must_use]
    pub fn drawn(self, sampling: bool, control: Control) -> Self {
        Self { sampling, control, ..self }
    }

    /// The same, of blocks recorded in windows that were opened at these times.
    #[must_use]
    pub fn in_windows(self, windows: Vec<u64>) -> Self {
        Self { windows, ..self }
    }

    /// The same, with births counted in these spans of time.
    #[must_use]
    pub fn with_births(self, spans: Spans) -> Self {
        Self { births: Births::in_spans(spans), ..self }
    }

    /// An empty ledger for one of so many shares of this one's sites.
    #[must_use]
    pub fn share(&self, shares: usize) -> Self {
        Self { births: self.births.share(shares), ..self.clone() }
    }

    /// Enters the counters of a site.
    pub fn add_site(&mut self, site: u64, counters: &SiteCounters) {
        let account = self.sites.entry(site).or_default();
        account.alloc_space = account.alloc_space.saturating_add(counters.alloc_space);
        account.alloc_objects = account.alloc_objects.saturating_add(counters.alloc_objects);
        account.temporary_objects = account.temporary_objects.saturating_add(counters.temporary_objects);
        add(&mut account.peak, counters.held_at_peak(&self.moments));
        add(&mut account.exit, counters.held_at_exit());
        add_each(&mut account.alloc_sizes, &counters.sizes);
        account.coarsest = account.coarsest.max(counters.coarsest);
        self.unfiltered_objects += i128::from(counters.alloc_objects) - i128::from(counters.freed_objects);
    }

    /// Enters live blocks, in any order; they are sorted by site.
    pub fn add_blocks(&mut self, blocks: &mut [LiveBlock]) {
        // Of millions of blocks, one site's at a time are added several times as fast as one here and one there.
        blocks.sort_unstable_by_key(|block| block.site);
        for of_site in blocks.chunk_by(|a, b| a.site == b.site) {
            self.add_blocks_of_site(of_site);
        }
    }

    fn add_blocks_of_site(&mut self, blocks: &[LiveBlock]) {
        let Self { sites, births, control, .. } = self;
        let stands_for = |block: &LiveBlock| stands_for(self.sampling, control, block);
        let objects: i128 = blocks.iter().map(|block| i128::from(stands_for(block).objects)).sum();
        self.unfiltered_objects -= objects;
        let born_by = self.born_by;
        let is_old_enough = |block: &&LiveBlock| born_by.is_none_or(|latest| block.born <= latest);
        let Some(first) = blocks.iter().find(is_old_enough) else { return };
        let account = sites.entry(first.site).or_default();
        // Neighbours are mostly of one thread and one generation: they are added up before they are looked for.
        let mut alike: Option<(u64, u64, Held)> = None;
        for block in blocks.iter().filter(is_old_enough) {
            let one = stands_for(block);
            if block.born >= control.unbroken_since {
                add(&mut account.inuse, one);
                account.inuse_variance.add_block(control.interval(block.interval()), block.size);
            } else {
                add(&mut account.unknown, one);
            }
            if !self.windows.is_empty() {
                let window = self.windows.partition_point(|opened| *opened <= block.born);
                add_to(&mut account.windows, window as u64, one);
            }
            account.oldest_born =
                Some(account.oldest_born.map_or(block.born, |oldest| oldest.min(block.born)));
            if let Some(class) = account.inuse_sizes.get_mut(class_of(block.size)) {
                *class = class.saturating_add(one.objects);
            }
            births.count(account, block.born, one);
            let generation = self.marks.partition_point(|mark| *mark <= block.born) as u64;
            match &mut alike {
                Some((thread, of, held)) if (*thread, *of) == (block.thread_name(), generation) => {
                    add(held, one);
                }
                _ => {
                    if let Some(before) = alike.replace((block.thread_name(), generation, one)) {
                        account.add_alike(before);
                    }
                }
            }
        }
        if let Some(alike) = alike {
            account.add_alike(alike);
        }
        births.bound(sites);
    }

    /// Enters what another ledger holds, which is to have the same filter, marks and spans.
    pub fn absorb(&mut self, mut other: Self) {
        self.unfiltered_objects += other.unfiltered_objects;
        other.births.join_up_to(self.births.spans.step(), &mut other.sites);
        self.births.join_up_to(other.births.spans.step(), &mut self.sites);
        for (site, account) in other.sites {
            match self.sites.entry(site) {
                Entry::Occupied(mut own) => own.get_mut().add(&account),
                Entry::Vacant(place) => drop(place.insert(account)),
            }
        }
        self.births.add_entries(&other.births);
        self.births.bound(&mut self.sites);
    }

    /// Sums up. Sites that never allocated are left out.
    #[must_use]
    pub fn close(self) -> Account {
        let scaled = self.sites.into_iter().map(|(site, mut account)| {
            if self.sampling {
                account.count_blocks();
            }
            (site, account)
        });
        let mut sites: Vec<(u64, SiteAccount)> =
            scaled.filter(|(_, account)| account.alloc_objects > 0 || account.kept().objects > 0).collect();
        // Accounts are large: they are moved once.
        sites.sort_by_cached_key(|(key, sums)| (Reverse(sums.kept().space), Reverse(sums.alloc_space), *key));
        let mut totals = SiteAccount::default();
        for (_, account) in &sites {
            totals.add(account);
        }
        let discrepancy = u64::try_from(self.unfiltered_objects.unsigned_abs()).unwrap_or(u64::MAX);
        let discrepancy = sampling::blocks(self.sampling, discrepancy);
        Account { sites, totals, moments: self.moments, spans: self.births.spans, discrepancy }
    }
}

impl Account {
    /// Sorts the sites by what they held at another moment, most first.
    pub fn sort_by_space(&mut self, space: impl Fn(&SiteAccount) -> u64) {
        self.sites.sort_by_cached_key(|(_, sums)| Reverse(space(sums)));
    }
}

impl SiteAccount {
    /// All that was not seen freed: without windows, what is live.
    #[must_use]
    pub fn kept(&self) -> Held {
        let mut kept = self.inuse;
        add(&mut kept, self.unknown);
        kept
    }

    /// From sums of weights to blocks.
    fn count_blocks(&mut self) {
        let held = [&mut self.inuse, &mut self.unknown, &mut self.peak, &mut self.exit]
            .map(|held| &mut held.objects);
        let held = held.into_iter().chain([&mut self.alloc_objects, &mut self.temporary_objects]);
        let of_parts = self.threads.iter_mut().chain(&mut self.generations).chain(&mut self.births);
        let of_parts = of_parts.chain(&mut self.windows).map(|(_, held)| &mut held.objects);
        let of_sizes = self.alloc_sizes.iter_mut().chain(&mut self.inuse_sizes);
        held.chain(of_parts).chain(of_sizes).for_each(|sum| *sum = sampling::blocks(true, *sum));
    }

    /// Adds live blocks of one thread and one generation to these.
    fn add_alike(&mut self, (thread, generation, held): (u64, u64, Held)) {
        add_to(&mut self.threads, thread, held);
        add_to(&mut self.generations, generation, held);
    }

    fn add(&mut self, other: &Self) {
        self.alloc_space = self.alloc_space.saturating_add(other.alloc_space);
        self.alloc_objects = self.alloc_objects.saturating_add(other.alloc_objects);
        self.temporary_objects = self.temporary_objects.saturating_add(other.temporary_objects);
        self.inuse_variance += other.inuse_variance;
        self.oldest_born = [self.oldest_born, other.oldest_born].into_iter().flatten().min();
        add(&mut self.inuse, other.inuse);
        add(&mut self.unknown, other.unknown);
        self.coarsest = self.coarsest.max(other.coarsest);
        add(&mut self.peak, other.peak);
        add(&mut self.exit, other.exit);
        add_each(&mut self.alloc_sizes, &other.alloc_sizes);
        add_each(&mut self.inuse_sizes, &other.inuse_sizes);
        for (thread, held) in &other.threads {
            add_to(&mut self.threads, *thread, *held);
        }
        for (window, held) in &other.windows {
            add_to(&mut self.windows, *window, *held);
        }
        for (generation, held) in &other.generations {
            add_to(&mut self.generations, *generation, *held);
        }
        for (span, held) in &other.births {
            add_to(&mut self.births, *span, *held);
        }
    }
}

fn add(sum: &mut Held, more: Held) {
    sum.objects = sum.objects.saturating_add(more.objects);
    sum.space = sum.space.saturating_add(more.space);
}

fn add_each(sums: &mut [u64], more: &[u64]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(*more);
    }
}

/// Adds to the part of `sums`, sorted by their keys, that has this key.
fn add_to(sums: &mut Vec<(u64, Held)>, key: u64, more: Held) {
    match sums.binary_search_by_key(&key, |(known, _)| *known) {
        Ok(at) => {
            if let Some((_, sum)) = sums.get_mut(at) {
                add(sum, more);
            }
        }
        Err(at) => sums.insert(at, (key, more)),
    }
}

/// What a recorded block stands for: itself alone, or, sampled, so many as its weight says.
fn stands_for(sampling: bool, control: &Control, block: &LiveBlock) -> Held {
    if !sampling {
        return Held { objects: 1, space: block.size };
    }
    if block.is_told() {
        let (objects, space) = told::stands_for(block.size, block.thread);
        return Held { objects, space };
    }
    let weight = sampling::weight(control.interval(block.interval()), block.size);
    Held { objects: weight, space: sampling::weighted_space(block.size, weight) }
}

/// The class of [`largest_of_class`] that a size belongs to.
fn class_of(size: u64) -> usize {
    // Sizes of a class have the same highest bit, once they are counted from 0 in units of 16.
    let units = size.saturating_sub(1) >> 4;
    ((u64::BITS - units.leading_zeros()) as usize).min(SIZE_CLASSES - 1)
}

#[cfg(test)]
mod tests;
