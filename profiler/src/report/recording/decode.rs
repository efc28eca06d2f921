//! From messages to a profile's parts.

use std::time::Duration;

use profiler_common::records::Held;

use super::{
    Resident,
    message::{self, Kind, Role},
};
use crate::{
    report::{
        history::{Generation, Moment, SizeClass},
        profile::{At, Mode, Quality, Totals},
    },
    symbolize::frame::{Frame, FrameKind, FrameRole},
};

pub(super) fn mode(head: &message::Head, recorded: Option<&message::Recorded>, at: At) -> Mode {
    let interval = recorded.map_or(head.sample_interval, |recorded| recorded.sample_interval);
    Mode {
        at,
        sample_interval: interval.filter(|interval| *interval > 0),
        budget: recorded.map(message::Recorded::decode).unwrap_or_default(),
        command: head.how.clone(),
        probes: head.probes.clone(),
        min_size: head.min_size,
        max_size: head.max_size,
        min_age: head.min_age_ns.map(Duration::from_nanos),
        only_caller: recorded.and_then(message::Recorded::only_caller),
    }
}

pub(super) fn frame(frame: message::Frame, module: Option<String>) -> Frame {
    let kind = match frame.kind() {
        Kind::Native => FrameKind::Native,
        Kind::Python => FrameKind::Python,
    };
    let role = match frame.role() {
        Role::Program => FrameRole::Program,
        Role::Library => FrameRole::Library,
        Role::Runtime => FrameRole::Runtime,
        Role::Allocator => FrameRole::Allocator,
        Role::Jit => FrameRole::Jit,
        Role::Interpreter => FrameRole::Interpreter,
        Role::Remark => FrameRole::Remark,
    };
    Frame {
        function: frame.function,
        file: frame.file,
        line: frame.line,
        module,
        address: frame.address,
        module_offset: frame.module_offset,
        kind,
        inlined: frame.inlined,
        guessed: frame.guessed,
        role,
    }
}

pub(super) fn resident(resident: Option<message::Resident>) -> Resident {
    let message::Resident { rss, anon, file, shmem, swap, mapped } = resident.unwrap_or_default();
    Resident { rss, anon, file, shmem, swap, mapped }
}

pub(super) fn held(held: Option<message::Held>) -> Held {
    held.map_or(Held::NOTHING, |message::Held { space, objects }| Held { objects, space })
}

pub(super) fn totals(totals: message::Totals) -> Totals {
    let message::Totals { inuse_space, inuse_objects, alloc_space, alloc_objects } = totals;
    Totals { inuse_space, inuse_objects, alloc_space, alloc_objects }
}

pub(super) fn quality(quality: &message::Quality) -> Quality {
    Quality {
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
        warnings: quality.warnings.clone(),
    }
}

pub(super) fn size_class(class: &message::SizeClass) -> SizeClass {
    let message::SizeClass { smallest, largest, alloc_objects, inuse_objects } = *class;
    SizeClass { smallest, largest, alloc_objects, inuse_objects }
}

pub(super) fn parts(parts: &[message::Part]) -> Vec<(usize, Held)> {
    let part = |part: &message::Part| {
        let message::Part { number, space, objects } = *part;
        Some((usize::try_from(number).ok()?, Held { objects, space }))
    };
    parts.iter().filter_map(part).collect()
}

pub(super) fn moment(moment: message::MomentHeld) -> Moment {
    Moment {
        after: Duration::from_nanos(moment.after_ns),
        held: held(moment.held),
        error: moment.error.map(|error| held(Some(error))),
    }
}

pub(super) fn generation(generation: &message::Generation) -> Generation {
    Generation {
        mark: generation.mark.clone(),
        after: Duration::from_nanos(generation.after_ns),
        held: held(generation.held),
        error: generation.error.map(|error| held(Some(error))),
    }
}

pub(super) fn at(at: message::At) -> At {
    match at {
        message::At::End => At::End,
        message::At::Peak => At::Peak,
        message::At::Exit => At::Exit,
    }
}
