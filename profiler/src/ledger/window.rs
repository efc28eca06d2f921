//! What changed of late: how much each site grew over the last minute and since a mark, and how fast it allocates.
//!
//! A running display wants this of every site once a second, so it is made from the sites' counters alone and not from
//! the live blocks. Of the past, a state every few seconds is kept, as 16 bytes a site.

use std::{collections::VecDeque, time::Duration};

use profiler_common::{
    control::Control,
    records::{Held, SiteCounters},
    sampling,
};

use super::estimate::{Unseen, Variance};

/// The counters of one site at a moment, in blocks and bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SiteCount {
    /// Its key.
    pub site: u64,
    /// Allocations since attach.
    pub allocated: Held,
    /// Of those, blocks that their thread freed again before it allocated another one.
    pub temporary_objects: u64,
    /// What it holds.
    pub held: Held,
    /// How far `held` may be off; nothing where every block is recorded.
    pub variance: Variance,
    /// The largest interval that its blocks were drawn at; 0 where every block is recorded.
    pub drawn_at: u64,
}

impl SiteCount {
    /// Takes the counters as the probes have them, of blocks that may have been sampled as the probes were told.
    #[must_use]
    pub fn of(site: u64, counters: &SiteCounters, sampling: bool, control: &Control) -> Self {
        let Held { objects, space } = counters.held();
        let blocks = |weight| sampling::blocks(sampling, weight);
        let held = Held { objects: blocks(objects), space };
        let mut sizes = counters.sizes;
        if sampling {
            sizes.iter_mut().for_each(|size| *size = blocks(*size));
        }
        let drawn_at = control.interval(counters.coarsest.into());
        Self {
            site,
            allocated: Held { objects: blocks(counters.alloc_objects), space: counters.alloc_space },
            temporary_objects: blocks(counters.temporary_objects),
            held,
            variance: Variance::of(drawn_at, held, &sizes),
            drawn_at,
        }
    }
}

/// How far what all sites hold may be off: they are sampled independently of one another, and where none has a sample,
/// something may live all the same.
#[must_use]
pub fn variance_of_all(counts: &[SiteCount], unseen: &Unseen) -> Variance {
    let allocated = counts.iter().fold(Held::NOTHING, |sum, count| Held {
        objects: sum.objects.saturating_add(count.allocated.objects),
        space: sum.space.saturating_add(count.allocated.space),
    });
    let drawn_at = counts.iter().map(|count| count.drawn_at).max().unwrap_or(0);
    counts.iter().map(|count| count.variance).sum::<Variance>() + unseen.variance(drawn_at, allocated)
}

/// What changed at one site.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Trend {
    /// Bytes that it holds more than when the window began.
    pub over_window: i64,
    /// Bytes that it holds more than at the last mark, if there is one.
    pub since_mark: Option<i64>,
    /// Allocations a second since the reading before.
    pub allocations_per_second: f64,
}

/// A state of the past: live bytes by site, sorted by site.
#[derive(Clone, Debug, Default)]
struct State {
    after: Duration,
    rss: Option<u64>,
    sites: Vec<(u64, u64)>,
}

/// The states of the last minute, or of however long it is to be.
#[derive(Debug)]
pub struct Window {
    length: Duration,
    states: VecDeque<State>,
    mark: Option<State>,
    /// Allocations by site at the last reading, sorted by site.
    before: Vec<(u64, u64)>,
    before_after: Duration,
}

/// States that the window is made of.
const STEPS: u32 = 6;

impl Window {
    /// A window of this length. It begins with nothing: what lives is all born later.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            states: VecDeque::from([State::default()]),
            mark: None,
            before: Vec::new(),
            before_after: Duration::ZERO,
        }
    }

    /// Enters a reading, taken so long after the beginning, and sorts it by site. One trend for each of its sites.
    pub fn add(&mut self, after: Duration, rss: Option<u64>, sites: &mut [SiteCount]) -> Vec<Trend> {
        sites.sort_unstable_by_key(|count| count.site);
        while self.states.len() > 1 && self.states.front().is_some_and(|s| s.after + self.length < after) {
            self.states.pop_front();
        }
        if let Some(first) = self.states.front_mut()
            && first.rss.is_none()
        {
            first.rss = rss;
        }
        let seconds = after.saturating_sub(self.before_after).as_secs_f64();
        let mut begin = Cursor::new(self.states.front().map(|state| &*state.sites).unwrap_or_default());
        let mut mark = self.mark.as_ref().map(|state| Cursor::new(&state.sites));
        let mut before = Cursor::new(&self.before);
        let trends = sites.iter().map(|count| {
            let allocations = count.allocated.objects.saturating_sub(before.at(count.site));
            Trend {
                over_window: difference(count.held.space, begin.at(count.site)),
                since_mark: mark.as_mut().map(|mark| difference(count.held.space, mark.at(count.site))),
                allocations_per_second: if seconds > 0.0 { allocations as f64 / seconds } else { 0.0 },
            }
        });
        let trends = trends.collect();
        self.before.clear();
        self.before.extend(sites.iter().map(|count| (count.site, count.allocated.objects)));
        self.before_after = after;
        let newest = self.states.back().map(|state| state.after).unwrap_or_default();
        if after >= newest + self.length / STEPS {
            self.states.push_back(State { after, rss, sites: spaces(sites) });
        }
        trends
    }

    /// Remembers this reading, which is sorted by site, as that of the last mark.
    pub fn mark(&mut self, after: Duration, rss: Option<u64>, sites: &[SiteCount]) {
        self.mark = Some(State { after, rss, sites: spaces(sites) });
    }

    /// When the window began, and the resident memory then.
    #[must_use]
    pub fn begin(&self) -> (Duration, Option<u64>) {
        self.states.front().map(|state| (state.after, state.rss)).unwrap_or_default()
    }

    /// When the last mark was set, and the resident memory then.
    #[must_use]
    pub fn marked(&self) -> Option<(Duration, Option<u64>)> {
        self.mark.as_ref().map(|state| (state.after, state.rss))
    }
}

fn spaces(sites: &[SiteCount]) -> Vec<(u64, u64)> {
    let holding = sites.iter().filter(|count| count.held.space > 0);
    holding.map(|count| (count.site, count.held.space)).collect()
}

/// How much more `now` is.
#[must_use]
pub fn difference(now: u64, before: u64) -> i64 {
    i64::try_from(i128::from(now) - i128::from(before)).unwrap_or(if now > before {
        i64::MAX
    } else {
        i64::MIN
    })
}

/// A walk through pairs sorted by site, for sites in the same order.
struct Cursor<'a> {
    rest: &'a [(u64, u64)],
}

impl<'a> Cursor<'a> {
    fn new(pairs: &'a [(u64, u64)]) -> Self {
        Self { rest: pairs }
    }

    /// What stands by the site; 0 for one that is not there.
    fn at(&mut self, site: u64) -> u64 {
        while let Some(((known, number), rest)) = self.rest.split_first() {
            match known.cmp(&site) {
                std::cmp::Ordering::Less => self.rest = rest,
                std::cmp::Ordering::Equal => return *number,
                std::cmp::Ordering::Greater => break,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(site: u64, allocations: u64, space: u64) -> SiteCount {
        SiteCount {
            site,
            allocated: Held { objects: allocations, space },
            temporary_objects: 0,
            held: Held { objects: allocations, space },
            variance: Variance::default(),
            drawn_at: 0,
        }
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn growth_is_that_of_the_last_minute() {
        let mut window = Window::new(at(60));
        // Site 1 gains 10 bytes a second for as long as it is watched, site 2 holds still after the first second, site 3
        // comes and goes.
        let reading = |second: u64| {
            let mut sites = vec![count(2, 5, 500), count(1, second, 10 * second)];
            if second.is_multiple_of(2) {
                sites.push(count(3, second, 7));
            }
            sites
        };
        let mut last = Vec::new();
        for second in 1..=300 {
            last = window.add(at(second), Some(1000 + second), &mut reading(second));
            let (begin, _) = window.begin();
            let expected = if begin.is_zero() { 500 } else { 0 };
            assert_eq!(last[1].over_window, expected, "second {second}");
            assert_eq!(last[0].over_window, 10 * i64::try_from(second - begin.as_secs()).unwrap_or(0));
        }
        let (begin, rss) = window.begin();
        assert!((235..=250).contains(&begin.as_secs()), "{begin:?}");
        assert_eq!(rss, Some(1000 + begin.as_secs()));
        assert_eq!(last.len(), 3);
        assert!((last[0].allocations_per_second - 1.0).abs() < 1e-9 && last[1].allocations_per_second == 0.0);
        assert_eq!(window.states.len(), 7);
    }

    #[test]
    fn growth_since_a_mark_may_be_negative() {
        let mut window = Window::new(at(60));
        let mut sites = [count(9, 3, 300), count(4, 1, 100)];
        let trends = window.add(at(1), None, &mut sites);
        assert_eq!((sites[0].site, trends[0].since_mark), (4, None));
        window.mark(at(1), None, &sites);
        let trends = window.add(at(2), None, &mut [count(4, 1, 0), count(9, 4, 450), count(11, 1, 8)]);
        let since: Vec<_> = trends.iter().map(|trend| trend.since_mark).collect();
        assert_eq!(since, [Some(-100), Some(150), Some(8)]);
        assert_eq!(window.marked(), Some((at(1), None)));
    }

    #[test]
    fn without_a_sample_nothing_is_not_certain() {
        let unseen = Unseen { interval: 4096, space: 1 << 20 };
        let bytes =
            |counts: &[SiteCount], unseen: &Unseen| variance_of_all(counts, unseen).standard_error().space;
        assert_eq!(bytes(&[], &unseen), 6144);
        assert_eq!(bytes(&[], &Unseen { space: 1000, ..unseen }), 500);
        assert_eq!(bytes(&[], &Unseen { space: 0, ..unseen }), 0);
        // Samples tell by themselves how far they may be off.
        let of = |space| Variance { objects: 1.0, space };
        let drawn = |variance| SiteCount { variance, drawn_at: 4096, ..count(1, 1, 4096) };
        assert_eq!(bytes(&[drawn(of(90_000.0)), drawn(of(160_000.0))], &unseen), 500);
        // What was recorded before, at a smaller interval, does not tell of what came since.
        let before = SiteCount { drawn_at: 1024, ..drawn(of(0.0)) };
        assert_eq!(bytes(&[before], &unseen), 6144);
        assert_eq!(bytes(&[before, drawn(of(0.0))], &unseen), 0);
    }

    #[test]
    fn nothing_overflows() {
        assert_eq!((difference(u64::MAX, 0), difference(0, u64::MAX)), (i64::MAX, i64::MIN));
        assert_eq!((difference(3, 5), difference(5, 3)), (-2, 2));
    }
}
