//! Programs that run at one instruction and not at a function's two ends: on single calls of an allocator, and on probes
//! that the target has itself. They are the same in every way to attach.

use std::os::fd::OwnedFd;

use profiler_common::records::CallKind;

use super::object::Programs;
use crate::{
    probe::{Position, ProbePoint, ProbeSettings, error::ProbeError},
    sys::bpf::ATTACH_UPROBE_MULTI,
};

/// In the order in which they are placed: what ends a block or a call comes before what begins one, so that no end is missed.
pub(super) const PROGRAMS: [&str; 4] = ["told_free", "told_alloc", "site_return", "site_entry"];

/// The program for a place, if it is one of these.
pub(super) fn program_of(point: &ProbePoint) -> Option<&'static str> {
    match point.position {
        Position::Called | Position::CalledToReturn | Position::AtJump => None,
        Position::AtCall => Some("site_entry"),
        Position::BehindCall(_) => Some("site_return"),
        Position::Told { .. } if point.call.kind == CallKind::Free => Some("told_free"),
        Position::Told { .. } => Some("told_alloc"),
    }
}

/// Those that may be needed.
pub(super) fn wanted(settings: &ProbeSettings) -> impl Iterator<Item = &'static str> {
    let (told, sites) = (settings.told, settings.only_callers);
    PROGRAMS.into_iter().filter(move |name| if name.starts_with("told") { told } else { sites })
}

/// The programs, where aya does not hold them.
#[derive(Default)]
pub(super) struct Single(Vec<(&'static str, OwnedFd)>);

impl Single {
    pub(super) fn load(programs: &Programs, settings: &ProbeSettings) -> Result<Self, ProbeError> {
        let load = |name| Ok((name, programs.load(name, ATTACH_UPROBE_MULTI, &[])?));
        wanted(settings).map(load).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn get(&self, name: &str) -> Option<&OwnedFd> {
        self.programs().find_map(|(known, program)| (known == name).then_some(program))
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = (&'static str, &OwnedFd)> {
        self.0.iter().map(|(name, program)| (*name, program))
    }
}
