//! The sites in groups: by function, module, thread, size, line, file, traceback.

use std::{collections::HashMap, hash::Hash};

use super::{
    Sums,
    place::{self, Line},
};
use crate::{
    report::profile::{Profile, Totals},
    symbolize::{fold::fold, label::clean},
};

/// What the sites of a group have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// Their stack: no groups at all.
    Site,
    /// The function that asked for the memory.
    Function,
    /// The line that did.
    Line,
    /// The file of that line.
    File,
    /// The lines of the whole stack.
    Traceback,
    /// The mapped file of that function.
    Module,
    /// The thread that allocated what lives.
    Thread,
    /// The size class of blocks.
    Size,
    /// The type of the blocks, which nobody knows.
    Type,
}

/// A group of sites.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they have in common.
    pub name: String,
    /// What they asked for themselves.
    pub own: Sums,
    /// That, and what was asked for further down their stacks, each site counted once.
    pub with_callees: Sums,
}

/// Groups by the names that `names` gives the frames of a stack, leaf first, the first one's being the site's own; most
/// live bytes first, then by name.
fn by_frames(profile: &Profile, names: impl Fn(&crate::symbolize::frame::Frame) -> String) -> Vec<Group> {
    let mut groups: HashMap<String, (Sums, Sums)> = HashMap::new();
    for site in &profile.sites {
        let mut seen: Vec<String> = fold(&site.stack, false).iter().map(|frame| names(frame)).collect();
        if seen.is_empty() {
            seen.push("[no stack]".into());
        }
        if let Some(own) = seen.first() {
            let (own, _) = groups.entry(own.clone()).or_default();
            own.add(&site.totals, site.errors.as_ref());
        }
        seen.sort_unstable();
        seen.dedup();
        for name in seen {
            let (_, with_callees) = groups.entry(name).or_default();
            with_callees.add(&site.totals, site.errors.as_ref());
        }
    }
    let mut groups: Vec<Group> =
        groups.into_iter().map(|(name, (own, with_callees))| Group { name, own, with_callees }).collect();
    let order = |group: &Group| {
        let Totals { inuse_space, alloc_space, .. } = group.own.totals;
        (inuse_space, group.with_callees.totals.inuse_space, alloc_space)
    };
    groups.sort_by(|a, b| order(b).cmp(&order(a)).then_with(|| a.name.cmp(&b.name)));
    groups
}

/// By function.
#[must_use]
pub fn functions(profile: &Profile) -> Vec<Group> {
    by_frames(profile, place::function_of)
}

/// By mapped file.
#[must_use]
pub fn modules(profile: &Profile) -> Vec<Group> {
    by_frames(profile, place::module_of)
}

/// Live blocks by the name of the thread that allocated them: name, bytes, blocks; most bytes first.
#[must_use]
pub fn threads(profile: &Profile) -> Vec<(String, u64, u64)> {
    let mut threads: HashMap<&str, (u64, u64)> = HashMap::new();
    for (name, held) in profile.sites.iter().flat_map(|site| &site.history.threads) {
        let sum = threads.entry(name).or_default();
        *sum = (sum.0.saturating_add(held.space), sum.1.saturating_add(held.objects));
    }
    let mut threads: Vec<_> =
        threads.into_iter().map(|(name, (space, objects))| (clean(name), space, objects)).collect();
    threads.sort_by(|a, b| (b.1, b.2, &a.0).cmp(&(a.1, a.2, &b.0)));
    threads
}

/// Blocks by size class: smallest and largest size, live blocks, allocated blocks; ascending.
#[must_use]
pub fn sizes(profile: &Profile) -> Vec<(u64, Option<u64>, u64, u64)> {
    let mut sizes: Vec<(u64, Option<u64>, u64, u64)> = Vec::new();
    for class in profile.sites.iter().flat_map(|site| &site.history.sizes) {
        match sizes.iter_mut().find(|(smallest, ..)| *smallest == class.smallest) {
            Some((_, _, inuse, allocated)) => {
                *inuse = inuse.saturating_add(class.inuse_objects);
                *allocated = allocated.saturating_add(class.alloc_objects);
            }
            None => sizes.push((class.smallest, class.largest, class.inuse_objects, class.alloc_objects)),
        }
    }
    sizes.sort_unstable();
    sizes
}

/// Sums by a key of the site's stack, in no order.
fn keyed<K: Hash + Eq>(
    profile: &Profile,
    key: impl Fn(&crate::report::profile::SiteReport) -> K,
) -> HashMap<K, Sums> {
    let mut sums: HashMap<K, Sums> = HashMap::new();
    for site in &profile.sites {
        sums.entry(key(site)).or_default().add(&site.totals, site.errors.as_ref());
    }
    sums
}

/// By the lines that tracemalloc's key type of that name has, the oldest call first; those by function and by site have
/// names in the place of lines. `None` for what has no lines.
#[must_use]
pub fn lines(profile: &Profile, by: By) -> Option<HashMap<Vec<Line>, Sums>> {
    let named = |name: String| Line { name, number: None };
    let function = |frame: &crate::symbolize::frame::Frame| named(place::function_of(frame));
    Some(keyed(profile, |site| match by {
        By::File => vec![place::line(&site.stack).whole_file()],
        By::Traceback => place::traceback(&site.stack),
        By::Function => {
            let folded = fold(&site.stack, false);
            vec![folded.first().map_or_else(|| named("[no stack]".into()), |frame| function(frame))]
        }
        By::Site => fold(&site.stack, false).iter().rev().map(|frame| function(frame)).collect(),
        _ => vec![place::line(&site.stack)],
    }))
    .filter(|_| !matches!(by, By::Module | By::Thread | By::Size | By::Type))
}
