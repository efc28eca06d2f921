//! What only the live blocks tell: how old the oldest of each site is, and of one site its sizes and threads.
//!
//! A process may have many millions of blocks, and the view must not stand still while they are read. So they are read in
//! parts, one at a tick, and of the time a bounded share.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use profiler_common::records::{LiveBlock, Moments};

use crate::{
    ledger::Ledger,
    report::profile::At,
    session::{details::Details, observation::Observation},
    tui::model::Detail,
};

/// Reading may take one part in so many of the time.
const SHARE: u32 = 30;
/// How often all blocks are read, if that is quickly done.
const EVERY: Duration = Duration::from_secs(1);

/// A pass over all live blocks, under way or to come.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The part of the table of live blocks to be read next.
    part: usize,
    due: Option<Instant>,
    oldest: HashMap<u64, u64>,
    /// The site of which more is wanted, and its account so far.
    focus: Option<(u64, Ledger)>,
}

/// What a whole pass found.
#[derive(Debug)]
pub(super) struct Swept {
    /// When the oldest block of each site was born.
    pub(super) oldest: HashMap<u64, u64>,
    pub(super) detail: Option<Detail>,
}

impl Sweep {
    /// Reads a part, if it is time for it. More is wanted of the site `wanted`. What a pass found, once it is over.
    pub(super) fn step(
        &mut self,
        observation: &Observation,
        wanted: Option<u64>,
    ) -> anyhow::Result<Option<Swept>> {
        let is_another = wanted.is_some() && wanted != self.focus.as_ref().map(|(site, _)| *site);
        if !is_another && self.due.is_some_and(|due| Instant::now() < due) {
            return Ok(None);
        }
        if self.part == 0 || is_another {
            self.begin(observation, wanted);
        }
        let began = Instant::now();
        let (oldest, focus) = (&mut self.oldest, &mut self.focus);
        let site_wanted = focus.as_ref().map(|(site, _)| *site);
        let mut of_site: Vec<LiveBlock> = Vec::new();
        let mut take = |block: &LiveBlock| {
            oldest.entry(block.site).and_modify(|born| *born = block.born.min(*born)).or_insert(block.born);
            if Some(block.site) == site_wanted {
                of_site.push(*block);
            }
        };
        observation.probe.live_blocks(self.part, |blocks| blocks.iter().for_each(&mut take))?;
        self.part += 1;
        let parts = observation.probe.live_parts();
        let is_last = self.part >= parts;
        if is_last {
            observation.probe.blocks_on_the_way(&mut take)?;
        }
        if let Some((_, ledger)) = focus {
            ledger.add_blocks(&mut of_site);
        }
        let took = began.elapsed();
        // Somebody who has just opened a site waits for it.
        let pause = if focus.is_some() { Duration::ZERO } else { took * SHARE };
        if !is_last {
            self.due = Some(Instant::now() + pause);
            return Ok(None);
        }
        self.part = 0;
        let parts = u32::try_from(parts).unwrap_or(u32::MAX);
        self.due = Some(Instant::now() + EVERY.max(took.saturating_mul(parts).saturating_mul(SHARE)));
        Ok(Some(Swept { oldest: std::mem::take(&mut self.oldest), detail: self.detail(observation)? }))
    }

    fn begin(&mut self, observation: &Observation, wanted: Option<u64>) {
        self.part = 0;
        self.oldest.clear();
        self.focus = wanted.map(|site| {
            let ledger = Ledger::new(None, Vec::new(), Moments::default());
            (site, ledger.sampled(observation.sample_interval))
        });
    }

    fn detail(&self, observation: &Observation) -> anyhow::Result<Option<Detail>> {
        let Some((site, ledger)) = &self.focus else { return Ok(None) };
        let mut ledger = ledger.clone();
        if let Some(counters) = observation.probe.site(*site)? {
            ledger.add_site(*site, &counters);
        }
        let account = ledger.close();
        let details = Details::read(observation, &account, At::End)?;
        let history = details.site(observation, *site, &account.totals);
        Ok(Some(Detail { site: *site, after: observation.duration(), history }))
    }
}
