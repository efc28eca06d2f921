//! Windows: the allocators' probes are in the target for a slice of time and out of it for the rest, because even traps
//! that record nothing would cost more than the budget. When they come, how long they stay, and what was seen in them.
//!
//! The budget is an account: the target's CPU time pays in, probes draw. A window opens when there is enough for one, about
//! once a second and at a moment that chance has a part in, so that a load with a rhythm of its own is not always met at the
//! same beat.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use profiler_common::records::SiteCounters;

use super::overhead::Load;
use crate::{
    ledger::windows::{InWindows, Windows},
    target::process::cpu::tick,
};

/// How often windows come, if they need not come more rarely.
const PERIOD: Duration = Duration::from_secs(1);
/// The shortest window: to place probes and take them out takes as long.
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(500);
/// Where so much time would lie between two windows, there is nothing to be learned from them.
const RAREST: Duration = Duration::from_secs(60);
/// A window is meant to take this part of what a period pays in.
const AIM: f64 = 0.85;
/// What an earlier window counts for in what the last ones saw.
const FADING: f64 = 0.7;
/// Windows whose times are kept; beyond, every other one is forgotten, and two count as one.
const MOST: usize = 4096;

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Place the probes.
    Open,
    /// Take them out.
    Close,
    /// There will never be enough for a window.
    LetGo,
}

/// Decides when windows come.
#[derive(Debug)]
pub(super) struct Pacer {
    budget: f64,
    open: bool,
    changed: Instant,
    /// When the last window was opened.
    opened: Option<Instant>,
    length: Duration,
    /// How much longer the last window was than it should be: to take probes out takes a while.
    overhang: Duration,
    /// CPU time of the target that the probes may take now, in nanoseconds.
    credit: f64,
    /// CPU time that the target uses, in nanoseconds a second.
    used: f64,
    /// What an open window takes, in nanoseconds a second.
    cost: f64,
    paced: Instant,
    window: Load,
    /// What the last windows saw, the newer the more.
    pub(super) recent: Load,
    chance: u64,
}

impl Pacer {
    /// Begins between two windows, at this load and with so much credit, or with a debt.
    pub(super) fn new(budget: f64, load: &Load, credit: f64, now: Instant) -> Self {
        let seconds = (load.elapsed / 1e9).max(0.001);
        let mut pacer = Self {
            budget,
            open: false,
            changed: now,
            opened: None,
            length: SHORTEST,
            overhang: SHORTEST,
            credit: credit.min(0.0),
            used: load.used / seconds,
            cost: load.caused / seconds,
            paced: now,
            window: Load::default(),
            recent: Load::default(),
            chance: load.hits.to_bits() | 1,
        };
        pacer.set_length();
        pacer
    }

    /// How long nothing is to be done.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        let left = self.length.saturating_sub(now.saturating_duration_since(self.changed));
        if self.open { left } else { Duration::from_millis(10) }
    }

    /// Takes in what happened since the last call, and decides.
    pub(super) fn pace(&mut self, load: &Load, now: Instant) -> Option<Turn> {
        let seconds = now.saturating_duration_since(self.paced).as_secs_f64();
        self.paced = now;
        if seconds > 0.0 {
            // About a second counts.
            let weight = seconds.min(1.0);
            self.used += (load.used / seconds - self.used) * weight;
        }
        self.credit += self.budget * load.used - load.caused;
        let since = now.saturating_duration_since(self.changed);
        if self.open {
            self.window.add(load);
            return (since >= self.length).then_some(Turn::Close);
        }
        let needed = self.needed() * self.patience();
        self.credit = self.credit.min(needed.max(self.budget * self.used * PERIOD.as_secs_f64()));
        if needed > self.budget * self.used * RAREST.as_secs_f64() && self.used > 0.0 {
            return Some(Turn::LetGo);
        }
        // Two windows in one second would take twice what it pays in.
        let is_early = self.opened.is_some_and(|opened| now.saturating_duration_since(opened) < self.apart());
        (self.credit >= needed && !is_early).then_some(Turn::Open)
    }

    /// From one window to the next, at least: a period and up to a fifth.
    fn apart(&self) -> Duration {
        PERIOD.mul_f64(1.0 + (self.patience() - 1.0) / 3.0)
    }

    /// What a window will take. Traps never take more time than there is.
    fn needed(&self) -> f64 {
        self.cost.min(self.used) * (self.length + self.overhang).as_secs_f64()
    }

    /// A number from 1 to 1.6, another one for each window: what it takes is there before it opens.
    fn patience(&self) -> f64 {
        f64::from(u16::try_from(self.chance >> 48).unwrap_or(0)) / f64::from(u16::MAX) * 0.6 + 1.0
    }

    /// The probes are in place.
    pub(super) fn opened(&mut self, now: Instant) {
        (self.open, self.changed, self.window) = (true, now, Load::default());
        self.opened = Some(now);
        // splitmix64
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.chance = (self.chance ^ self.chance >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }

    /// The probes are out, or were not placed; `load` is what came since the decision.
    pub(super) fn closed(&mut self, load: &Load, now: Instant) {
        let seconds = now.saturating_duration_since(self.changed).as_secs_f64();
        self.credit += self.budget * load.used - load.caused;
        self.paced = now;
        if self.open {
            self.window.add(load);
            self.cost = self.window.caused / seconds.max(0.001);
            self.overhang = now.saturating_duration_since(self.changed).saturating_sub(self.length);
            let before = std::mem::replace(&mut self.recent, self.window);
            self.recent.add(&before.times(FADING));
            self.set_length();
        }
        (self.open, self.changed) = (false, now);
    }

    fn set_length(&mut self) {
        let pays_in = self.budget * self.used * PERIOD.as_secs_f64() * AIM;
        let length =
            Duration::try_from_secs_f64(pays_in / self.cost.min(self.used).max(1.0)).unwrap_or(LONGEST);
        self.length = length.saturating_sub(self.overhang).clamp(SHORTEST, LONGEST);
    }
}

/// What was seen in windows.
#[derive(Debug, Default)]
pub(super) struct Windowed {
    pub(super) windows: Windows,
    /// The windows, and the stretches of time without windows behind them, in order.
    pub(super) stretches: Vec<Stretch>,
    all: [InWindows; 2],
    sites: HashMap<u64, Site>,
    /// Since when there are windows, if there are, and how long the process had spent in its own code by then.
    since: Option<(u64, f64)>,
    /// The same where the window at hand was opened.
    worked: f64,
}

/// A stretch of time in which calls were seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) began: u64,
    pub(super) seconds: f64,
    pub(super) is_window: bool,
    /// Of a window, its first part: what is born there and not freed in the rest is kept. What is born later may be in use
    /// for just a moment, and nobody would see it go.
    pub(super) until: u64,
    pub(super) deciding: f64,
}

#[derive(Debug, Default)]
struct Site {
    objects: u64,
    space: u64,
    objects_in: InWindows,
    space_in: InWindows,
}

impl Windowed {
    /// From now on there are windows; what the sites have allocated so far was seen without.
    pub(super) fn begin(
        &mut self,
        now: u64,
        worked: f64,
        sites: impl IntoIterator<Item = (u64, SiteCounters)>,
    ) {
        self.since = Some((now, worked));
        self.windows.tick = tick().as_secs_f64();
        for (site, counters) in sites {
            let site = self.sites.entry(site).or_default();
            (site.objects, site.space) = (counters.alloc_objects, counters.alloc_space);
        }
    }

    /// A window begins.
    pub(super) fn open(&mut self, worked: f64) {
        self.worked = worked;
    }

    /// A window is over: from when to when it was open, and what the sites have allocated by now.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn add(
        &mut self,
        opened: u64,
        closed: u64,
        worked: f64,
        sites: impl IntoIterator<Item = (u64, SiteCounters)>,
    ) {
        let seconds = closed.saturating_sub(opened) as f64 / 1e9;
        self.windows.add(seconds);
        self.windows.worked[0] += (worked - self.worked).max(0.0);
        let (until, deciding) = (opened.midpoint(closed.max(opened)), seconds / 2.0);
        self.note(Stretch { began: opened, seconds, is_window: true, until, deciding });
        let mut all = [0.0; 2];
        for (site, SiteCounters { alloc_objects, alloc_space, .. }) in sites {
            let site = self.sites.entry(site).or_default();
            let objects = alloc_objects.saturating_sub(site.objects) as f64;
            let space = alloc_space.saturating_sub(site.space) as f64;
            site.objects_in.add(objects, seconds);
            site.space_in.add(space, seconds);
            all = [all[0] + objects, all[1] + space];
            (site.objects, site.space) = (alloc_objects, alloc_space);
        }
        self.all.iter_mut().zip(all).for_each(|(of_all, more)| of_all.add(more, seconds));
        self.span_to(closed, worked);
    }

    fn note(&mut self, stretch: Stretch) {
        if self.stretches.len() >= MOST {
            // Two become one.
            let pairs = self.stretches.chunks(2).map(|pair| {
                let [first, last] = [pair.first()?, pair.last()?];
                let seconds: f64 = pair.iter().map(|stretch| stretch.seconds).sum();
                let deciding = seconds - last.seconds + last.deciding;
                Some(Stretch { seconds, until: last.until, deciding, ..*first })
            });
            self.stretches = pairs.flatten().collect();
        }
        self.stretches.push(stretch);
    }

    /// Windows stand for the time up to now, when the process had spent so many seconds in its own code.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn span_to(&mut self, now: u64, worked: f64) {
        if let Some((since, before)) = self.since.replace((now, worked)) {
            self.windows.spanned += now.saturating_sub(since) as f64 / 1e9;
            self.windows.worked[1] += (worked - before).max(0.0);
        }
    }

    /// There are no windows any more, but probes that stay.
    pub(super) fn end(&mut self, now: u64, worked: f64) {
        self.span_to(now, worked);
        self.since = None;
        self.note(Stretch { began: now, seconds: 0.0, is_window: false, until: now, deciding: 0.0 });
    }

    /// Whether there were any.
    pub(super) fn any(&self) -> bool {
        // Where the observation ended before there was one, too: nothing was seen then, which is to be said.
        self.windows.count > 0 || self.since.is_some() || !self.stretches.is_empty()
    }

    /// Blocks and bytes that all sites have allocated in windows.
    pub(super) fn of_all(&self) -> [InWindows; 2] {
        self.all
    }

    /// Blocks and bytes that a site has allocated in windows.
    pub(super) fn of_site(&self, site: u64) -> [InWindows; 2] {
        self.sites.get(&site).map(|site| [site.objects_in, site.space_in]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target that uses a whole core and calls the allocator so often that traps would take this share of its time, if
    /// they were always there; placing probes takes 30 ms, taking them out 30 ms.
    fn simulate(budget: f64, share: f64, seconds: u64) -> (f64, usize, f64) {
        let begin = Instant::now();
        let load = |time: Duration, probed: bool| {
            let used = time.as_secs_f64() * 1e9;
            Load { elapsed: used, used, caused: if probed { used * share } else { 0.0 }, ..Load::default() }
        };
        let mut pacer =
            Pacer::new(budget, &load(Duration::from_secs(1), true), (budget - share) * 1e9, begin);
        let (mut now, mut caused, mut windows, mut worst) = (begin, 0.0, 0, 0.0_f64);
        let (mut second, mut in_second) = (begin, 0.0);
        let placing = Duration::from_millis(30);
        while now < begin + Duration::from_secs(seconds) {
            let (open, step) = (pacer.open, pacer.rest(now).max(Duration::from_millis(1)));
            now += step;
            let mut more = load(step, open);
            let turn = pacer.pace(&more, now);
            match turn {
                Some(Turn::Open) => {
                    now += placing;
                    let while_placed = load(placing, true);
                    more.caused += while_placed.caused;
                    pacer.credit += budget * while_placed.used - while_placed.caused;
                    pacer.opened(now);
                    pacer.paced = now;
                    windows += 1;
                }
                Some(Turn::Close) => {
                    now += placing;
                    more.caused += load(placing, true).caused;
                    pacer.closed(&load(placing, true), now);
                }
                Some(Turn::LetGo) => return (f64::INFINITY, windows, f64::INFINITY),
                None => {}
            }
            caused += more.caused;
            in_second += more.caused;
            if now >= second + Duration::from_secs(1) {
                worst = worst.max(in_second / 1e9);
                (second, in_second) = (now, 0.0);
            }
        }
        (caused / (now - begin).as_secs_f64() / 1e9, windows, worst)
    }

    #[test]
    fn windows_take_no_more_than_the_budget() {
        for (budget, share) in [(0.05, 0.6), (0.1, 0.9), (0.1, 0.15), (0.02, 0.3)] {
            let (took, windows, worst) = simulate(budget, share, 60);
            assert!(took <= budget * 1.02, "{budget} {share}: {took}");
            assert!(took >= budget * 0.6 && windows >= 20, "{budget} {share}: {took} in {windows}");
            // Where a second pays for a window, it does not see two whole ones.
            assert!(budget < 0.05 || worst <= budget * 1.4, "{budget} {share}: {worst} in the worst second");
        }
    }

    #[test]
    fn a_budget_that_allows_nothing_is_let_go() {
        assert!(simulate(0.0001, 0.9, 300).0.is_infinite());
    }

    #[test]
    fn what_is_seen_in_windows_stands_for_the_time_between_them() {
        let counters = |space| SiteCounters { alloc_space: space, ..SiteCounters::EMPTY };
        let mut windowed = Windowed::default();
        assert!(!windowed.any());
        windowed.begin(0, 0.0, [(7, counters(1000))]);
        assert!(windowed.any());
        windowed.add(900_000_000, 1_000_000_000, 0.0, [(7, counters(1100))]);
        windowed.add(1_900_000_000, 2_000_000_000, 0.0, [(7, counters(1200)), (8, counters(50))]);
        windowed.end(2_000_000_000, 0.0);
        let estimate = |site: u64| windowed.windows.estimate(&windowed.of_site(site)[1]);
        let (space, error) = estimate(7);
        assert!(
            (space - 2000.0).abs() < 1e-6 && error.is_some_and(|error| error < 1e-3),
            "{space} {error:?}"
        );
        let (space, error) = estimate(8);
        assert!(
            (space - 500.0).abs() < 1e-6 && error.is_some_and(|error| error > 300.0),
            "{space} {error:?}"
        );
    }
}
