//! The programs on the allocators' functions, and the links that hold them there.

use std::{
    io,
    num::NonZeroU32,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
    },
};

use profiler_common::records::CallKind;

use super::{
    kernel_types::KernelTypes,
    links::{Links, counted, multi},
    object::{Programs, damaged, session_kernel_functions},
    programs::{Form, verifier_says},
    single::{self, Single},
};
use crate::{
    probe::{AttachMethod, ProbePoint, ProbeSettings, error::ProbeError, rights},
    sys::bpf::{self, ATTACH_UPROBE_MULTI, ATTACH_UPROBE_SESSION, MultiLink, RunTime},
    sys::calibration,
};

/// Loaded programs and their links.
pub(super) struct Attachments {
    pid: u32,
    loaded: Loaded,
    single: Single,
    /// Those on the allocators' functions, which come and go with windows.
    links: Links,
    /// All others.
    standing: Links,
    /// Where the first of these go.
    points: Vec<ProbePoint>,
    suspended: bool,
    form: Form,
    /// How long it took the last time to place the allocators' probes, and to take them out.
    pub(super) took: [Duration; 2],
}

enum Loaded {
    Session {
        allocate: OwnedFd,
        free: OwnedFd,
        exit: OwnedFd,
        mapping: Option<OwnedFd>,
        empty: OwnedFd,
    },
    Multi {
        entry: OwnedFd,
        at_return: OwnedFd,
        free: OwnedFd,
        exit: OwnedFd,
        mapping: Option<[OwnedFd; 2]>,
        empty: OwnedFd,
    },
    /// aya holds the programs.
    Perf,
}

impl Attachments {
    /// Loads the programs in the best way that the kernel takes, or in the one that was asked for; if that is by perf, it
    /// remains to [`Self::load_by_perf`].
    pub(super) fn load(
        programs: &Programs,
        kernel: &KernelTypes,
        settings: &ProbeSettings,
        form: Form,
    ) -> Result<Self, ProbeError> {
        let load = |method| load_as(method, settings, programs, kernel, form);
        let loaded = match settings.method {
            Some(method) => load(method)
                .map_err(|source| ProbeError::MethodUnavailable { method, source: Box::new(source) })?,
            None => {
                load(AttachMethod::Session).or_else(|_| load(AttachMethod::Multi)).unwrap_or(Loaded::Perf)
            }
        };
        let single = match loaded {
            Loaded::Perf => Single::default(),
            _ => Single::load(programs, settings)?,
        };
        Ok(Self {
            pid: settings.pid,
            loaded,
            single,
            links: Links::default(),
            standing: Links::default(),
            points: Vec::new(),
            suspended: false,
            form,
            took: [Duration::ZERO; 2],
        })
    }

    /// Has aya load the programs, if the probes are to be perf events.
    pub(super) fn load_by_perf(&self, ebpf: &mut Ebpf, settings: &ProbeSettings) -> Result<(), ProbeError> {
        if !matches!(self.loaded, Loaded::Perf) {
            return Ok(());
        }
        load_by_perf(settings, ebpf, self.form).map_err(|source| match settings.method {
            Some(method) => ProbeError::MethodUnavailable { method, source: Box::new(source) },
            None => source,
        })
    }

    /// The process that the probes are in.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn method(&self) -> AttachMethod {
        match self.loaded {
            Loaded::Session { .. } => AttachMethod::Session,
            Loaded::Multi { .. } => AttachMethod::Multi,
            Loaded::Perf => AttachMethod::Perf,
        }
    }

    /// Places probes: frees, then returns, then entries. Between windows, those on allocators wait for the next one.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, points: &[ProbePoint]) -> Result<(), ProbeError> {
        let (of_allocators, standing): (Vec<_>, Vec<_>) = points
            .iter()
            .partition(|point| !point.call.kind.is_of_mappings() && point.call.kind != CallKind::Exit);
        self.points.extend(of_allocators.iter().copied().cloned());
        let placed = self.place(ebpf, &standing)?;
        self.standing.add(placed);
        if !self.suspended {
            let placed = self.place(ebpf, &of_allocators)?;
            self.links.add(placed);
        }
        Ok(())
    }

    /// Takes the allocators' probes out until [`Self::resume`].
    pub(super) fn suspend(&mut self, ebpf: &mut Ebpf) {
        let began = Instant::now();
        self.suspended = true;
        std::mem::take(&mut self.links).remove_at_once(ebpf);
        self.took[1] = began.elapsed();
    }

    /// Places them again.
    pub(super) fn resume(&mut self, ebpf: &mut Ebpf) -> Result<(), ProbeError> {
        let began = Instant::now();
        self.links = self.place(ebpf, &self.points.iter().collect::<Vec<_>>())?;
        self.suspended = false;
        self.took[0] = began.elapsed();
        Ok(())
    }

    fn place(&self, ebpf: &mut Ebpf, points: &[&ProbePoint]) -> Result<Links, ProbeError> {
        let (single, points): (Vec<_>, Vec<_>) =
            points.iter().copied().partition(|point| single::program_of(point).is_some());
        let (mapping, points): (Vec<_>, Vec<_>) =
            points.into_iter().partition(|point| point.call.kind.is_of_mappings());
        let (returning, entered): (Vec<_>, Vec<_>) =
            points.into_iter().partition(|point| point.call.needs_return());
        let (exiting, freeing): (Vec<_>, Vec<_>) =
            entered.into_iter().partition(|point| point.call.kind == CallKind::Exit);
        let mut links = Links::default();
        for name in single::PROGRAMS {
            let points: Vec<_> =
                single.iter().copied().filter(|point| single::program_of(point) == Some(name)).collect();
            match self.single.get(name) {
                Some(program) => {
                    links.descriptors.extend(multi(program, ATTACH_UPROBE_MULTI, false, self.pid, &points)?);
                }
                None => self.attach_by_perf(ebpf, name, &points, &mut links)?,
            }
        }
        match &self.loaded {
            Loaded::Session { allocate, free, exit, mapping: program, .. } => {
                let pid = self.pid;
                links.descriptors.extend(multi(free, ATTACH_UPROBE_MULTI, false, pid, &freeing)?);
                links.descriptors.extend(multi(allocate, ATTACH_UPROBE_SESSION, false, pid, &returning)?);
                links.descriptors.extend(multi(exit, ATTACH_UPROBE_MULTI, false, pid, &exiting)?);
                if let Some(program) = program {
                    links.descriptors.extend(multi(program, ATTACH_UPROBE_SESSION, false, pid, &mapping)?);
                }
            }
            Loaded::Multi { entry, at_return, free, exit, mapping: programs, .. } => {
                let pid = self.pid;
                links.descriptors.extend(multi(free, ATTACH_UPROBE_MULTI, false, pid, &freeing)?);
                links.descriptors.extend(multi(at_return, ATTACH_UPROBE_MULTI, true, pid, &returning)?);
                links.descriptors.extend(multi(entry, ATTACH_UPROBE_MULTI, false, pid, &returning)?);
                links.descriptors.extend(multi(exit, ATTACH_UPROBE_MULTI, false, pid, &exiting)?);
                if let Some([entry, at_return]) = programs {
                    links.descriptors.extend(multi(at_return, ATTACH_UPROBE_MULTI, true, pid, &mapping)?);
                    links.descriptors.extend(multi(entry, ATTACH_UPROBE_MULTI, false, pid, &mapping)?);
                }
            }
            Loaded::Perf => {
                let points = [&freeing, &returning, &returning, &exiting];
                let of_allocators = self.form.by_perf().into_iter().zip(points);
                for (program, points) in
                    of_allocators.chain(self.form.mapping_by_perf().map(|name| (name, &mapping)))
                {
                    self.attach_by_perf(ebpf, program, points, &mut links)?;
                }
            }
        }
        Ok(links)
    }

    fn attach_by_perf(
        &self,
        ebpf: &mut Ebpf,
        name: &'static str,
        points: &[&ProbePoint],
        links: &mut Links,
    ) -> Result<(), ProbeError> {
        if points.is_empty() {
            return Ok(());
        }
        let program = perf_program(ebpf, name)?;
        let pid = NonZeroU32::new(self.pid).ok_or_else(|| damaged("process 0"))?;
        for point in points {
            if let Some(link) = counted(program, point, self.pid)? {
                links.descriptors.push(link);
                continue;
            }
            let place = UProbeAttachPoint {
                location: UProbeAttachLocation::AbsoluteOffset(point.offset.0),
                cookie: Some(point.cookie()),
            };
            let link = program.attach(place, &point.path, UProbeScope::OneProcess(pid)).map_err(|error| {
                let source = io_cause(&error).unwrap_or_else(|| io::Error::other(error.to_string()));
                ProbeError::Attach { source }
            })?;
            links.perf.push((name, link));
        }
        Ok(())
    }

    /// Takes every probe out: entries first, frees last.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) {
        self.suspended = true;
        std::mem::take(&mut self.links).remove(ebpf);
        std::mem::take(&mut self.standing).remove(ebpf);
    }

    /// Nanoseconds of one hit with an empty program, measured in this process on a function made for it: half of what a
    /// call with a probe at its entry and at its return takes longer than without. `None` where probes are perf events.
    pub(super) fn calibrate(&self) -> io::Result<Option<f64>> {
        let offset = calibration::file_offset()?;
        let link = |program: &OwnedFd, attach_type, at_return| {
            let (offsets, cookies, counters, pid) = (&[offset], &[0], &[], std::process::id());
            let path = c"/proc/self/exe";
            let link = MultiLink { attach_type, path, offsets, cookies, counters, at_return, pid };
            bpf::link_uprobe_multi(program.as_fd(), &link)
        };
        let links = match &self.loaded {
            Loaded::Session { empty, .. } => vec![link(empty, ATTACH_UPROBE_SESSION, false)?],
            Loaded::Multi { empty, .. } => {
                vec![link(empty, ATTACH_UPROBE_MULTI, true)?, link(empty, ATTACH_UPROBE_MULTI, false)?]
            }
            Loaded::Perf => return Ok(None),
        };
        let with = calibration::nanoseconds_per_call();
        drop(links);
        let without = calibration::nanoseconds_per_call();
        Ok(Some((with - without).max(0.0) / 2.0))
    }

    /// Sum of the programs' run times while the kernel measured them.
    pub(super) fn run_time(&self) -> RunTime {
        let mut sum = RunTime::default();
        for (_, program) in self.programs() {
            if let Ok(one) = bpf::run_time(program.as_fd()) {
                sum.nanoseconds += one.nanoseconds;
                sum.runs += one.runs;
            }
        }
        sum
    }

    /// Each program with the number of instructions that the verifier followed.
    pub(super) fn verified_instructions(&self) -> io::Result<Vec<(&'static str, u32)>> {
        let programs = self.programs().into_iter();
        programs.map(|(name, program)| Ok((name, bpf::verified_instructions(program.as_fd())?))).collect()
    }

    /// The programs that run in the target, as far as we hold them.
    fn programs(&self) -> Vec<(&'static str, &OwnedFd)> {
        let mut programs = self.paired();
        programs.extend(self.single.programs());
        programs
    }

    fn paired(&self) -> Vec<(&'static str, &OwnedFd)> {
        match &self.loaded {
            Loaded::Session { allocate, free, exit, mapping, .. } => {
                let mut programs =
                    vec![("alloc_session", allocate), ("free_entry", free), ("exit_entry", exit)];
                programs.extend(mapping.as_ref().map(|program| ("mapping_session", program)));
                programs
            }
            Loaded::Multi { entry, at_return, free, exit, mapping, .. } => {
                let mut programs = vec![
                    ("alloc_entry", entry),
                    ("alloc_return", at_return),
                    ("free_entry", free),
                    ("exit_entry", exit),
                ];
                programs.extend(mapping.iter().flat_map(|[entry, at_return]| {
                    [("mapping_entry", entry), ("mapping_return", at_return)]
                }));
                programs
            }
            Loaded::Perf => Vec::new(),
        }
    }
}

pub(super) fn perf_program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut UProbe, ProbeError> {
    let program = ebpf.program_mut(name).ok_or_else(|| damaged(format!("no program {name}")))?;
    program.try_into().map_err(damaged)
}

fn load_as(
    method: AttachMethod,
    settings: &ProbeSettings,
    programs: &Programs,
    kernel: &KernelTypes,
    form: Form,
) -> Result<Loaded, ProbeError> {
    let mappings = settings.mappings;
    match method {
        AttachMethod::Session => {
            let functions = session_kernel_functions(kernel)
                .ok_or_else(|| damaged("the kernel has no uprobe sessions (6.13 and later have)"))?;
            Ok(Loaded::Session {
                allocate: programs.load("alloc_session", ATTACH_UPROBE_SESSION, &functions)?,
                free: programs.load("free_entry", ATTACH_UPROBE_MULTI, &[])?,
                exit: programs.load("exit_entry", ATTACH_UPROBE_MULTI, &[])?,
                mapping: mappings
                    .then(|| programs.load("mapping_session", ATTACH_UPROBE_SESSION, &functions))
                    .transpose()?,
                empty: programs.load("empty", ATTACH_UPROBE_SESSION, &[])?,
            })
        }
        AttachMethod::Multi => Ok(Loaded::Multi {
            entry: programs.load("alloc_entry", ATTACH_UPROBE_MULTI, &[])?,
            at_return: programs.load(form.alloc_return(), ATTACH_UPROBE_MULTI, &[])?,
            free: programs.load("free_entry", ATTACH_UPROBE_MULTI, &[])?,
            exit: programs.load("exit_entry", ATTACH_UPROBE_MULTI, &[])?,
            mapping: if mappings {
                let load = |name| programs.load(name, ATTACH_UPROBE_MULTI, &[]);
                Some([load("mapping_entry")?, load(form.mapping_return())?])
            } else {
                None
            },
            empty: programs.load("empty", ATTACH_UPROBE_MULTI, &[])?,
        }),
        AttachMethod::Perf => Ok(Loaded::Perf),
    }
}

fn load_by_perf(settings: &ProbeSettings, ebpf: &mut Ebpf, form: Form) -> Result<(), ProbeError> {
    let of_mappings = form.mapping_by_perf().into_iter().filter(|_| settings.mappings);
    let single = single::wanted(settings);
    for name in form.by_perf().into_iter().chain(of_mappings).chain(single) {
        let program = perf_program(ebpf, name)?;
        program.load().map_err(|error| match (io_cause(&error), verifier_says(&error)) {
            // Of a program that it does not believe, the verifier says why, and answers EACCES as well.
            (_, Some(said)) => damaged(format!("{name}: {said}")),
            (Some(source), None) if source.kind() == io::ErrorKind::PermissionDenied => {
                rights::explain(&source)
            }
            _ => damaged(error),
        })?;
    }
    Ok(())
}

/// The system's answer inside an error of aya's.
pub(super) fn io_cause(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let mut cause = Some(error);
    while let Some(at) = cause {
        if let Some(code) = at.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(io::Error::from_raw_os_error(code));
        }
        cause = at.source();
    }
    None
}
