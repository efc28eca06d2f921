//! Page faults: the programs behind the kernel's events, and what they have noted.

use std::os::fd::{AsFd, OwnedFd};

use aya::Ebpf;
use profiler_common::growth::{SiteFaults, TouchedPage};

use super::{EbpfProbe, object::Programs};
use crate::{
    probe::error::ProbeError,
    sys::{bpf::map::TypedMap, faults::FaultEvents},
    target::process::Process,
};

/// What one page takes in the kernel, in bytes: its hash element, rounded to a slab object, and one bucket (hashtab.c: 48
/// bytes of head, 8 of key, 32 of value; 96-byte objects, 16-byte buckets).
pub(super) const BYTES_PER_PAGE: u64 = 112;

/// Programs, events and maps.
pub(super) struct GrowthProbe {
    minor: OwnedFd,
    major: OwnedFd,
    events: FaultEvents,
    touched: TypedMap<u64, TouchedPage>,
    sites: TypedMap<u64, SiteFaults>,
}

impl GrowthProbe {
    pub(super) fn load(programs: &Programs, ebpf: &Ebpf) -> Result<Self, ProbeError> {
        Ok(Self {
            minor: programs.load_for_events("minor_fault")?,
            major: programs.load_for_events("major_fault")?,
            events: FaultEvents::default(),
            touched: super::typed(ebpf, "TOUCHED")?,
            sites: super::typed(ebpf, "FAULT_SITES")?,
        })
    }

    /// The programs that run behind faults.
    pub(super) fn programs(&self) -> [(&'static str, &OwnedFd); 2] {
        [("minor_fault", &self.minor), ("major_fault", &self.major)]
    }

    pub(super) fn detach(&mut self) {
        self.events.clear();
    }
}

impl EbpfProbe {
    /// Has page faults noted from now on; on how many threads.
    ///
    /// # Errors
    /// [`ProbeError::Attach`]; nothing happens where the probes were not loaded for it.
    pub fn watch_faults(&mut self, process: &Process) -> Result<usize, ProbeError> {
        let Some(GrowthProbe { events, minor, major, .. }) = &mut self.growth else { return Ok(0) };
        let watched = events.watch(&process.path("task"), minor.as_fd(), major.as_fd());
        watched.map_err(|source| ProbeError::Attach { source })
    }

    /// Hands out the pages that were touched, by their numbers, with who touched them last.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn touched_pages(&self, mut each: impl FnMut(u64, &TouchedPage)) -> Result<(), ProbeError> {
        let Some(growth) = &self.growth else { return Ok(()) };
        growth
            .touched
            .for_each(|page, touched| each(*page, touched))
            .map_err(|source| ProbeError::Map { name: "TOUCHED", source })
    }

    /// Hands out the faults of each site.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn fault_sites(&self, mut each: impl FnMut(u64, &SiteFaults)) -> Result<(), ProbeError> {
        let Some(growth) = &self.growth else { return Ok(()) };
        growth
            .sites
            .for_each(|site, faults| each(*site, faults))
            .map_err(|source| ProbeError::Map { name: "FAULT_SITES", source })
    }
}
