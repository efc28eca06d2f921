//! Another moment of a finished profile: its peak, its exit, or what was born between two marks.

use std::{str::FromStr, time::Duration};

use profiler_common::records::Held;

use super::{Sums, sort, standard_error, variance};
use crate::report::{
    profile::{At, Profile, SiteReport},
    units::span,
};

/// A moment as people name it: `end`, `peak`, `exit`, a time since attach (`90`, `1.5`, `2m`), or the name of a mark
/// (`mark:peak` for one that has another meaning here).
#[derive(Clone, PartialEq, Debug)]
pub enum When {
    /// A moment that every closed recording knows.
    At(At),
    /// So long after attach.
    After(Duration),
    /// When the mark with this name was set.
    Mark(String),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(match text {
            "" => return Err("name a moment: end, peak, exit, a time such as 90s, or a mark".into()),
            "end" => Self::At(At::End),
            "peak" => Self::At(At::Peak),
            "exit" => Self::At(At::Exit),
            _ => match (seconds, humantime::parse_duration(text), text.strip_prefix("mark:")) {
                (Some(after), _, _) | (None, Ok(after), _) => Self::After(after),
                (None, Err(_), name) => Self::Mark(name.unwrap_or(text).to_owned()),
            },
        })
    }
}

/// The profile of another moment that it knows.
///
/// # Errors
/// A sentence, where it does not know it.
pub fn at(mut profile: Profile, at: At) -> Result<Profile, String> {
    if profile.mode.at == at {
        return Ok(profile);
    }
    if profile.mode.at != At::End {
        return Err(format!("the recording holds its {} only", profile.mode.at.label()));
    }
    let of_site: fn(&SiteReport) -> Held = match at {
        At::End => return Ok(profile),
        At::Peak if profile.history.peak.is_some() => |site| site.history.peak,
        At::Exit if profile.history.exit.is_some() => |site| site.history.exit,
        At::Peak => {
            return Err(
                "the recording does not know its peak: nothing was allocated, or it has no end".into()
            );
        }
        At::Exit => return Err("the process did not call exit while it was watched".into()),
    };
    show(&mut profile, of_site);
    profile.mode.at = at;
    profile.mode.min_age = None;
    Ok(profile)
}

/// What was born after one mark and before another, and lives at the end. `start` and `end` bound it like marks.
///
/// # Errors
/// A sentence, where the recording does not know.
pub fn between(mut profile: Profile, from: &str, to: &str) -> Result<Profile, String> {
    if profile.mode.at != At::End {
        return Err("what was born between marks is known for the end only: leave out --at".into());
    }
    let generations = &profile.history.generations;
    let marks: Vec<&str> = generations.iter().filter_map(|generation| generation.mark.as_deref()).collect();
    // The generation that begins with a mark; that from before the first one is number 0.
    let place = |name: &str| match name {
        "start" => Ok(0),
        "end" => Ok(generations.len()),
        name => generations
            .iter()
            .position(|generation| generation.mark.as_deref() == Some(name))
            .ok_or_else(|| {
                if marks.is_empty() {
                    format!("the recording has no mark `{name}`, nor any other")
                } else {
                    format!(
                        "the recording has no mark `{name}`: choose from start, {}, end",
                        marks.join(", ")
                    )
                }
            }),
    };
    let (first, end) = (place(from)?, place(to)?);
    if generations.is_empty() {
        return Err("the recording has no marks: set some with `heapscope mark` while it is taken".into());
    }
    if first >= end {
        return Err(format!("`{from}` does not come before `{to}`"));
    }
    let (from, to) = (from.to_owned(), to.to_owned());
    show(&mut profile, |site| {
        let mut held = Held::NOTHING;
        for (_, part) in site.history.generations.iter().filter(|(at, _)| (first..end).contains(at)) {
            super::add(&mut held, *part);
        }
        held
    });
    profile.sites.retain(|site| site.totals.inuse_objects > 0);
    let sums = Sums::of(&profile.sites);
    // What was allocated is of the whole time, of these sites.
    profile.totals = sums.totals;
    profile.errors = profile.mode.sample_interval.and(sums.errors());
    profile.quality.warnings.push(format!(
        "Live means born between `{from}` and `{to}` and alive at the end, {} after the probes came; what was allocated is \
         of the whole time, of the sites shown.",
        span(profile.duration)
    ));
    Ok(profile)
}

/// Makes another number of blocks the one that the sites hold.
fn show(profile: &mut Profile, of_site: impl Fn(&SiteReport) -> Held) {
    let mut sums = Held::NOTHING;
    for site in &profile.sites {
        super::add(&mut sums, of_site(site));
    }
    let error =
        standard_error(profile.mode.sample_interval, profile.sites.iter().map(|site| (site, of_site(site))));
    let interval = profile.mode.sample_interval;
    for site in &mut profile.sites {
        let held = of_site(site);
        let error = variance(interval, site, held).standard_error();
        if let Some(errors) = &mut site.errors {
            (errors.inuse_space, errors.inuse_objects) = (error.space, error.objects);
        }
        (site.totals.inuse_space, site.totals.inuse_objects) = (held.space, held.objects);
    }
    (profile.totals.inuse_space, profile.totals.inuse_objects) = (sums.space, sums.objects);
    if let (Some(errors), Some(error)) = (&mut profile.errors, error) {
        (errors.inuse_space, errors.inuse_objects) = (error.space, error.objects);
    }
    sort(profile);
}
