//! What is there for Python alone: probes inside the interpreter, and what they and the walk tell of its memory.

use std::{
    io,
    num::NonZeroU32,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
    programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
};
use profiler_common::{
    pools::PoolSample,
    python::{Death, PythonLayout},
};

use super::{
    EbpfProbe,
    attach::{io_cause, perf_program},
    links::c_path,
    object::{Programs, damaged},
};
use crate::{
    probe::{AttachMethod, ProbeSettings, error::ProbeError},
    sys::bpf::{self, ATTACH_UPROBE_MULTI, MultiLink, map::TypedMap},
    target::address::FileOffset,
};

/// What a probe inside the interpreter waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PythonEvent {
    /// pymalloc has opened a pool.
    PoolOpened,
    /// A code object is about to be freed.
    CodeDies,
}

impl PythonEvent {
    const ALL: [Self; 2] = [Self::PoolOpened, Self::CodeDies];

    const fn program(self) -> &'static str {
        match self {
            Self::PoolOpened => "pool_opened",
            Self::CodeDies => "code_dies",
        }
    }
}

/// A place for such a probe.
#[derive(Clone, Debug)]
pub struct PythonPoint {
    /// The file, as this process can name it to the kernel.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: FileOffset,
    /// What the program has to know of the place.
    pub cookie: u64,
}

/// Programs, links and maps.
#[derive(Default)]
pub(super) struct PythonProbe {
    programs: Vec<(PythonEvent, OwnedFd)>,
    links: Vec<OwnedFd>,
    perf_links: Vec<(PythonEvent, UProbeLinkId)>,
    layout: Option<TypedMap<u32, PythonLayout>>,
    deaths: Option<TypedMap<u32, u64>>,
    pools: Option<TypedMap<u64, PoolSample>>,
    pool_sites: Option<TypedMap<u64, u64>>,
    codes: Option<RingBuf<MapData>>,
}

impl PythonProbe {
    /// Loads the programs, and opens the maps. The object that measures has no such programs.
    pub(super) fn load(
        programs: &Programs,
        ebpf: &mut Ebpf,
        settings: &ProbeSettings,
    ) -> Result<Self, ProbeError> {
        // What is wrong with a program is said when it is wanted.
        let load = |event: PythonEvent| {
            let program = programs.load(event.program(), ATTACH_UPROBE_MULTI, &[]);
            program.ok().map(|program| (event, program))
        };
        let by_perf = settings.method == Some(AttachMethod::Perf);
        Ok(Self {
            programs: PythonEvent::ALL.into_iter().filter(|_| !by_perf).filter_map(load).collect(),
            links: Vec::new(),
            perf_links: Vec::new(),
            layout: Some(super::typed(ebpf, "PYTHON")?),
            deaths: Some(super::typed(ebpf, "DEATHS")?),
            pools: super::typed(ebpf, "POOLS").ok(),
            pool_sites: super::typed(ebpf, "POOL_SITES").ok(),
            codes: Some(super::ring(ebpf, "PYTHON_CODES")?),
        })
    }

    /// The programs that run in the target, as far as we hold them.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&'static str, &OwnedFd)> {
        self.programs.iter().map(|(event, program)| (event.program(), program))
    }
}

impl EbpfProbe {
    /// Has Python frames collected from now on; whether that is possible: the probes must have been loaded for it, and
    /// the kernel must tell where it keeps thread pointers.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn publish_python(&self, layout: &PythonLayout) -> Result<bool, ProbeError> {
        let Some(map) = &self.python.layout else { return Ok(false) };
        map.update(&0, layout).map_err(|source| ProbeError::Map { name: "PYTHON", source })?;
        Ok(true)
    }

    /// Has something in the interpreter noted from now on. Once for each event; `points` are of one file.
    ///
    /// # Errors
    /// Where the program is refused, or a place.
    pub fn attach_python(&mut self, event: PythonEvent, points: &[PythonPoint]) -> Result<(), ProbeError> {
        let Some(first) = points.first() else { return Ok(()) };
        if self.method() == AttachMethod::Perf {
            return self.attach_python_by_perf(event, points);
        }
        let program = self.python.programs.iter().find(|(of, _)| *of == event);
        let (_, program) = program.ok_or_else(|| damaged(format!("{} was refused", event.program())))?;
        let (offsets, cookies): (Vec<u64>, Vec<u64>) =
            points.iter().map(|point| (point.offset.0, point.cookie)).unzip();
        let link = c_path(first.path.as_os_str()).and_then(|path| {
            let link = MultiLink {
                attach_type: ATTACH_UPROBE_MULTI,
                path: &path,
                offsets: &offsets,
                cookies: &cookies,
                counters: &[],
                at_return: false,
                pid: self.attachments.pid(),
            };
            bpf::link_uprobe_multi(program.as_fd(), &link)
        });
        self.python.links.push(link.map_err(|source| ProbeError::Attach { source })?);
        Ok(())
    }

    fn attach_python_by_perf(
        &mut self,
        event: PythonEvent,
        points: &[PythonPoint],
    ) -> Result<(), ProbeError> {
        let pid = NonZeroU32::new(self.attachments.pid()).ok_or_else(|| damaged("process 0"))?;
        let program = perf_program(&mut self.ebpf, event.program())?;
        program.load().map_err(damaged)?;
        for point in points {
            let place = UProbeAttachPoint {
                location: UProbeAttachLocation::AbsoluteOffset(point.offset.0),
                cookie: Some(point.cookie),
            };
            let link = program.attach(place, &point.path, UProbeScope::OneProcess(pid)).map_err(|error| {
                let source = io_cause(&error).unwrap_or_else(|| io::Error::other(error.to_string()));
                ProbeError::Attach { source }
            })?;
            self.python.perf_links.push((event, link));
        }
        Ok(())
    }

    pub(super) fn detach_python(&mut self) {
        self.python.links.clear();
        while let Some((event, link)) = self.python.perf_links.pop() {
            if let Ok(program) = perf_program(&mut self.ebpf, event.program()) {
                // A link that is gone already is what we want.
                let _ = program.detach(link);
            }
        }
    }

    /// Hands out what was told of code objects since the last call: [`profiler_common::python::CodeRecord`] and what follows
    /// it. Of the code on a stack, it was told before the stack was.
    pub fn python_codes(&mut self, mut each: impl FnMut(&[u8])) {
        let Some(codes) = &mut self.python.codes else { return };
        while let Some(item) = codes.next() {
            each(&item);
        }
    }

    /// When a code object at this address died: [`Death::at`].
    #[must_use]
    pub fn last_death_at(&self, code: u64) -> u32 {
        let deaths = self.python.deaths.as_ref().and_then(|deaths| deaths.look_up(&Death::slot(code)).ok());
        deaths.flatten().map_or(0, |death| Death(death).at(code))
    }

    /// Hands out the pools that were opened, by their addresses.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn pools(&self, mut each: impl FnMut(u64, &PoolSample)) -> Result<(), ProbeError> {
        let Some(pools) = &self.python.pools else { return Ok(()) };
        pools
            .for_each(|address, pool| each(*address, pool))
            .map_err(|source| ProbeError::Map { name: "POOLS", source })
    }

    /// Hands out how many pools each site has opened.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn pool_sites(&self, mut each: impl FnMut(u64, u64)) -> Result<(), ProbeError> {
        let Some(sites) = &self.python.pool_sites else { return Ok(()) };
        sites
            .for_each(|site, opened| each(*site, *opened))
            .map_err(|source| ProbeError::Map { name: "POOL_SITES", source })
    }
}
