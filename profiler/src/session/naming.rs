//! From numbers to a profile: every site of the account gets its names.

use std::{sync::Arc, time::Duration};

use profiler_common::records::{OVERFLOW_SITE, walk_end};

use super::{
    observation::{FRAME_LIMIT, Observation},
    options::CommonOptions,
    quality::quality,
};
use crate::{
    ledger::{Account, SiteAccount},
    report::profile::{Mode, Profile, SiteReport, TargetInfo, Totals},
    symbolize::{
        frame::{Frame, FrameKind, FrameRole},
        perf_map::PerfMap,
        symbolizer::{SymbolizeOptions, Symbolizer},
    },
};

/// Names what was observed.
#[derive(Debug)]
pub(super) struct Namer {
    symbolizer: Symbolizer,
    command: &'static str,
}

impl Namer {
    /// A namer for a target; `command` is what the user typed: `attach` or `run`.
    pub(super) fn new(options: &CommonOptions, command: &'static str) -> Self {
        let mut symbolize = SymbolizeOptions { demangle: options.demangle, ..SymbolizeOptions::default() };
        // The user's own folders first.
        symbolize.debug_dirs.splice(0..0, options.debug_dirs.iter().cloned());
        Self { symbolizer: Symbolizer::new(symbolize), command }
    }

    /// Reads what only a living target can tell: the names of generated code.
    pub(super) fn ask_living(&mut self, observation: &mut Observation) {
        self.symbolizer.set_program(&observation.process.exe);
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
        let now = monotonic_nanoseconds();
        let account = observation.account(now, options.min_age)?;
        let counters = observation.counters()?;
        let named = account
            .sites
            .iter()
            .enumerate()
            .map(|(rank, (site, sums))| self.site(observation, *site, sums, now, rank < sites))
            .collect();
        let process = &observation.process;
        let mut quality = quality(&counters, &account);
        quality.overhead_percent = observation.overhead_percent();
        quality.warnings = warnings(observation, &account, &counters);
        Ok(Profile {
            target: TargetInfo {
                pid: process.pid,
                command: process.command.clone(),
                exe: process.exe.display().to_string(),
            },
            started: observation.started,
            duration: observation.duration(),
            mode: Mode {
                sampling: "exact".into(),
                command: self.command.into(),
                probes: observation.method().label().into(),
                min_size: options.min_size,
                max_size: options.max_size,
                min_age: options.min_age,
            },
            totals: totals(&account.totals),
            quality,
            sites: named,
        })
    }

    fn site(
        &mut self,
        observation: &Observation,
        site: u64,
        sums: &SiteAccount,
        now: u64,
        with_stack: bool,
    ) -> SiteReport {
        let mut stack = Vec::new();
        let mut allocator = String::new();
        if !with_stack {
            // Nobody will look at it.
        } else if let Some(known) = observation.stacks.get(&site) {
            allocator = observation.allocators.get(usize::from(known.allocator)).cloned().unwrap_or_default();
            for location in known.frames.iter().filter_map(|index| observation.code.location(*index)) {
                stack.extend(self.symbolizer.frames(location));
            }
            stack.extend(end_remark(known.end).map(|text| remark(&text)));
        } else {
            stack.push(remark(if site == OVERFLOW_SITE {
                "[stack not taken: no room for another site]"
            } else {
                "[stack lost on its way out of the kernel]"
            }));
        }
        SiteReport {
            totals: totals(sums),
            oldest: sums.oldest_born.map(|born| Duration::from_nanos(now.saturating_sub(born))),
            allocator,
            stack,
        }
    }
}

fn totals(sums: &SiteAccount) -> Totals {
    Totals {
        inuse_space: sums.inuse_space,
        inuse_objects: sums.inuse_objects,
        alloc_space: sums.alloc_space,
        alloc_objects: sums.alloc_objects,
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
        walk_end::UNREADABLE => "[stack incomplete: stack memory not readable]".into(),
        _ => "[stack incomplete: the frames do not ascend]".into(),
    })
}

fn remark(text: &str) -> Arc<Frame> {
    Arc::new(Frame {
        function: Some(text.to_owned()),
        file: None,
        line: None,
        module: None,
        address: 0,
        module_offset: None,
        kind: FrameKind::Native,
        inlined: false,
        guessed: false,
        role: FrameRole::Remark,
    })
}

/// Everything that the reader must know before trusting a number.
fn warnings(observation: &Observation, account: &Account, counters: &crate::probe::Counters) -> Vec<String> {
    use profiler_common::counters::Counter;
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
    if account.discrepancy > 0 {
        warnings.push(format!(
            "The live blocks and the sites' counters differ by {}: the account was read while it changed.",
            crate::report::units::blocks(account.discrepancy)
        ));
    }
    warnings
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock that the probes stamp blocks with.
pub(super) fn monotonic_nanoseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
