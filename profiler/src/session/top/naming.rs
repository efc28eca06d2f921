//! Names for the sites that the view asks about, now and then: looking a file's addresses up takes long if the file is
//! large, so it is done for many at once and takes a bounded part of the time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use profiler_common::records::OVERFLOW_SITE;

use crate::{
    session::{naming::Namer, observation::Observation},
    tui::{model::Named, state::State},
};

/// Naming may take one part in so many of the time.
const SHARE: u32 = 10;
/// How long a stack may be on its way before it counts as lost.
const ON_ITS_WAY: Duration = Duration::from_secs(3);
/// How often the names of generated code are read.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// When names may be looked up next.
#[derive(Debug, Default)]
pub(super) struct Names {
    due: Option<Instant>,
    asked: Option<Instant>,
    is_waiting: bool,
    /// Sites whose stack is not there yet, with the time when it was missed first.
    missed: HashMap<u64, Instant>,
}

impl Names {
    /// Names what is wanted, if it is time for it; whether there are new names.
    pub(super) fn look_up(
        &mut self,
        observation: &mut Observation,
        namer: &mut Namer,
        state: &mut State,
        is_changed: bool,
    ) -> bool {
        let now = Instant::now();
        self.is_waiting |= is_changed;
        if !self.is_waiting || self.due.is_some_and(|due| now < due) {
            return false;
        }
        let mut wanted = state.unnamed();
        self.is_waiting = !wanted.is_empty();
        wanted.retain(|site| self.is_to_be_named(observation, *site, now));
        if wanted.is_empty() {
            self.due = Some(now + Duration::from_millis(200));
            return false;
        }
        if self.asked.is_none_or(|asked| now.duration_since(asked) >= ASK_EVERY)
            && observation.process.is_alive()
        {
            namer.ask_living(observation);
            self.asked = Some(now);
        }
        for (site, (allocator, stack)) in wanted.iter().zip(namer.name_sites(observation, &wanted)) {
            self.missed.remove(site);
            state.name(*site, Named { allocator, stack });
        }
        state.arrange();
        let took = now.elapsed();
        self.due = Some(Instant::now() + took * SHARE);
        true
    }

    fn is_to_be_named(&mut self, observation: &Observation, site: u64, now: Instant) -> bool {
        site == OVERFLOW_SITE
            || observation.stacks.contains_key(&site)
            || now.duration_since(*self.missed.entry(site).or_insert(now)) >= ON_ITS_WAY
    }
}
