//! From the account's numbers to what a report says of moments, sizes, threads and generations.

use std::{collections::HashMap, time::Duration};

use profiler_common::control::Control;
use profiler_common::records::{Held, Moments, NO_NAME, SIZE_CLASSES, largest_of_class};

use super::observation::Observation;
use crate::{
    ledger::{
        Account, SiteAccount,
        estimate::{StandardError, Unseen, Variance},
    },
    probe::error::ProbeError,
    report::{
        history::{Generation, History, Moment, SiteHistory, SizeClass, Snapshot},
        profile::{At, Totals},
    },
};

/// What the sites are told with.
#[derive(Debug)]
pub(super) struct Details {
    moments: Moments,
    thread_names: HashMap<u64, String>,
    at: At,
    /// The moment that was asked for.
    asked: At,
    /// Whether the numbers are estimates.
    estimates: bool,
    control: Control,
    /// What may have been allocated by sites of which no sample was drawn at the largest interval.
    unseen: Unseen,
    /// Since when that may be.
    unseen_since: Duration,
    /// Whether there were windows, so that no moment but the end is known.
    windows: bool,
}

impl Details {
    /// Reads what the account lacks; the totals are to be of this moment.
    pub(super) fn read(observation: &Observation, account: &Account, at: At) -> anyhow::Result<Self> {
        let windows = observation.governor.had_windows();
        Ok(Self {
            moments: account.moments,
            thread_names: observation.thread_names()?,
            at: if windows { At::End } else { at },
            asked: at,
            estimates: observation.governor.largest_interval() > 0,
            control: *observation.probe.control(),
            unseen: if windows { Unseen::default() } else { observation.unseen()? },
            unseen_since: observation.governor.sampled_since().unwrap_or(Duration::MAX),
            windows,
        })
    }

    /// The totals at the moment that was asked for.
    pub(super) fn totals(&self, sums: &SiteAccount) -> Totals {
        let held = match self.at {
            At::End => sums.inuse,
            At::Peak => sums.peak,
            At::Exit => sums.exit,
        };
        Totals {
            inuse_space: held.space,
            inuse_objects: held.objects,
            alloc_space: sums.alloc_space,
            alloc_objects: sums.alloc_objects,
        }
    }

    /// The standard errors of [`Self::totals`], where they are estimates.
    pub(super) fn errors(&self, sums: &SiteAccount) -> Option<Totals> {
        self.estimates.then(|| {
            let unseen = self.unseen(sums);
            errors(self.variances(sums).map(|variance| variance + unseen)).with_alloc(sums.alloc_error)
        })
    }

    /// What nothing was seen of.
    fn unseen(&self, sums: &SiteAccount) -> Variance {
        let allocated = Held { objects: sums.alloc_objects, space: sums.alloc_space };
        self.unseen.variance(self.interval(sums), allocated)
    }

    /// Those of the sums over all sites, which are sampled independently of one another.
    pub(super) fn errors_of_all(&self, account: &Account) -> Option<Totals> {
        let mut all = [Variance::default(); 2];
        for (_, sums) in &account.sites {
            for (sum, variance) in all.iter_mut().zip(self.variances(sums)) {
                *sum += variance;
            }
        }
        // Where sites have samples, their errors tell of what the others may have.
        let unseen = self.unseen(&account.totals);
        let all = all.map(|variance| variance + unseen);
        self.estimates.then(|| errors(all).with_alloc(account.totals.alloc_error))
    }

    /// Of what lived at the moment that was asked for, and of what was allocated.
    fn variances(&self, sums: &SiteAccount) -> [Variance; 2] {
        let of = |held| Variance::of(self.interval(sums), held, &sums.alloc_sizes);
        let live = match self.at {
            At::End => sums.inuse_variance,
            At::Peak => of(sums.peak),
            At::Exit => of(sums.exit),
        };
        [live, of(Held { objects: sums.alloc_objects, space: sums.alloc_space })]
    }

    /// The standard error of parts that together make up a number, each of what one site allocated, if it is an estimate.
    fn error<'a>(
        &self,
        unseen: Variance,
        parts: impl Iterator<Item = (Held, &'a SiteAccount)>,
    ) -> Option<Held> {
        let of =
            |(held, sums): (Held, &SiteAccount)| Variance::of(self.interval(sums), held, &sums.alloc_sizes);
        self.estimates.then(|| {
            let StandardError { objects, space } =
                (parts.map(of).sum::<Variance>() + unseen).standard_error();
            Held { objects, space }
        })
    }

    /// The largest interval that a site's blocks were drawn at: where the blocks are gone, errors are those of this one, and
    /// so too large rather than too small.
    fn interval(&self, sums: &SiteAccount) -> u64 {
        self.control.interval(sums.coarsest.into())
    }

    /// What to say where the moment asked for has not come, or is not known.
    pub(super) fn warning(&self) -> Option<String> {
        if self.windows && self.asked != At::End {
            return Some(format!(
                "What was live at the {} is not known, because calls were seen in windows only: what is shown is the end.",
                self.asked.label()
            ));
        }
        (self.at == At::Exit && self.moments.exit_time == 0)
            .then(|| "The process did not call exit while it was watched: what is shown is its end.".into())
    }

    /// What the profile as a whole says of its time.
    pub(super) fn history(&self, observation: &Observation, account: &Account) -> History {
        let recorded = &observation.history;
        let moment = |time, held, of_site: fn(&SiteAccount) -> Held| {
            let after = recorded.after(time);
            let unseen =
                if after < self.unseen_since { Variance::default() } else { self.unseen(&account.totals) };
            let error = || self.error(unseen, account.sites.iter().map(|(_, sums)| (of_site(sums), sums)));
            (time != 0 && !self.windows).then(|| Moment { after, held, error: error() })
        };
        let mut generations = Vec::new();
        if !recorded.marks.is_empty() {
            let begin = Generation { mark: None, after: recorded.after(0), held: Held::NOTHING, error: None };
            generations.push(begin);
            generations.extend(recorded.marks.iter().map(|mark| Generation {
                mark: Some(mark.name.clone()),
                after: recorded.after(mark.time),
                held: Held::NOTHING,
                error: None,
            }));
            for (index, held) in &account.totals.generations {
                if let Some(generation) = usize::try_from(*index).ok().and_then(|i| generations.get_mut(i)) {
                    generation.held = *held;
                    generation.error =
                        self.error(self.unseen(&account.totals), [(*held, &account.totals)].into_iter());
                }
            }
        }
        let snapshot = |snapshot: &crate::ledger::timeline::Snapshot| Snapshot {
            after: snapshot.after,
            inuse: snapshot.inuse,
            rss: snapshot.rss,
        };
        History {
            peak: moment(self.moments.peak_time, account.totals.peak, |sums| sums.peak),
            exit: moment(self.moments.exit_time, account.totals.exit, |sums| sums.exit),
            end: account.totals.inuse,
            generations,
            snapshots: if self.windows {
                Vec::new()
            } else {
                recorded.timeline.snapshots().iter().map(snapshot).collect()
            },
            birth_span: Duration::from_nanos(account.spans.step()),
            births: numbered(&account.totals.births),
        }
    }

    /// What one site says of its own.
    pub(super) fn site(&self, observation: &Observation, site: u64, sums: &SiteAccount) -> SiteHistory {
        let mut threads: Vec<_> =
            sums.threads.iter().map(|(number, held)| (self.thread_name(*number), *held)).collect();
        threads.sort_by(|(a_name, a), (b_name, b)| (b.space, a_name).cmp(&(a.space, b_name)));
        let generations = if observation.history.marks.is_empty() { &[] } else { &*sums.generations };
        SiteHistory {
            peak: sums.peak,
            exit: sums.exit,
            temporary_objects: sums.temporary_objects,
            sizes: sizes(sums),
            threads,
            generations: numbered(generations),
            over_time: if self.windows {
                Vec::new()
            } else {
                observation.history.timeline.changes(site).to_vec()
            },
            births: numbered(&sums.births),
        }
    }

    fn thread_name(&self, number: u64) -> String {
        match self.thread_names.get(&number) {
            Some(name) => name.clone(),
            None if number == NO_NAME => "[name not kept]".to_owned(),
            None => format!("[name {number} lost]"),
        }
    }
}

impl Observation {
    /// The names of the target's threads by their numbers in the account.
    fn thread_names(&self) -> Result<HashMap<u64, String>, ProbeError> {
        let mut names = HashMap::new();
        self.probe.thread_names(|number, name| {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            names.insert(number, String::from_utf8_lossy(name).into_owned());
        })?;
        Ok(names)
    }
}

fn errors([live, allocated]: [Variance; 2]) -> Totals {
    let (live, allocated) = (live.standard_error(), allocated.standard_error());
    Totals {
        inuse_space: live.space,
        inuse_objects: live.objects,
        alloc_space: allocated.space,
        alloc_objects: allocated.objects,
    }
}

fn numbered(parts: &[(u64, Held)]) -> Vec<(usize, Held)> {
    parts.iter().filter_map(|(index, held)| Some((usize::try_from(*index).ok()?, *held))).collect()
}

fn sizes(sums: &SiteAccount) -> Vec<SizeClass> {
    let classes = (0..SIZE_CLASSES).zip(sums.alloc_sizes.iter().zip(&sums.inuse_sizes));
    let blocks = classes.filter(|(_, (allocated, inuse))| **allocated > 0 || **inuse > 0);
    blocks
        .map(|(class, (allocated, inuse))| SizeClass {
            smallest: class.checked_sub(1).map_or(0, |below| largest_of_class(below).saturating_add(1)),
            largest: Some(largest_of_class(class)).filter(|largest| *largest != u64::MAX),
            alloc_objects: *allocated,
            inuse_objects: *inuse,
        })
        .collect()
}
