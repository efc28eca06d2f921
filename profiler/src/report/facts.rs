//! What the table says of moments, marks and single sites, in words.

use profiler_common::records::Held;

use super::{
    history::{SiteHistory, SizeClass},
    profile::{At, Profile, SiteReport},
    units::{blocks, bytes, count, percent, plus_minus, span},
};
use crate::symbolize::label::clean;

/// Threads named for one site.
const THREADS: usize = 3;
/// Generations named for one site.
const GENERATIONS: usize = 4;

/// Lines about the profile's moments and generations; none for what did not happen.
pub(super) fn moments(profile: &Profile) -> Vec<String> {
    let history = &profile.history;
    let since = if profile.mode.command == "run" { "start" } else { "attach" };
    let held = |held: Held, error: Option<Held>| {
        let of_space = plus_minus(error.map(|error| error.space), bytes);
        let of_blocks = plus_minus(error.map(|error| error.objects), count);
        format!("{}{of_space} in {}{of_blocks}", bytes(held.space), blocks(held.objects))
    };
    let mut lines = Vec::new();
    if let Some(peak) = &history.peak {
        lines.push(format!("peak: {}, {} after the {since}", held(peak.held, peak.error), span(peak.after)));
    }
    if let Some(exit) = &history.exit {
        lines.push(format!(
            "exit: {} when the process called exit, {} after the {since}; {} after its exit handlers",
            held(exit.held, exit.error),
            span(exit.after),
            held(history.end, None)
        ));
    }
    if profile.mode.at != At::End {
        lines.push(format!("shown below: the {}", profile.mode.at.label()));
    }
    for generation in &history.generations {
        let (name, when) = match &generation.mark {
            None => ("before the first mark".to_owned(), String::new()),
            Some(mark) => {
                (format!("since mark `{}`", clean(mark)), format!(", set after {}", span(generation.after)))
            }
        };
        lines.push(format!("born {name}{when}: {} still live", held(generation.held, generation.error)));
    }
    lines
}

/// A line about the sizes, threads and generations of a site; `None` where there is nothing worth one.
pub(super) fn of_site(profile: &Profile, site: &SiteReport) -> Option<String> {
    let SiteHistory { sizes, threads, generations, temporary_objects, .. } = &site.history;
    let mut facts = Vec::new();
    let live = |class: &&SizeClass| class.inuse_objects > 0;
    if let (Some(first), Some(last)) = (sizes.iter().find(live), sizes.iter().rfind(live)) {
        facts.push(match last.largest {
            Some(largest) => format!("blocks of {} to {}", bytes(first.smallest), bytes(largest)),
            None => format!("blocks of {} and more", bytes(first.smallest)),
        });
    }
    if *temporary_objects > 0 {
        facts.push(format!("{} temporary", percent(*temporary_objects, site.totals.alloc_objects)));
    }
    if !threads.is_empty() {
        let named: Vec<_> = threads
            .iter()
            .take(THREADS)
            .map(|(name, held)| match threads.len() {
                1 => clean(name),
                _ => format!("{} {}", clean(name), bytes(held.space)),
            })
            .collect();
        let rest = threads.len().saturating_sub(THREADS);
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        facts.push(format!("by {}{rest}", named.join(", ")));
    }
    let mut born: Vec<_> = generations
        .iter()
        .rev()
        .take(GENERATIONS)
        .map(|(index, held)| {
            let mark =
                profile.history.generations.get(*index).and_then(|generation| generation.mark.as_deref());
            let when = mark.map_or_else(|| "before".to_owned(), |mark| format!("since {}", clean(mark)));
            format!("{when} {}", bytes(held.space))
        })
        .collect();
    born.reverse();
    if !born.is_empty() {
        facts.push(format!("born {}", born.join(", ")));
    }
    (!facts.is_empty()).then(|| facts.join("; "))
}
