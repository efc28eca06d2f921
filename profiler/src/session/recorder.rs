//! Writes a recording while its target is watched: each snapshot is in the file as soon as it is taken.
//!
//! Snapshots are read on their own and not with those of the history: a mark must have one at its own moment, and what is
//! in a file is never thinned.

use std::{
    fs::File,
    io::{self, Seek},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use profiler_common::{
    records::{Held, SiteCounters},
    sampling,
};

use super::{naming::Namer, observation::Observation, options::CommonOptions};
use crate::{
    ledger::{
        Account,
        estimate::{Unseen, Variance},
    },
    report::{
        profile::{At, Profile},
        recording::{Counters, Head, Moment, Resident, Writer},
    },
    target::memory,
};

/// Time from one snapshot to the next where the user does not say, at first.
const STEP: Duration = Duration::from_secs(1);
/// After so many snapshots the next ones are twice as far apart, and so on, where the user does not say.
const SNAPSHOTS_A_STEP: u32 = 256;
/// A snapshot may take one part in so many of the time.
const SHARE: u32 = 50;

/// A recording under way.
#[derive(Debug)]
pub(super) struct Recorder {
    path: PathBuf,
    file: File,
    writer: Option<Writer<File>>,
    pace: Pace,
    /// Marks of the history that have their snapshot.
    marks: usize,
    /// Sites whose stack has not come out of the kernel yet.
    nameless: Vec<u64>,
    failed: Option<io::Error>,
}

/// When the next snapshot is due.
#[derive(Debug)]
struct Pace {
    step: Duration,
    is_fixed: bool,
    left: u32,
    due: Duration,
}

impl Pace {
    fn new(interval: Option<Duration>) -> Self {
        Self {
            step: interval.unwrap_or(STEP),
            is_fixed: interval.is_some(),
            left: SNAPSHOTS_A_STEP,
            due: Duration::ZERO,
        }
    }

    fn taken(&mut self, after: Duration, took: Duration) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 && !self.is_fixed {
            self.step = self.step.saturating_mul(2);
            self.left = SNAPSHOTS_A_STEP;
        }
        self.due = after.saturating_add(self.step.max(took.saturating_mul(SHARE)));
    }
}

impl Recorder {
    /// A recording in this file, which is emptied when the first snapshot is taken.
    pub(super) fn new(path: PathBuf, file: File, interval: Option<Duration>) -> Self {
        Self {
            path,
            file,
            writer: None,
            pace: Pace::new(interval),
            marks: 0,
            nameless: Vec::new(),
            failed: None,
        }
    }

    fn is_due(&self, observation: &Observation) -> bool {
        self.failed.is_none()
            && (observation.duration() >= self.pace.due || observation.history.marks.len() > self.marks)
    }

    fn begin(&mut self, head: &Head) -> io::Result<Writer<File>> {
        self.file.set_len(0)?;
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Writer::begin(file, head)
    }
}

impl Namer {
    /// Takes a snapshot for the recording, if there is one and it is time.
    pub(super) fn record(&mut self, observation: &mut Observation, options: &CommonOptions) {
        let Some(mut recorder) = observation.recorder.take_if(|recorder| recorder.failed.is_none()) else {
            return;
        };
        if recorder.is_due(observation) {
            self.append_or_fail(&mut recorder, observation, options);
        }
        observation.recorder = Some(recorder);
    }

    /// Takes the last snapshot and writes the end; the path of the recording, if there is one.
    ///
    /// # Errors
    /// Where the recording could not be written, now or before.
    pub(super) fn close_recording(
        &mut self,
        observation: &mut Observation,
        options: &CommonOptions,
        profile: &Profile,
    ) -> anyhow::Result<Option<PathBuf>> {
        let Some(mut recorder) = observation.recorder.take() else { return Ok(None) };
        if recorder.failed.is_none() {
            self.append_or_fail(&mut recorder, observation, options);
        }
        let failed = |path: &PathBuf| format!("cannot write {}", path.display());
        if let Some(error) = recorder.failed {
            return Err(error).with_context(|| failed(&recorder.path));
        }
        let at_end;
        let profile = if profile.mode.at == At::End {
            profile
        } else {
            // A recording holds its end, with which it knows the peak and the exit too.
            let options = CommonOptions { at: At::End, ..options.clone() };
            at_end = self.profile(observation, &options, usize::MAX)?;
            &at_end
        };
        if let Some(mut writer) = recorder.writer {
            writer.close(profile, self.keys(), false).with_context(|| failed(&recorder.path))?;
        }
        Ok(Some(recorder.path))
    }

    fn append_or_fail(
        &mut self,
        recorder: &mut Recorder,
        observation: &mut Observation,
        options: &CommonOptions,
    ) {
        if let Err(error) = self.append(recorder, observation, options) {
            observation
                .warn(format!("{} could not be written to its end: {error}.", recorder.path.display()));
            recorder.failed = Some(error);
        }
    }

    fn append(
        &mut self,
        recorder: &mut Recorder,
        observation: &mut Observation,
        options: &CommonOptions,
    ) -> io::Result<()> {
        let (after, began) = (observation.duration(), Instant::now());
        let mut writer = match recorder.writer.take() {
            Some(writer) => writer,
            None => recorder.begin(&Head {
                target: Self::target(observation),
                started: observation.started,
                mode: self.mode(observation, options),
            })?,
        };
        let marks = observation.history.marks.get(recorder.marks..).unwrap_or_default();
        recorder.marks = observation.history.marks.len();
        let marks = marks.iter().map(|mark| mark.name.clone()).collect();
        let sites = read_sites(observation)?;
        // A site is counted after its stack was sent: what is counted here has its stack among those taken in now.
        observation.keep_up();
        observation.code.mapped_files().iter().for_each(|mapping| writer.code(mapping));
        let mut new = std::mem::take(&mut recorder.nameless);
        new.extend(sites.iter().map(|(site, _)| *site).filter(|site| !writer.knows(*site)));
        for (site, (allocator, stack)) in new.iter().zip(self.name_sites(observation, &new)) {
            writer.define(*site, &allocator, &stack)?;
            if !observation.stacks.contains_key(site) {
                recorder.nameless.push(*site);
            }
        }
        let moment = Moment { after, resident: resident(observation), marks };
        let counters = observation.counters().map_err(io::Error::other)?;
        let quality = self.quality(observation, &Account::default(), &counters);
        writer.snapshot(&moment, &quality, &self.mode(observation, options), sites)?;
        recorder.writer = Some(writer);
        recorder.pace.taken(after, began.elapsed());
        Ok(())
    }
}

/// What every site has by now.
fn read_sites(observation: &Observation) -> io::Result<Vec<(u64, Counters)>> {
    let (sampling, control) = (observation.probe.sampling(), *observation.probe.control());
    let blocks = |sum| sampling::blocks(sampling, sum);
    let had_windows = observation.governor.had_windows();
    let unseen = if had_windows { Ok(Unseen::default()) } else { observation.unseen() };
    let unseen = unseen.map_err(io::Error::other)?;
    let mut sites = Vec::new();
    let read = observation.probe.sites(|site, counters: SiteCounters| {
        if counters.alloc_objects == 0 || observation.is_of_no_block(site, &counters) {
            return;
        }
        // Between windows frees are not seen: what lives is not known, and the recording's warnings say so.
        let held = if had_windows { Held::NOTHING } else { counters.held() };
        let allocated = Held { objects: counters.alloc_objects, space: counters.alloc_space };
        let [held, allocated] =
            [held, allocated].map(|of| Held { objects: blocks(of.objects), space: of.space });
        let sizes = counters.sizes.map(blocks);
        let interval = control.interval(counters.coarsest.into());
        let of_none = unseen.variance(interval, allocated);
        let error = |of| (Variance::of(interval, of, &sizes) + of_none).standard_error();
        let [of_held, of_allocated] = [held, allocated].map(error);
        let counters = Counters {
            alloc_objects: allocated.objects,
            alloc_space: allocated.space,
            inuse_objects: held.objects,
            inuse_space: held.space,
            temporary_objects: blocks(counters.temporary_objects),
            errors: [of_held.space, of_held.objects, of_allocated.space, of_allocated.objects],
        };
        sites.push((site, counters));
    });
    read.map_err(io::Error::other)?;
    Ok(sites)
}

fn resident(observation: &Observation) -> Resident {
    let memory = memory::resident(&observation.process).unwrap_or_default();
    let mapped = observation.mapped.as_ref().map(|mapped| mapped.account.sites().1.inuse_space);
    let memory::Resident { rss, anon, file, shmem, swap } = memory;
    Resident { rss, anon, file, shmem, swap, mapped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_come_ever_more_rarely() {
        let mut pace = Pace::new(None);
        let mut taken = 0;
        for second in 0..86_400 {
            let now = Duration::from_secs(second);
            if now >= pace.due {
                pace.taken(now, Duration::ZERO);
                taken += 1;
            }
        }
        assert!((1800..2200).contains(&taken), "{taken} snapshots in a day");
    }

    #[test]
    fn the_user_decides_how_often() {
        let mut pace = Pace::new(Some(Duration::from_secs(60)));
        for minute in 0..1440 {
            pace.taken(Duration::from_secs(60 * minute), Duration::from_millis(1));
        }
        assert_eq!(pace.due, Duration::from_secs(60 * 1440));
        pace.taken(pace.due, Duration::from_secs(2));
        assert_eq!(pace.due, Duration::from_secs(60 * 1440 + 100), "what takes long comes more rarely");
    }
}
