//! From a profile's parts to messages.

use std::time::{Duration, UNIX_EPOCH};

use profiler_common::records::Held;

use super::{
    Counters, Resident, budget, memory,
    message::{self, Kind, Role},
    writer::Head,
};
use crate::{
    report::{
        history::{Generation, Moment, SizeClass},
        profile::{At, Mode, Profile, Quality, SiteReport, Totals},
    },
    symbolize::frame::{Frame, FrameKind, FrameRole},
};

/// Bytes of one text at most; no name that a person reads is as long.
const MAX_TEXT: usize = 1 << 16;
/// Bytes of all warnings at most.
const MAX_WARNINGS: usize = 1 << 19;

/// The text, without its end where it is far too long.
pub(super) fn text(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_TEXT)])
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn head(head: &Head) -> message::Head {
    let mode = &head.mode;
    message::Head {
        writer: format!("heapscope {}", env!("CARGO_PKG_VERSION")),
        pid: head.target.pid,
        command: text(&head.target.command),
        exe: text(&head.target.exe),
        started_ns: nanoseconds(head.started.duration_since(UNIX_EPOCH).unwrap_or_default()),
        sample_interval: mode.sample_interval,
        how: mode.command.clone(),
        probes: mode.probes.clone(),
        min_size: mode.min_size,
        max_size: mode.max_size,
        min_age_ns: mode.min_age.map(nanoseconds),
    }
}

pub(super) fn frame(frame: &Frame, module: Option<u32>) -> message::Frame {
    message::Frame {
        function: frame.function.as_deref().map(text),
        file: frame.file.as_deref().map(text),
        line: frame.line,
        module,
        address: frame.address,
        module_offset: frame.module_offset,
        kind: match frame.kind {
            FrameKind::Native => Kind::Native,
            FrameKind::Python => Kind::Python,
        }
        .into(),
        role: match frame.role {
            FrameRole::Program => Role::Program,
            FrameRole::Library => Role::Library,
            FrameRole::Runtime => Role::Runtime,
            FrameRole::Allocator => Role::Allocator,
            FrameRole::Jit => Role::Jit,
            FrameRole::Interpreter => Role::Interpreter,
            FrameRole::Remark => Role::Remark,
        }
        .into(),
        inlined: frame.inlined,
        guessed: frame.guessed,
    }
}

pub(super) fn resident(resident: &Resident) -> Option<message::Resident> {
    let Resident { rss, anon, file, shmem, swap, mapped } = *resident;
    (*resident != Resident::default()).then_some(message::Resident { rss, anon, file, shmem, swap, mapped })
}

pub(super) fn held(held: Held) -> message::Held {
    message::Held { space: held.space, objects: held.objects }
}

/// Nothing, where there is nothing: most sites hold nothing at most moments.
fn held_if_any(what: Held) -> Option<message::Held> {
    (what != Held::NOTHING).then(|| held(what))
}

pub(super) fn totals(totals: Totals) -> message::Totals {
    let Totals { inuse_space, inuse_objects, alloc_space, alloc_objects } = totals;
    message::Totals { inuse_space, inuse_objects, alloc_space, alloc_objects }
}

pub(super) fn quality(quality: &Quality, mode: &Mode) -> message::Quality {
    let mut room = MAX_WARNINGS;
    let mut warnings: Vec<String> = Vec::new();
    for warning in quality.warnings.iter().map(|warning| text(warning)) {
        let Some(left) = room.checked_sub(warning.len() + 8) else { break };
        room = left;
        warnings.push(warning);
    }
    let left_out = quality.warnings.len() - warnings.len();
    if left_out > 0 {
        warnings.push(format!("{left_out} more warnings were not kept in the recording."));
    }
    message::Quality {
        unmatched_frees: quality.unmatched_frees,
        failed_allocations: quality.failed_allocations,
        filtered_allocations: quality.filtered_allocations,
        other_callers: quality.other_callers,
        unsampled_allocations: quality.unsampled_allocations,
        lost: quality.lost.clone(),
        stacks_walked: quality.stacks_walked,
        truncated_stacks: quality.truncated_stacks,
        incomplete_stacks: quality.incomplete_stacks.clone(),
        guessed_frames: quality.guessed_frames,
        probe_hits: quality.probe_hits,
        overhead_percent: quality.overhead_percent,
        warnings,
        recorded: Some(budget::Recorded::of(mode)),
    }
}

fn parts(parts: &[(usize, Held)]) -> Vec<message::Part> {
    let part = |(number, held): &(usize, Held)| {
        let number = u32::try_from(*number).ok()?;
        Some(message::Part { number, space: held.space, objects: held.objects })
    };
    parts.iter().filter_map(part).collect()
}

/// A site's part of the account at the end. `over_time` is only for a recording without snapshots of its own.
pub(super) fn site(number: u32, site: &SiteReport, over_time: bool) -> message::SiteAccount {
    let history = &site.history;
    let size = |class: &SizeClass| {
        let SizeClass { smallest, largest, alloc_objects, inuse_objects } = *class;
        message::SizeClass { smallest, largest, alloc_objects, inuse_objects }
    };
    let thread = |(name, held): &(String, Held)| message::Thread {
        name: text(name),
        space: held.space,
        objects: held.objects,
    };
    let changes = if over_time { history.over_time.as_slice() } else { &[] };
    message::SiteAccount {
        site: number,
        totals: Some(totals(site.totals)),
        errors: site.errors.map(totals),
        oldest_ns: site.oldest.map(nanoseconds),
        peak: held_if_any(history.peak),
        exit: held_if_any(history.exit),
        temporary_objects: history.temporary_objects,
        sizes: history.sizes.iter().map(size).collect(),
        threads: history.threads.iter().map(thread).collect(),
        generations: parts(&history.generations),
        births: parts(&history.births),
        over_time: changes.iter().flat_map(|(snapshot, space)| [*snapshot as u64, *space]).collect(),
        kept: site.kept.as_ref().map(budget::Kept::of),
    }
}

fn moment(moment: &Moment) -> message::MomentHeld {
    message::MomentHeld {
        after_ns: nanoseconds(moment.after),
        held: Some(held(moment.held)),
        error: moment.error.map(held),
    }
}

pub(super) fn end(profile: &Profile) -> message::End {
    let history = &profile.history;
    let generation = |generation: &Generation| message::Generation {
        mark: generation.mark.as_deref().map(text),
        after_ns: nanoseconds(generation.after),
        held: Some(held(generation.held)),
        error: generation.error.map(held),
    };
    message::End {
        duration_ns: nanoseconds(profile.duration),
        totals: Some(totals(profile.totals)),
        errors: profile.errors.map(totals),
        peak: history.peak.as_ref().map(moment),
        exit: history.exit.as_ref().map(moment),
        end: Some(held(history.end)),
        generations: history.generations.iter().map(generation).collect(),
        mapped: profile.mapped.as_ref().map(memory::Mapped::of),
        sites: profile.sites.len() as u64,
        birth_span_ns: nanoseconds(history.birth_span),
        births: parts(&history.births),
        pools: profile.python.as_ref().map(memory::Pools::of),
        windowed: profile.windowed.as_ref().map(budget::Windowed::of),
        at: match profile.mode.at {
            At::End => message::At::End,
            At::Peak => message::At::Peak,
            At::Exit => message::At::Exit,
        }
        .into(),
    }
}

/// What all these sites hold together.
pub(super) fn sum<'a>(sites: impl Iterator<Item = &'a Counters>) -> Held {
    sites.fold(Held::NOTHING, |sum, site| Held {
        objects: sum.objects.saturating_add(site.inuse_objects),
        space: sum.space.saturating_add(site.inuse_space),
    })
}
