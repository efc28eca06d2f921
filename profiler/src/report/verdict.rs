//! Does a site's memory grow? A verdict in words, by criteria that docs/html.md states.
//!
//! It is told from the snapshots alone: what the site held at each. A cache that is still being filled looks like a leak,
//! and nothing here knows better.

use std::time::Duration;

use super::{
    profile::{Profile, SiteReport},
    units::{blocks, bytes, count, counted, percent, span},
};

/// Fewer snapshots of a site say nothing.
const FEWEST_SNAPSHOTS: usize = 6;
/// Nor does a shorter time.
const SHORTEST: Duration = Duration::from_secs(4);
/// Fewer live blocks may grow, but not steadily.
const FEWEST_BLOCKS: u64 = 8;
/// Bytes a second that are told by the second; less is told by the minute or the hour.
const LEAST_RATE: f64 = 256.0 * 1024.0;

/// What a site's memory does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Trend {
    /// More in each quarter of the time.
    GrowsSteadily,
    /// More at the end than before, but not in each quarter.
    Grows,
    /// As much as before, with blocks that came and went.
    CacheLike,
    /// As much as before, and the same blocks.
    Plateau,
    /// Up and down.
    ComesAndGoes,
    /// Far less than there has been.
    Shrinks,
    /// Nothing is left.
    AllFreed,
    /// Nothing can be said.
    TooShort,
}

impl Trend {
    /// All of them, the most alarming first.
    pub const ALL: [Self; 8] = [
        Self::GrowsSteadily,
        Self::Grows,
        Self::CacheLike,
        Self::Plateau,
        Self::ComesAndGoes,
        Self::Shrinks,
        Self::AllFreed,
        Self::TooShort,
    ];

    /// Its words.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::GrowsSteadily => "grows steadily",
            Self::Grows => "grows unsteadily",
            Self::CacheLike => "cache-like",
            Self::Plateau => "plateau",
            Self::ComesAndGoes => "comes and goes",
            Self::Shrinks => "shrinks",
            Self::AllFreed => "all freed",
            Self::TooShort => "too short to tell",
        }
    }
}

/// The verdict on one site.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// In a word.
    pub trend: Trend,
    /// In numbers, beginning with the trend's words.
    pub text: String,
    /// Net growth in bytes per second in the second half of the time that the site was seen; 0 where that was too short.
    pub growth: f64,
}

/// What a site held at each snapshot from the first at which it held anything.
struct Curve {
    levels: Vec<(Duration, u64)>,
}

impl Curve {
    fn of(profile: &Profile, site: &SiteReport) -> Self {
        let changes = &site.history.over_time;
        let first = changes.first().map_or(usize::MAX, |(index, _)| *index);
        let (mut next, mut level) = (0, 0);
        let mut levels = Vec::new();
        for (index, snapshot) in profile.history.snapshots.iter().enumerate().skip(first) {
            while let Some((_, space)) = changes.get(next).filter(|(from, _)| *from <= index) {
                level = *space;
                next += 1;
            }
            levels.push((snapshot.after, level));
        }
        Self { levels }
    }

    fn begin(&self) -> (Duration, u64) {
        self.levels.first().copied().unwrap_or_default()
    }

    fn end(&self) -> (Duration, u64) {
        self.levels.last().copied().unwrap_or_default()
    }

    fn time(&self) -> Duration {
        self.end().0.saturating_sub(self.begin().0)
    }

    /// The level after so many quarters of the time.
    fn after_quarters(&self, quarters: u32) -> u64 {
        self.at(self.begin().0 + self.time() / 4 * quarters).1
    }

    /// The last snapshot that is no later.
    fn at(&self, moment: Duration) -> (Duration, u64) {
        let until = self.levels.partition_point(|(after, _)| *after <= moment);
        self.levels.get(until.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The least and the most in the second half of the time.
    fn second_half(&self) -> (u64, u64) {
        let middle = self.begin().0 + self.time() / 2;
        let from = self.levels.partition_point(|(after, _)| *after < middle);
        let half = self.levels.get(from..).unwrap_or_default();
        let bounds = half.iter().map(|(_, level)| *level);
        (bounds.clone().min().unwrap_or(0), bounds.max().unwrap_or(0))
    }

    /// The highest level, and when it was last reached.
    fn most(&self) -> (Duration, u64) {
        self.levels.iter().max_by_key(|(_, level)| *level).copied().unwrap_or_default()
    }

    /// Since when the level has been no further from the last one than `slack`.
    fn level_since(&self, slack: u64) -> Duration {
        let last = self.end().1;
        let level = |(_, other): &&(Duration, u64)| other.abs_diff(last) <= slack;
        self.levels.iter().rev().take_while(level).last().map_or(self.end().0, |(after, _)| *after)
    }
}

/// Judges a site of `profile` by its whole time, whatever moment the profile's live memory is of.
#[must_use]
pub fn verdict(profile: &Profile, site: &SiteReport) -> Verdict {
    let curve = Curve::of(profile, site);
    let growth = growth(&curve);
    let (trend, numbers) = judge(profile, site, &curve);
    let text = match numbers {
        numbers if numbers.is_empty() => trend.label().to_owned(),
        numbers => format!("{}: {numbers}", trend.label()),
    };
    Verdict { trend, text, growth: if trend == Trend::TooShort { 0.0 } else { growth } }
}

fn judge(profile: &Profile, site: &SiteReport, curve: &Curve) -> (Trend, String) {
    let allocated = site.totals.alloc_objects;
    let live = live_at_end(profile, site);
    let freed = live.map(|live| allocated.saturating_sub(live));
    let (_, last) = curve.end();
    if live.unwrap_or(0) == 0 && last == 0 {
        let peak = site.history.peak.space;
        let peak = if peak > 0 { format!(", {} at the peak", bytes(peak)) } else { String::new() };
        return (Trend::AllFreed, format!("{}{peak}", blocks(allocated)));
    }
    let time = curve.time();
    if curve.levels.len() < FEWEST_SNAPSHOTS || time < SHORTEST {
        let snapshots = counted(curve.levels.len() as u64, "snapshot", "snapshots");
        let seen =
            format!("seen at {snapshots} in {}", span(profile.duration.saturating_sub(curve.begin().0)));
        return (Trend::TooShort, seen);
    }
    let grown = last.saturating_sub(curve.begin().1);
    if let Some(error) = site.errors.map(|error| error.inuse_space)
        && last < error.saturating_mul(3)
    {
        return (Trend::TooShort, format!("too few samples, {} ± {}", bytes(last), bytes(error)));
    }
    let quarters: Vec<u64> = (0..=4).map(|quarters| curve.after_quarters(quarters)).collect();
    let steady = quarters.windows(2).all(|pair| pair[1].saturating_sub(pair[0]) >= grown / 16);
    if grown > last / 4 && steady && live.is_none_or(|live| live >= FEWEST_BLOCKS) {
        return (Trend::GrowsSteadily, pace(site, grown, time, freed));
    }
    let (least, most) = curve.second_half();
    if most - least <= last / 10 {
        return level(profile, site, curve, freed);
    }
    let (when, highest) = curve.most();
    if last < highest / 2 {
        return (
            Trend::Shrinks,
            format!("{} of {}, which it held after {}", bytes(last), bytes(highest), span(when)),
        );
    }
    let middle = quarters.get(2).copied().unwrap_or_default();
    if last >= highest - highest / 10 && last.saturating_sub(middle) > last / 10 && curve.begin().1 < middle {
        return (Trend::Grows, pace(site, grown, time, freed));
    }
    let text = format!("{} to {} in the last {}", bytes(least), bytes(most), span(time / 2));
    (Trend::ComesAndGoes, text)
}

/// A site whose memory has stayed as it is.
fn level(profile: &Profile, site: &SiteReport, curve: &Curve, freed: Option<u64>) -> (Trend, String) {
    let (end, last) = curve.end();
    let lasted = span(end.saturating_sub(curve.level_since(last / 10)));
    let held = format!("{} for {lasted}", bytes(last));
    // Blocks that are younger than the level: as many must have gone.
    let middle = curve.begin().0 + curve.time() / 2;
    let span_of =
        |index: usize| profile.history.birth_span.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX));
    let young = site.history.births.iter().filter(|(index, _)| span_of(*index) >= middle);
    let young = young.fold(0u64, |sum, (_, held)| sum.saturating_add(held.space));
    let allocated = site.totals.alloc_objects;
    if let Some(freed) = freed.filter(|freed| *freed > 0)
        && (young > last / 10 || freed > allocated / 2)
    {
        return (Trend::CacheLike, format!("{held}, while {} came and went", blocks(freed)));
    }
    (Trend::Plateau, format!("{held}{}", how_many_freed(freed, allocated)))
}

/// `1.0 MiB/min for 11 min 2 s, 17 blocks/s of 1,024 B, none freed`.
fn pace(site: &SiteReport, grown: u64, time: Duration, freed: Option<u64>) -> String {
    let totals = &site.totals;
    let size = totals.alloc_space.checked_div(totals.alloc_objects).unwrap_or_default();
    let exact = |space: u64, objects: u64| size.checked_mul(objects) == Some(space);
    let equal = site.errors.is_none()
        && exact(totals.alloc_space, totals.alloc_objects)
        && exact(totals.inuse_space, totals.inuse_objects);
    let of_size = match equal {
        true => format!("of {} B", count(size)),
        false => format!("of {} on average", bytes(size)),
    };
    let number = grown / size.max(1);
    format!(
        "{} for {}, {} {of_size}{}",
        rate(grown, time, LEAST_RATE, bytes),
        span(time),
        rate(number, time, 1.0, blocks),
        how_many_freed(freed, totals.alloc_objects)
    )
}

fn how_many_freed(freed: Option<u64>, allocated: u64) -> String {
    match freed {
        None => String::new(),
        Some(0) => ", none freed".to_owned(),
        Some(freed) => format!(", {} freed", percent(freed, allocated)),
    }
}

/// So much in so much time, in the unit of time that makes it at least `least`: seconds, minutes, else hours.
fn rate(number: u64, time: Duration, least: f64, unit: impl Fn(u64) -> String) -> String {
    let per_second = per_second(number, time);
    let (factor, name) = if per_second >= least {
        (1, "s")
    } else if per_second * 60.0 >= least {
        (60, "min")
    } else {
        (3600, "h")
    };
    let milliseconds = time.as_millis().max(1);
    let scaled = (u128::from(number) * factor * 1000 + milliseconds / 2) / milliseconds;
    format!("{}/{name}", unit(u64::try_from(scaled).unwrap_or(u64::MAX)))
}

#[expect(clippy::cast_precision_loss, reason = "a rate is rounded anyway")]
fn per_second(number: u64, time: Duration) -> f64 {
    number as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Bytes a second in the second half of the time: what a cache took to fill up is no growth of now.
fn growth(curve: &Curve) -> f64 {
    let (since, begin) = curve.at(curve.begin().0 + curve.time() / 2);
    let (until, end) = curve.end();
    let sign = if end < begin { -1.0 } else { 1.0 };
    match until.saturating_sub(since) {
        Duration::ZERO => 0.0,
        time => sign * per_second(end.abs_diff(begin), time),
    }
}

/// Blocks of all ages that live at the end, where that is known.
fn live_at_end(profile: &Profile, site: &SiteReport) -> Option<u64> {
    let born = || site.history.births.iter().fold(0u64, |sum, (_, held)| sum.saturating_add(held.objects));
    match (profile.history.exit, profile.mode.min_age) {
        // Where the process did not call exit, its end takes the place.
        (None, _) => Some(site.history.exit.objects),
        (Some(_), None) => Some(born()),
        (Some(_), Some(_)) => None,
    }
}

#[cfg(test)]
mod tests;
