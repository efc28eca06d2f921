//! The numbers that the view shows, once a second, from the counters of the sites.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use profiler_common::{counters::Counter, records::Held};

use crate::{
    ledger::{
        Account,
        estimate::{Unseen, Variance},
        window::{SiteCount, Trend, Window, difference, variance_of_all},
    },
    probe::Counters,
    report::{
        history::History,
        profile::{Mode, Profile, TargetInfo, Totals},
        quality::{Remark, remarks},
    },
    session::{naming::Namer, observation::Observation, only_caller::Callers, quality::lost},
    sys::clock::monotonic_nanoseconds,
    tui::model::{Growth, Marked, SiteNumbers, Update},
};

/// How often the counters are read, if that is quickly done.
const EVERY: Duration = Duration::from_secs(1);
/// Reading them may take one part in so many of the time.
const SHARE: u32 = 50;
/// Growth is shown over this time.
const WINDOW: Duration = Duration::from_secs(60);

/// The readings so far.
#[derive(Debug)]
pub(super) struct Readings {
    window: Window,
    due: Duration,
    /// The last reading, sorted by site.
    counts: Vec<SiteCount>,
    after: Duration,
    rss: Option<u64>,
    frees: u64,
    allocations: u64,
    mark: Option<String>,
    /// When the oldest live block of each site was born, as far as is known: `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) oldest: HashMap<u64, u64>,
}

impl Readings {
    pub(super) fn begin() -> Self {
        Self {
            window: Window::new(WINDOW),
            due: Duration::ZERO,
            counts: Vec::new(),
            after: Duration::ZERO,
            rss: None,
            frees: 0,
            allocations: 0,
            mark: None,
            oldest: HashMap::new(),
        }
    }

    /// Whether it is time for the next one.
    pub(super) fn are_due(&self, observation: &Observation) -> bool {
        observation.duration() >= self.due
    }

    /// How old the last one is.
    pub(super) fn age(&self, observation: &Observation) -> Duration {
        observation.duration().saturating_sub(self.after)
    }

    /// Reads all sites' counters.
    pub(super) fn read(&mut self, observation: &Observation, namer: &Namer) -> anyhow::Result<Update> {
        let (began, after) = (Instant::now(), observation.duration());
        let (sampling, control) = (observation.probe.sampling(), *observation.probe.control());
        let counters = observation.counters()?;
        self.counts.clear();
        let counts = &mut self.counts;
        observation.probe.sites(|site, counters| {
            // Others have mapped memory, and no blocks.
            if counters.alloc_objects > 0 {
                counts.push(SiteCount::of(site, &counters, sampling, &control));
            }
        })?;
        // What a process had when it ended is what it had last.
        self.rss = observation.process.rss_bytes().ok().or(self.rss);
        let trends = self.window.add(after, self.rss, &mut self.counts);
        let interval = observation.governor.largest_interval();
        let unseen = Unseen { interval, space: counters.get(Counter::UnsampledSpace) };
        let mut update = self.sums(after, &trends, (interval > 0).then_some(&unseen));
        self.count_events(after, &counters, &mut update);
        update.overhead_percent = observation.overhead_percent();
        update.lost = lost(&counters);
        update.remarks = remarks_of(observation, namer, &counters);
        self.after = after;
        self.due = after + EVERY.max(began.elapsed() * SHARE);
        Ok(update)
    }

    /// Notes the last reading as that of the mark that was just set.
    pub(super) fn mark(&mut self, observation: &Observation) {
        self.window.mark(self.after, self.rss, &self.counts);
        self.mark = observation.history.marks.last().map(|mark| mark.name.clone());
    }

    /// All that the sites' counters say; where they are of samples, with what may not have been seen.
    fn sums(&self, after: Duration, trends: &[Trend], unseen: Option<&Unseen>) -> Update {
        let now = monotonic_nanoseconds();
        let mut update = Update { after, rss: self.rss, ..Update::default() };
        let mut since_mark = 0i64;
        for (count, trend) in self.counts.iter().zip(trends) {
            add(&mut update.live, count.held);
            add(&mut update.allocated, count.allocated);
            update.lately.live = update.lately.live.saturating_add(trend.over_window);
            since_mark = since_mark.saturating_add(trend.since_mark.unwrap_or(0));
            let oldest = self.oldest.get(&count.site);
            update.sites.push(SiteNumbers {
                site: count.site,
                live: count.held,
                error: unseen.map(|_| error(count.variance)),
                allocated: count.allocated,
                temporary_objects: count.temporary_objects,
                lately: trend.over_window,
                marked: trend.since_mark,
                allocations_per_second: trend.allocations_per_second,
                oldest: oldest.map(|born| Duration::from_nanos(now.saturating_sub(*born))),
            });
        }
        update.live_error = unseen.map(|unseen| error(variance_of_all(&self.counts, unseen)));
        let (begin, rss) = self.window.begin();
        update.lately.over = after.saturating_sub(begin);
        update.lately.rss = self.rss_growth(rss);
        update.marked = self.window.marked().zip(self.mark.clone()).map(|((marked, rss), name)| Marked {
            name,
            growth: Growth {
                over: after.saturating_sub(marked),
                live: since_mark,
                rss: self.rss_growth(rss),
            },
        });
        update
    }

    fn rss_growth(&self, before: Option<u64>) -> Option<i64> {
        Some(difference(self.rss?, before?))
    }

    /// Allocations and frees a second, those of unknown blocks too.
    fn count_events(&mut self, after: Duration, counters: &Counters, update: &mut Update) {
        let allocations = counters.get(Counter::AllocObjects);
        let frees = counters.get(Counter::FreedObjects) + counters.get(Counter::UnmatchedFrees);
        let seconds = after.saturating_sub(self.after).as_secs_f64();
        if seconds > 0.0 {
            update.allocations_per_second = allocations.saturating_sub(self.allocations) as f64 / seconds;
            update.frees_per_second = frees.saturating_sub(self.frees) as f64 / seconds;
        }
        (self.allocations, self.frees) = (allocations, frees);
    }
}

fn add(sum: &mut Held, more: Held) {
    sum.objects = sum.objects.saturating_add(more.objects);
    sum.space = sum.space.saturating_add(more.space);
}

fn error(variance: Variance) -> Held {
    let error = variance.standard_error();
    Held { objects: error.objects, space: error.space }
}

/// What a report made now would say of its numbers.
fn remarks_of(observation: &Observation, namer: &Namer, counters: &Counters) -> Vec<Remark> {
    let quality = namer.quality(observation, &Account::default(), counters);
    remarks(&Profile {
        target: TargetInfo::default(),
        started: SystemTime::UNIX_EPOCH,
        duration: observation.duration(),
        mode: Mode {
            sample_interval: Some(observation.governor.largest_interval()).filter(|interval| *interval > 0),
            budget: observation.governor.report(observation.processor_percent()),
            command: "attach".into(),
            only_caller: observation.callers.as_ref().map(Callers::report),
            ..Mode::default()
        },
        totals: Totals::default(),
        errors: None,
        quality,
        history: History::default(),
        sites: Vec::new(),
        windowed: None,
        code: Vec::new(),
        mapped: None,
        python: None,
        growth: None,
    })
}
