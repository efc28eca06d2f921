//! The probe on the pools that pymalloc opens.

use std::{
    io,
    num::NonZeroU32,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
    },
};
use profiler_common::pools::{PoolCookie, PoolSample};

use super::{
    EbpfProbe,
    attach::{c_path, io_cause},
    object::{Programs, damaged},
};
use crate::{
    probe::{AttachMethod, error::ProbeError},
    sys::bpf::{self, ATTACH_UPROBE_MULTI, MultiLink, map::TypedMap},
    target::address::FileOffset,
};

const PROGRAM: &str = "pool_opened";

/// A place where a pool has just been opened.
#[derive(Clone, Debug)]
pub struct PoolPoint {
    /// The file, as this process can name it to the kernel.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: FileOffset,
    /// What the program has to know of the place.
    pub cookie: PoolCookie,
}

/// The program, its links and its maps.
#[derive(Default)]
pub(super) struct PoolProbe {
    pub(super) program: Option<OwnedFd>,
    links: Vec<OwnedFd>,
    perf_links: Vec<UProbeLinkId>,
    pools: Option<TypedMap<u64, PoolSample>>,
    sites: Option<TypedMap<u64, u64>>,
}

impl PoolProbe {
    /// Loads the program, unless aya has it. The object that measures has none.
    pub(super) fn load(programs: &Programs, method: AttachMethod) -> Self {
        let program = match method {
            AttachMethod::Perf => None,
            // What is wrong is said when it is wanted.
            AttachMethod::Session | AttachMethod::Multi => {
                programs.load(PROGRAM, ATTACH_UPROBE_MULTI, &[]).ok()
            }
        };
        Self { program, ..Self::default() }
    }
}

impl EbpfProbe {
    /// Has pools noted that are opened from now on. Once; `points` are of one file.
    ///
    /// # Errors
    /// Where the program is refused, or a place.
    pub fn attach_pools(&mut self, points: &[PoolPoint]) -> Result<(), ProbeError> {
        let Some(first) = points.first() else { return Ok(()) };
        self.pools.pools = Some(super::typed(&self.ebpf, "POOLS")?);
        self.pools.sites = Some(super::typed(&self.ebpf, "POOL_SITES")?);
        if self.method() == AttachMethod::Perf {
            return self.attach_pools_by_perf(points);
        }
        let program = self.pools.program.as_ref().ok_or_else(|| damaged(format!("{PROGRAM} was refused")))?;
        let (offsets, cookies): (Vec<u64>, Vec<u64>) =
            points.iter().map(|point| (point.offset.0, point.cookie.0)).unzip();
        let link = c_path(first.path.as_os_str()).and_then(|path| {
            let link = MultiLink {
                attach_type: ATTACH_UPROBE_MULTI,
                path: &path,
                offsets: &offsets,
                cookies: &cookies,
                at_return: false,
                pid: self.attachments.pid(),
            };
            bpf::link_uprobe_multi(program.as_fd(), &link)
        });
        self.pools.links.push(link.map_err(|source| ProbeError::Attach { source })?);
        Ok(())
    }

    fn attach_pools_by_perf(&mut self, points: &[PoolPoint]) -> Result<(), ProbeError> {
        let pid = NonZeroU32::new(self.attachments.pid()).ok_or_else(|| damaged("process 0"))?;
        let program = program(&mut self.ebpf)?;
        program.load().map_err(damaged)?;
        for point in points {
            let place = UProbeAttachPoint {
                location: UProbeAttachLocation::AbsoluteOffset(point.offset.0),
                cookie: Some(point.cookie.0),
            };
            let link = program.attach(place, &point.path, UProbeScope::OneProcess(pid)).map_err(|error| {
                let source = io_cause(&error).unwrap_or_else(|| io::Error::other(error.to_string()));
                ProbeError::Attach { source }
            })?;
            self.pools.perf_links.push(link);
        }
        Ok(())
    }

    pub(super) fn detach_pools(&mut self) {
        self.pools.links.clear();
        while let Some(link) = self.pools.perf_links.pop() {
            if let Ok(program) = program(&mut self.ebpf) {
                // A link that is gone already is what we want.
                let _ = program.detach(link);
            }
        }
    }

    /// Hands out the pools that were opened, by their addresses.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn pools(&self, mut each: impl FnMut(u64, &PoolSample)) -> Result<(), ProbeError> {
        let Some(pools) = &self.pools.pools else { return Ok(()) };
        pools
            .for_each(|address, pool| each(*address, pool))
            .map_err(|source| ProbeError::Map { name: "POOLS", source })
    }

    /// Hands out how many pools each site has opened.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn pool_sites(&self, mut each: impl FnMut(u64, u64)) -> Result<(), ProbeError> {
        let Some(sites) = &self.pools.sites else { return Ok(()) };
        sites
            .for_each(|site, opened| each(*site, *opened))
            .map_err(|source| ProbeError::Map { name: "POOL_SITES", source })
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut UProbe, ProbeError> {
    let program = ebpf.program_mut(PROGRAM).ok_or_else(|| damaged(format!("no program {PROGRAM}")))?;
    program.try_into().map_err(damaged)
}
