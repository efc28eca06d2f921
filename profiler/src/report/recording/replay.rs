//! From a recording to profiles: that of its end, and those of its snapshots.
//!
//! The profile of a snapshot is what heapscope would have reported had it ended then, as far as that is known: blocks are
//! looked at one by one only at the end, so their ages, sizes, threads and generations are not.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use profiler_common::records::Held;
use prost::Message;

use super::{
    Counters,
    chunk::{self, Kind},
    decode, message,
    reader::{Recording, Taken, index},
    series,
};
use crate::{
    report::{
        history::{History, SiteHistory, Snapshot},
        profile::{At, Profile, SiteReport, TargetInfo, Totals},
        units::span,
    },
    symbolize::frame::Frame,
};

/// Snapshots that a profile has at most; of more, every second, third and so on is taken.
const MOST_SNAPSHOTS: usize = 512;

/// What is said of a snapshot from a time of windows.
const IN_WINDOWS: &str = "Calls were seen in windows only: what was live at that moment is not known, what was allocated is \
    what was seen, and what was kept is known for the end of a recording only.";

/// What the sites held over time, and at the last of the snapshots that were replayed.
#[derive(Debug, Default)]
struct Series {
    /// By the number of the site.
    state: Vec<series::State>,
    /// By the number of the site: index among the snapshots that are kept, and bytes from then on.
    over_time: Vec<Vec<(usize, u64)>>,
    snapshots: Vec<Snapshot>,
    damage: Option<String>,
}

impl Recording {
    /// The profile of its end; where it was never closed, that of its last snapshot.
    #[must_use]
    pub fn profile(&self) -> Profile {
        match &self.end {
            Some(end) => self.closed(end),
            None => self.profile_at(self.snapshots.len().saturating_sub(1)),
        }
    }

    /// The profile of a snapshot, by its index.
    #[must_use]
    pub fn profile_at(&self, snapshot: usize) -> Profile {
        let series = self.series(snapshot.saturating_add(1).min(self.snapshots.len()));
        let taken = self.snapshots.get(snapshot);
        let mut profile = self.frame_of(taken.map_or(Duration::ZERO, |taken| taken.after), At::End);
        until_then(&mut profile);
        let is_sampled = profile.mode.sample_interval.is_some();
        let mut sites: Vec<SiteReport> = Vec::new();
        let mut squares = [0.0_f64; 4];
        for (number, (counters, over_time)) in
            series.state.iter().map(|site| &site.now).zip(series.over_time).enumerate()
        {
            if counters.alloc_objects == 0 && counters.inuse_objects == 0 {
                continue;
            }
            for (square, error) in squares.iter_mut().zip(counters.errors) {
                *square += error as f64 * error as f64;
            }
            let history = SiteHistory {
                temporary_objects: counters.temporary_objects,
                over_time,
                ..SiteHistory::default()
            };
            let (allocator, stack) = self.site(number);
            sites.push(SiteReport {
                totals: totals_of(counters),
                errors: is_sampled.then(|| totals_from(counters.errors)),
                oldest: None,
                allocator,
                stack,
                kept: None,
                history,
            });
        }
        let order = |site: &SiteReport| (site.totals.inuse_space, site.totals.alloc_space);
        sites.sort_by_key(|site| std::cmp::Reverse(order(site)));
        let totals = sum(sites.iter().map(|site| &site.totals));
        profile.history.end = Held { objects: totals.inuse_objects, space: totals.inuse_space };
        profile.history.snapshots = series.snapshots;
        profile.totals = totals;
        profile.errors = is_sampled.then(|| totals_from(squares.map(root)));
        profile.sites = sites;
        profile.quality.warnings.extend(series.damage);
        if let Some(taken) = taken {
            profile.quality.warnings.push(self.what_a_snapshot_lacks(taken));
        }
        if profile.mode.sampling() == "windows" {
            without_time(&mut profile);
            profile.quality.warnings.push(IN_WINDOWS.into());
        }
        profile
    }

    fn what_a_snapshot_lacks(&self, taken: &Taken) -> String {
        let since = if self.head.how == "run" { "start" } else { "attach" };
        let lacks =
            "the ages, sizes, threads and generations of blocks are known for the end of a recording only";
        if taken.has_sites {
            format!("Shown is the moment {} after the {since}; {lacks}.", span(taken.after))
        } else {
            "The recording does not say what each site held at that moment: it was made of a finished report."
                .into()
        }
    }

    fn closed(&self, end: &message::End) -> Profile {
        let mut series = self.series(self.snapshots.len());
        let windowed = end.windowed.as_ref().map(message::Windowed::decode);
        let at = decode::at(end.at());
        let mut profile = self.frame_of(Duration::from_nanos(end.duration_ns), at);
        let kept = series.snapshots.len();
        profile.sites = self.accounts.iter().map(|account| self.site_report(account, &mut series)).collect();
        profile.totals = end.totals.map(decode::totals).unwrap_or_default();
        profile.errors = end.errors.map(decode::totals);
        profile.history = History {
            peak: end.peak.map(decode::moment),
            exit: end.exit.map(decode::moment),
            end: decode::held(end.end),
            generations: end.generations.iter().map(decode::generation).collect(),
            snapshots: series.snapshots,
            birth_span: Duration::from_nanos(end.birth_span_ns),
            births: decode::parts(&end.births),
        };
        debug_assert!(kept <= MOST_SNAPSHOTS + 1, "snapshots are thinned");
        profile.mapped = end.mapped.as_ref().map(|told| told.decode(&self.mapped, |stack| self.stack(stack)));
        profile.python = end.pools.as_ref().map(|told| told.decode(&self.pools, |stack| self.stack(stack)));
        profile.quality.warnings.extend(series.damage);
        if windowed.is_some() {
            without_time(&mut profile);
        }
        profile.windowed = windowed;
        profile
    }

    /// A profile without sites.
    fn frame_of(&self, duration: Duration, at: At) -> Profile {
        let head = &self.head;
        let mut quality = decode::quality(&self.quality);
        quality.warnings.extend(self.warnings());
        Profile {
            windowed: None,
            target: TargetInfo { pid: head.pid, command: head.command.clone(), exe: head.exe.clone() },
            started: UNIX_EPOCH.checked_add(Duration::from_nanos(head.started_ns)).unwrap_or(UNIX_EPOCH),
            duration,
            mode: decode::mode(head, self.quality.recorded.as_ref(), at),
            totals: Totals::default(),
            errors: None,
            quality,
            history: History::default(),
            sites: Vec::new(),
            code: self.code.clone(),
            mapped: None,
            python: None,
            growth: None,
        }
    }

    /// What a reader must know of the recording as a file, in sentences.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let last = self.snapshots.last().map(|taken| span(taken.after));
        let since = if self.head.how == "run" { "start" } else { "attach" };
        let until = last.map_or_else(
            || "it has no snapshot".to_owned(),
            |last| format!("its last snapshot is of {last} after the {since}"),
        );
        match (self.damage(), self.is_closed()) {
            (Some(damage), true) => warnings.push(format!("The recording is damaged behind its end: {damage}.")),
            (Some(damage), false) => {
                warnings.push(format!("The recording is damaged: {damage}. What was before is shown; {until}."));
            }
            (None, false) => warnings.push(format!(
                "The recording has no end: heapscope was killed, the file was cut, or it is still being written; {until}."
            )),
            (None, true) => {}
        }
        if self.unknown_chunks() > 0 {
            warnings.push(format!(
                "{} parts of the recording are of a later version and were passed over.",
                self.unknown_chunks()
            ));
        }
        warnings
    }

    fn site(&self, number: usize) -> (String, Vec<Arc<Frame>>) {
        let Some(site) = self.sites.get(number) else { return (String::new(), Vec::new()) };
        (site.allocator.clone(), self.stack(&site.stack))
    }

    fn stack(&self, stack: &[u32]) -> Vec<Arc<Frame>> {
        let frame = |number: &u32| self.frames.get(index(*number)?).cloned();
        stack.iter().filter_map(frame).collect()
    }

    fn site_report(&self, account: &message::SiteAccount, series: &mut Series) -> SiteReport {
        let number = index(account.site).unwrap_or(usize::MAX);
        let (allocator, stack) = self.site(number);
        let own = series.over_time.get_mut(number).map(std::mem::take).unwrap_or_default();
        let told = account.over_time.chunks_exact(2).filter_map(|pair| {
            let at = usize::try_from(*pair.first()?).ok().filter(|at| *at < series.snapshots.len())?;
            Some((at, *pair.last()?))
        });
        let over_time = if account.over_time.is_empty() { own } else { told.collect() };
        SiteReport {
            totals: account.totals.map(decode::totals).unwrap_or_default(),
            errors: account.errors.map(decode::totals),
            oldest: account.oldest_ns.map(Duration::from_nanos),
            allocator,
            stack,
            kept: account.kept.map(|kept| kept.decode()),
            history: SiteHistory {
                peak: decode::held(account.peak),
                exit: decode::held(account.exit),
                temporary_objects: account.temporary_objects,
                sizes: account.sizes.iter().map(decode::size_class).collect(),
                threads: account
                    .threads
                    .iter()
                    .map(|thread| {
                        (thread.name.clone(), Held { objects: thread.objects, space: thread.space })
                    })
                    .collect(),
                generations: decode::parts(&account.generations),
                over_time,
                births: decode::parts(&account.births),
            },
        }
    }

    /// Goes through the first `count` snapshots. One that cannot be read ends them.
    fn series(&self, count: usize) -> Series {
        let every = count.div_ceil(MOST_SNAPSHOTS).max(1);
        let all = self.snapshots.get(..count).unwrap_or_default();
        let is_kept = |at: usize| at.is_multiple_of(every) || at + 1 == count;
        let keep =
            |taken: &Taken| Snapshot { after: taken.after, inuse: taken.inuse, rss: taken.resident.rss };
        let mut series = Series {
            state: vec![series::State::default(); self.sites.len()],
            over_time: vec![Vec::new(); self.sites.len()],
            ..Series::default()
        };
        for (at, taken) in all.iter().enumerate() {
            // What changes at one that is not kept is seen at the next one that is.
            let kept_as = series.snapshots.len();
            let over_time = &mut series.over_time;
            let applied = self.changes(taken).and_then(|changes| {
                series::apply(&changes, &mut series.state, |site, counters| {
                    let Some(told) = over_time.get_mut(site) else { return };
                    match told.last_mut() {
                        Some((last, space)) if *last == kept_as => *space = counters.inuse_space,
                        Some((_, space)) if *space == counters.inuse_space => {}
                        None if counters.inuse_space == 0 => {}
                        _ => told.push((kept_as, counters.inuse_space)),
                    }
                })
            });
            if let Err(what) = applied {
                let after = span(taken.after);
                series.damage = Some(format!(
                    "The recording is damaged: the snapshot of {after} cannot be read ({what})."
                ));
                // So that the last changes are of a snapshot that is there.
                let before = at.checked_sub(1).filter(|before| !is_kept(*before));
                series.snapshots.extend(before.and_then(|before| all.get(before)).map(keep));
                break;
            }
            if is_kept(at) {
                series.snapshots.push(keep(taken));
            }
        }
        series
    }

    fn changes(&self, taken: &Taken) -> Result<message::Changes, String> {
        let first = chunk::chunks(&self.bytes, taken.at).next();
        let (chunk, _) = first.ok_or("it is gone")??;
        if !taken.has_sites || chunk.kind != Kind::Snapshot {
            return Ok(message::Changes::default());
        }
        let read = message::Snapshot::decode(chunk.plain()?.as_slice());
        let changes = read.map_err(|error| error.to_string())?.changes.unwrap_or_default();
        message::Changes::decode(changes.as_slice()).map_err(|error| error.to_string())
    }
}

/// Takes from the mode of the end what came after the moment that the profile is of.
fn until_then(profile: &mut Profile) {
    let (mode, then) = (&mut profile.mode, profile.duration);
    mode.min_age = None;
    if !mode.budget.steps.is_empty() {
        mode.budget.steps.retain(|(after, _)| *after <= then);
        mode.sample_interval = Some(mode.budget.largest_interval()).filter(|interval| *interval > 0);
    }
}

/// Takes what snapshots say of live memory, which is not known where calls were seen in windows only.
fn without_time(profile: &mut Profile) {
    profile.history.snapshots.clear();
    for site in &mut profile.sites {
        site.history.over_time.clear();
    }
}

fn totals_of(counters: &Counters) -> Totals {
    let Counters { alloc_objects, alloc_space, inuse_objects, inuse_space, .. } = *counters;
    Totals { inuse_space, inuse_objects, alloc_space, alloc_objects }
}

fn totals_from([inuse_space, inuse_objects, alloc_space, alloc_objects]: [u64; 4]) -> Totals {
    Totals { inuse_space, inuse_objects, alloc_space, alloc_objects }
}

fn sum<'a>(all: impl Iterator<Item = &'a Totals>) -> Totals {
    all.fold(Totals::default(), |sum, totals| Totals {
        inuse_space: sum.inuse_space.saturating_add(totals.inuse_space),
        inuse_objects: sum.inuse_objects.saturating_add(totals.inuse_objects),
        alloc_space: sum.alloc_space.saturating_add(totals.alloc_space),
        alloc_objects: sum.alloc_objects.saturating_add(totals.alloc_objects),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn root(variance: f64) -> u64 {
    variance.sqrt().ceil() as u64
}

#[cfg(test)]
mod tests;
