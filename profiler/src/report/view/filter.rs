//! A part of the sites: those that a pattern finds, those that are large enough. What is left out is said.

use profiler_common::records::Held;
use regex::Regex;

use super::{Sums, add, place, standard_error};
use crate::{
    report::{
        history::{SiteHistory, SizeClass},
        metric::Metric,
        profile::{Profile, SiteReport},
        units::{blocks, bytes, count, counted},
    },
    symbolize::{frame::Frame, label},
};

/// Which sites are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those with such a frame.
    pub focus: Option<Regex>,
    /// None with such a frame.
    pub ignore: Option<Regex>,
    /// Only those whose line is in a file that one of these finds; all where there is none.
    pub include: Vec<Glob>,
    /// None whose line is in a file that one of these finds.
    pub exclude: Vec<Glob>,
}

/// A pattern of file names in the form of Python's `fnmatch`: `*` is any text, `/` too, `?` any character, `[…]` one of
/// these.
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    regex: Regex,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence.
    pub fn new(text: &str) -> Result<Self, String> {
        let mut regex = String::from("(?s)^");
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '*' => regex.push_str(".*"),
                '?' => regex.push('.'),
                // As in Python, a bracket that comes first is one of the characters.
                '[' => match rest
                    .char_indices()
                    .skip(1)
                    .find(|(at, c)| *c == ']' && !(*at == 1 && rest.starts_with('!')))
                {
                    Some((end, _)) => {
                        let (negated, set) = match rest[..end].strip_prefix('!') {
                            Some(set) => ("^", set),
                            None => ("", &rest[..end]),
                        };
                        let set = set.replace('\\', r"\\").replace('[', r"\[").replace('^', r"\^");
                        let set = set.replace("&&", r"&\&").replace("~~", r"~\~").replace("--", r"-\-");
                        regex.push_str(&format!("[{negated}{}]", set.replace(']', r"\]")));
                        rest = &rest[end + 1..];
                    }
                    None => regex.push_str(r"\["),
                },
                c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        regex.push('$');
        let regex =
            Regex::new(&regex).map_err(|error| format!("`{text}` is no pattern of file names: {error}"))?;
        // tracemalloc takes a compiled file for its source.
        let text = text.strip_suffix(".pyc").map_or_else(|| text.to_owned(), |stem| format!("{stem}.py"));
        Ok(Self { text, regex })
    }

    /// Whether it finds this file.
    #[must_use]
    pub fn finds(&self, file: &str) -> bool {
        self.regex.is_match(file)
    }
}

impl Filter {
    /// Whether it lets everything through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.focus.is_none() && self.ignore.is_none() && self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether a site is wanted.
    #[must_use]
    pub fn wants(&self, site: &SiteReport) -> bool {
        let has = |regex: &Regex| site.stack.iter().any(|frame| finds(regex, frame));
        if self.focus.as_ref().is_some_and(|focus| !has(focus)) || self.ignore.as_ref().is_some_and(has) {
            return false;
        }
        if self.include.is_empty() && self.exclude.is_empty() {
            return true;
        }
        let file = place::line(&site.stack).name;
        let found = |globs: &[Glob]| globs.iter().any(|glob| glob.finds(&file));
        (self.include.is_empty() || found(&self.include)) && !found(&self.exclude)
    }

    fn words(&self) -> String {
        let regex = |flag: &str, regex: &Option<Regex>| regex.as_ref().map(|regex| format!("{flag} {regex}"));
        let globs = |flag: &'static str, globs: &[Glob]| {
            globs.iter().map(|glob| format!("{flag} {}", glob.text)).collect::<Vec<_>>()
        };
        let words = regex("--focus", &self.focus).into_iter().chain(regex("--ignore", &self.ignore));
        let words = words.chain(globs("--include", &self.include)).chain(globs("--exclude", &self.exclude));
        words.collect::<Vec<_>>().join(" ")
    }

    /// The profile of the sites that are wanted.
    #[must_use]
    pub fn apply(&self, mut profile: Profile) -> Profile {
        if self.is_open() {
            return profile;
        }
        let (all, before) = (profile.sites.len(), profile.totals);
        profile.sites.retain(|site| self.wants(site));
        let sums = Sums::of(&profile.sites);
        profile.totals = sums.totals;
        profile.errors = profile.errors.and(sums.errors());
        sum_history(&mut profile);
        profile.quality.warnings.push(format!(
            "A part is shown ({}): {} of {}, {} of {} live in {} of {}. Resident memory, losses and the live bytes over time \
             are those of the whole process.",
            self.words(),
            count(profile.sites.len() as u64),
            counted(all as u64, "site", "sites"),
            bytes(profile.totals.inuse_space),
            bytes(before.inuse_space),
            count(profile.totals.inuse_objects),
            blocks(before.inuse_objects)
        ));
        profile
    }
}

/// Whether a frame's function, file or module is found.
fn finds(regex: &Regex, frame: &Frame) -> bool {
    let texts = [frame.function.as_deref(), frame.file.as_deref(), frame.module.as_deref()];
    texts.into_iter().flatten().any(|text| regex.is_match(text))
        || frame.function.is_none() && regex.is_match(&label::name(frame))
}

/// Makes the sums of the history those of the sites that are left.
fn sum_history(profile: &mut Profile) {
    let interval = profile.mode.sample_interval;
    let sites = &profile.sites;
    let sum_of = |of: &dyn Fn(&SiteReport) -> Held| {
        let mut sum = Held::NOTHING;
        sites.iter().for_each(|site| add(&mut sum, of(site)));
        (sum, standard_error(interval, sites.iter().map(|site| (site, of(site)))))
    };
    if let Some(peak) = &mut profile.history.peak {
        (peak.held, peak.error) = sum_of(&|site| site.history.peak);
    }
    if let Some(exit) = &mut profile.history.exit {
        (exit.held, exit.error) = sum_of(&|site| site.history.exit);
    }
    for (number, generation) in profile.history.generations.iter_mut().enumerate() {
        let of_site = |site: &SiteReport| {
            let own = site.history.generations.iter().find(|(at, _)| *at == number);
            own.map_or(Held::NOTHING, |(_, held)| *held)
        };
        (generation.held, generation.error) = sum_of(&of_site);
    }
    let mut births = Vec::new();
    sites.iter().for_each(|site| add_parts(&mut births, &site.history.births));
    births.sort_by_key(|(span, _)| *span);
    profile.history.births = births;
    if profile.mode.at == crate::report::profile::At::End {
        profile.history.end =
            Held { objects: profile.totals.inuse_objects, space: profile.totals.inuse_space };
    }
}

/// Puts the sites with less than a share of the whole together into one, so that all sums stay what they are.
#[must_use]
pub fn join_small(mut profile: Profile, metric: Metric, percent: f64) -> Profile {
    let whole = metric.sum(&profile);
    let least = percent / 100.0 * whole as f64;
    let (large, small): (Vec<_>, Vec<_>) =
        std::mem::take(&mut profile.sites).into_iter().partition(|site| metric.of(site) as f64 >= least);
    profile.sites = large;
    if small.len() > 1 {
        profile.sites.push(joined(&small, percent));
    } else {
        profile.sites.extend(small);
    }
    profile
}

fn joined(sites: &[SiteReport], percent: f64) -> SiteReport {
    let sums = Sums::of(sites);
    let mut history = SiteHistory::default();
    for site in sites {
        let part = &site.history;
        add(&mut history.peak, part.peak);
        add(&mut history.exit, part.exit);
        history.temporary_objects = history.temporary_objects.saturating_add(part.temporary_objects);
        part.sizes.iter().for_each(|size| add_size(&mut history.sizes, size));
        add_parts(&mut history.threads, &part.threads);
        add_parts(&mut history.generations, &part.generations);
        add_parts(&mut history.births, &part.births);
    }
    history.sizes.sort_by_key(|size| size.smallest);
    history.threads.sort_by(|(a_name, a), (b_name, b)| (b.space, a_name).cmp(&(a.space, b_name)));
    history.generations.sort_by_key(|(number, _)| *number);
    history.births.sort_by_key(|(span, _)| *span);
    history.over_time = over_time(sites);
    let remark = format!("[{} of less than {percent}% each]", counted(sites.len() as u64, "site", "sites"));
    SiteReport {
        totals: sums.totals,
        errors: sums.errors(),
        oldest: sites.iter().filter_map(|site| site.oldest).max(),
        allocator: String::new(),
        stack: vec![std::sync::Arc::new(Frame::remark(&remark))],
        history,
    }
}

fn add_size(sizes: &mut Vec<SizeClass>, more: &SizeClass) {
    match sizes.iter_mut().find(|size| size.smallest == more.smallest) {
        Some(size) => {
            size.alloc_objects = size.alloc_objects.saturating_add(more.alloc_objects);
            size.inuse_objects = size.inuse_objects.saturating_add(more.inuse_objects);
        }
        None => sizes.push(*more),
    }
}

fn add_parts<K: Clone + PartialEq>(parts: &mut Vec<(K, Held)>, more: &[(K, Held)]) {
    for (key, held) in more {
        match parts.iter_mut().find(|(known, _)| known == key) {
            Some((_, sum)) => add(sum, *held),
            None => parts.push((key.clone(), *held)),
        }
    }
}

/// Live bytes of all these sites over time.
fn over_time(sites: &[SiteReport]) -> Vec<(usize, u64)> {
    let mut steps: Vec<(usize, u64, u64)> = Vec::new();
    for site in sites {
        let mut before = 0;
        for (at, space) in &site.history.over_time {
            steps.push((*at, before, *space));
            before = *space;
        }
    }
    steps.sort_unstable_by_key(|(at, ..)| *at);
    let mut sum = 0_u64;
    let mut told: Vec<(usize, u64)> = Vec::new();
    for (at, before, after) in steps {
        sum = sum.saturating_add(after).saturating_sub(before);
        match told.last_mut() {
            Some((last, space)) if *last == at => *space = sum,
            _ => told.push((at, sum)),
        }
    }
    told
}
