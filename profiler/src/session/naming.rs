//! From numbers to a profile: every site of the account gets its names.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use profiler_common::{
    counters::Counter,
    records::{OVERFLOW_SITE, walk_end},
};

use super::{
    details::Details,
    mapped::{self, Mapped},
    observation::{FRAME_LIMIT, Observation},
    only_caller::Callers,
    options::CommonOptions,
    quality::quality,
};
use crate::{
    ledger::Account,
    probe::{AttachMethod, Counters},
    report::budget::Windowed,
    report::mapped::MappedMemory,
    report::profile::{At, Mode, Profile, Quality, SiteReport, TargetInfo},
    symbolize::{
        frame::Frame,
        perf_map::PerfMap,
        symbolizer::{SymbolizeOptions, Symbolizer},
    },
    sys::clock::monotonic_nanoseconds,
};

/// The account at one moment, before its stacks are named.
#[derive(Debug)]
pub(super) struct Taken {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    now: u64,
    /// The sites with the most live bytes first.
    account: Account,
    details: Details,
    counters: Counters,
    /// Windows, if there were some.
    windowed: Option<Windowed>,
}

impl Taken {
    /// Reads the account.
    pub(super) fn of(observation: &Observation, options: &CommonOptions) -> anyhow::Result<Self> {
        let now = monotonic_nanoseconds();
        let mut account = observation.account(now, options.min_age)?;
        let details = Details::read(observation, &account, options.at)?;
        let counters = observation.counters()?;
        let windowed = observation.windowed(&account, counters.get(Counter::GoneBetweenWindows));
        account.sort_by_space(|sums| match windowed {
            Some(_) => observation.governor.windowed.kept_of(sums).space,
            None => details.totals(sums).inuse_space,
        });
        Ok(Self { now, account, details, counters, windowed })
    }

    /// Sites that have allocated.
    pub(super) fn sites(&self) -> usize {
        self.account.sites.len()
    }
}

/// Names what was observed.
#[derive(Debug)]
pub(super) struct Namer {
    symbolizer: Symbolizer,
    command: &'static str,
    /// Sites whose Python frames do not match the native ones, in the profile that is being made.
    unmatched: u64,
    /// The keys of the sites of the last profile, in its order.
    keys: Vec<u64>,
}

impl Namer {
    /// A namer for a target; `command` is what the user typed: `attach` or `run`.
    pub(super) fn new(options: &CommonOptions, command: &'static str) -> Self {
        let symbolize = SymbolizeOptions {
            demangle: options.demangle,
            debug_dirs: options.debug_dirs.clone(),
            ..SymbolizeOptions::default()
        };
        Self { symbolizer: Symbolizer::new(symbolize), command, unmatched: 0, keys: Vec::new() }
    }

    /// Opens the target's file system, where its debug files may be; they are read when it has long ended.
    pub(super) fn watch(&mut self, observation: &mut Observation) {
        self.symbolizer.set_program(&observation.process.exe);
        if let Err(error) = self.symbolizer.set_target_root(observation.process.pid)
            && observation.process.is_alive()
        {
            observation.warnings.push(format!(
                "The root of the process could not be opened ({error}): debug files that only it can see are not used."
            ));
        }
    }

    /// Reads what only a living target can tell: the names of generated code.
    pub(super) fn ask_living(&mut self, observation: &mut Observation) {
        self.symbolizer.set_program(&observation.process.exe);
        observation.note_memory();
        observation.look_at_pages();
        observation.read_pools();
        match PerfMap::of_process(observation.process.pid) {
            Ok(Some(map)) => self.symbolizer.set_perf_map(map),
            Ok(None) => {}
            Err(error) if observation.process.is_alive() => {
                observation.warnings.push(format!("The names of generated code could not be read: {error}."));
            }
            Err(_) => {}
        }
    }

    /// The profile of what was observed so far. Only the first `sites` sites, those with the most live bytes, have their
    /// stacks.
    pub(super) fn profile(
        &mut self,
        observation: &Observation,
        options: &CommonOptions,
        sites: usize,
    ) -> anyhow::Result<Profile> {
        let taken = Taken::of(observation, options)?;
        Ok(self.name(observation, options, &taken, sites))
    }

    /// The profile of what was taken from an observation. Only the first `sites` sites have their stacks.
    pub(super) fn name(
        &mut self,
        observation: &Observation,
        options: &CommonOptions,
        taken: &Taken,
        sites: usize,
    ) -> Profile {
        let Taken { now, account, details, counters, windowed } = taken;
        let now = *now;
        self.unmatched = 0;
        let shown = account.sites.iter().take(sites).filter_map(|(site, _)| observation.stacks.get(site));
        let mapped = observation.mapped.as_ref().map(Mapped::told);
        let mapped_sites = mapped.iter().flat_map(|told| told.sites.iter().take(sites));
        let shown = shown.chain(mapped_sites.filter_map(|(site, _)| observation.stacks.get(site)));
        let pools = observation.pools_told();
        let pool_sites = pools.iter().flat_map(|told| told.keys(sites));
        let shown = shown.chain(pool_sites.filter_map(|site| observation.stacks.get(site)));
        let growth = observation.growth.as_ref().and_then(|growth| growth.told(&observation.probe).ok());
        let growth_sites = growth.iter().flat_map(|told| told.keys(sites));
        let shown = shown.chain(growth_sites.filter_map(|site| observation.stacks.get(&site)));
        let indices: BTreeSet<_> = shown.flat_map(|known| known.frames.iter().copied()).collect();
        self.symbolizer.prepare(indices.into_iter().filter_map(|index| observation.code.location(index)));
        self.keys = account.sites.iter().map(|(site, _)| *site).collect();
        let named = account
            .sites
            .iter()
            .enumerate()
            .map(|(rank, (site, sums))| {
                let (allocator, stack) =
                    if rank < sites { self.stack(observation, *site) } else { (String::new(), Vec::new()) };
                SiteReport {
                    totals: details.totals(sums),
                    errors: details.errors(sums),
                    oldest: sums.oldest_born.map(|born| Duration::from_nanos(now.saturating_sub(born))),
                    allocator,
                    stack,
                    history: details.site(observation, *site, sums),
                    kept: windowed
                        .as_ref()
                        .map(|_| observation.governor.windowed.kept(sums, observation.duration())),
                }
            })
            .collect();
        let inside = mapped.as_ref().map_or(0, |told| {
            let ends = |site: &u64| observation.stacks.get(site).map(|stack| stack.end);
            told.calls_of(|site| ends(site) == Some(mapped::INSIDE_AN_ALLOCATOR))
        });
        let mapped = mapped.map(|told| MappedMemory {
            calls_inside_allocator: inside,
            ..told.report(sites, now, |site| self.stack(observation, site).1)
        });
        let python = pools.map(|told| told.report(sites, now, |site| self.stack(observation, site).1));
        let growth = observation.growth.as_ref().zip(growth).map(|(growth, told)| {
            growth.report(told, counters, sites, |site| self.stack(observation, site).1)
        });
        let mut quality = self.quality(observation, account, counters);
        let began = observation.governor.report(None).windows_began().unwrap_or_default();
        let of_windows =
            windowed.iter().flat_map(|windowed| windowed.warnings(observation.duration(), began));
        quality.warnings.splice(0..0, of_windows);
        quality.warnings.extend(details.warning());
        if let Some(mapped) = &observation.mapped {
            mapped.tell_quality(counters, inside, &mut quality);
        }
        if let Some(growth) = &observation.growth {
            growth.tell_quality(counters, &mut quality);
        }
        if let Some(pools) = &observation.pools {
            pools.tell_quality(counters, &mut quality);
        }
        Profile {
            target: Self::target(observation),
            started: observation.started,
            duration: observation.duration(),
            mode: self.mode(observation, options),
            totals: details.totals(&account.totals),
            errors: details.errors_of_all(account),
            quality,
            history: details.history(observation, account),
            sites: named,
            windowed: windowed.clone(),
            code: observation.code.mapped_files(),
            mapped,
            python,
            growth,
        }
    }

    /// Whose memory it is.
    pub(super) fn target(observation: &Observation) -> TargetInfo {
        let process = &observation.process;
        TargetInfo {
            pid: process.pid,
            command: process.command.clone(),
            exe: process.exe.display().to_string(),
        }
    }

    /// How it is observed.
    pub(super) fn mode(&self, observation: &Observation, options: &CommonOptions) -> Mode {
        Mode {
            at: if observation.governor.had_windows() { At::End } else { options.at },
            sample_interval: Some(observation.governor.largest_interval()).filter(|interval| *interval > 0),
            budget: observation.budget_report(),
            command: self.command.into(),
            probes: observation.method().label().into(),
            min_size: options.min_size,
            max_size: options.max_size,
            min_age: options.min_age,
            only_caller: observation.callers.as_ref().map(Callers::report),
        }
    }

    /// The keys of the last profile's sites, in its order.
    pub(super) fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// How far the numbers and names so far can be trusted.
    pub(super) fn quality(
        &self,
        observation: &Observation,
        account: &Account,
        counters: &Counters,
    ) -> Quality {
        let mut quality = quality(counters, account);
        quality.overhead_percent = observation.overhead_percent();
        quality.warnings = warnings(observation, account, counters);
        quality.warnings.extend(observation.python.warnings(counters, self.unmatched));
        quality.warnings.extend(self.symbolizer.losses().map(|(path, reason)| format!("{path}: {reason}.")));
        quality
    }

    /// Names these sites alone: the allocator and the stack of each.
    pub(super) fn name_sites(
        &mut self,
        observation: &Observation,
        sites: &[u64],
    ) -> Vec<(String, Vec<Arc<Frame>>)> {
        let known = sites.iter().filter_map(|site| observation.stacks.get(site));
        let indices: BTreeSet<_> = known.flat_map(|known| known.frames.iter().copied()).collect();
        self.symbolizer.prepare(indices.into_iter().filter_map(|index| observation.code.location(index)));
        sites.iter().map(|site| self.stack(observation, *site)).collect()
    }

    /// The allocator of a site, and its stack.
    fn stack(&mut self, observation: &Observation, site: u64) -> (String, Vec<Arc<Frame>>) {
        let Some(known) = observation.stacks.get(&site) else {
            let text = if site == OVERFLOW_SITE {
                "[stack not taken: no room for another site]"
            } else {
                "[stack lost on its way out of the kernel]"
            };
            return (String::new(), vec![remark(text)]);
        };
        let allocator = observation.allocators.get(usize::from(known.allocator)).cloned().unwrap_or_default();
        let locations = known.frames.iter().filter_map(|index| observation.code.location(*index));
        let native = locations.map(|location| (location, self.symbolizer.frames(location)));
        let merged = observation.python.merge(native, &known.python);
        // Before the interpreter was found, or initialised, there are none.
        let is_whole = known.end == walk_end::COMPLETE && known.python_is_whole && !known.python.is_empty();
        self.unmatched += u64::from(is_whole && !merged.matches);
        let mut stack = merged.stack;
        stack.extend(end_remark(known.end).map(|text| remark(&text)));
        (allocator, stack)
    }
}

/// What stands at the root of a stack that is not whole.
fn end_remark(end: u8) -> Option<String> {
    Some(match end {
        walk_end::COMPLETE => return None,
        walk_end::TRUNCATED => format!("[stack cut at {FRAME_LIMIT} frames]"),
        walk_end::NO_MAPPING => "[stack incomplete: address outside every known mapping]".into(),
        walk_end::NO_TABLE => "[stack incomplete: no unwind information]".into(),
        walk_end::UNSUPPORTED => "[stack incomplete: unsupported unwind rule]".into(),
        mapped::INSIDE_AN_ALLOCATOR => "[inside a call of the allocator, whose caller is not seen]".into(),
        walk_end::UNREADABLE => "[stack incomplete: stack memory not readable]".into(),
        _ => "[stack incomplete: the frames do not ascend]".into(),
    })
}

fn remark(text: &str) -> Arc<Frame> {
    Arc::new(Frame::remark(text))
}

/// The kernel decides by the memory of the main thread (`uprobe_multi_link_filter`, `__uprobe_perf_filter`) in which
/// processes a probe is placed, whenever it places one or takes one out, by perf at every hit.
fn without_main_thread(method: AttachMethod) -> String {
    let when = match method {
        AttachMethod::Perf => "at the next call",
        AttachMethod::Session | AttachMethod::Multi => {
            "as soon as any tracer of the same functions, in whatever process, ends its own"
        }
    };
    format!(
        "The process's main thread has ended before the others. Without it the kernel takes our probes out {when}, and \
         places none in libraries that come later: the numbers may be too low."
    )
}

/// Everything that the reader must know before trusting a number.
fn warnings(observation: &Observation, account: &Account, counters: &Counters) -> Vec<String> {
    let mut warnings = observation.warnings.clone();
    warnings.extend(observation.lookout.warning());
    if counters.get(Counter::ProbeHits) == 0 && !observation.allocators.is_empty() {
        warnings.push(format!(
            "No call of {} was seen in {:.1} s: the process was idle, or it allocates in another way (its own pools, \
             mmap, a language's own heap).",
            observation.allocators.join(" or "),
            observation.duration().as_secs_f64()
        ));
    }
    if observation.left_out > 0 {
        warnings.push(format!(
            "The process has {} executable mappings more than can be unwound: stacks end there.",
            observation.left_out
        ));
    }
    if observation.process.main_thread_has_left() {
        warnings.push(without_main_thread(observation.method()));
    }
    if observation.outdated > 0 {
        warnings.push(format!(
            "{} stacks were cut where code was mapped in the place of other code, and a call came through it before we \
             had looked.",
            observation.outdated
        ));
    }
    for (path, reason) in observation.code.skipped() {
        warnings.push(format!("{path}: {}.", reason.trim_end_matches('.')));
    }
    if observation.history.timeline.dropped() > 0 {
        warnings.push(format!(
            "{} changes of sites over time were not kept: there was no room for them.",
            observation.history.timeline.dropped()
        ));
    }
    if account.discrepancy > 0 {
        warnings.push(format!(
            "The live blocks and the sites' counters differ by {}: the account was read while it changed.",
            crate::report::units::blocks(account.discrepancy)
        ));
    }
    warnings
}
