//! `heapscope attach`: a process that runs already.

use std::{os::fd::AsFd, process::ExitCode};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::{
    children::Children,
    naming::Namer,
    observation::Observation,
    options::{AttachOptions, CommonOptions},
    output::Outputs,
    signals::StopFlag,
    watch::{Ended, Printer, conclude, watch},
};
use crate::target::{allocator, maps::Maps, module_cache::ModuleCache, process::Process};

/// Watches a running process until the time is over, the user stops it or the process ends, and writes the reports.
///
/// # Errors
/// What and what to do, in one sentence each: no such process, no rights, no allocator, a file that cannot be written.
pub fn attach(options: &AttachOptions) -> anyhow::Result<ExitCode> {
    let common = &options.common;
    let process = Process::find(&options.target)?;
    let default_name = format!("heapscope-{}-{}", file_name(&process.comm), process.pid);
    let mut outputs = Outputs::open(common, &default_name)?;
    let printer = if outputs.use_stdout() { Printer::Stderr } else { Printer::Stdout };
    raise_file_limit();
    let stop = StopFlag::catch()?;
    let mut namer = Namer::new(common, "attach");
    let mut observation = begin(process, common)?;
    observation.recorder = outputs.recorder(common);
    let mut children = Children::of(observation.process.pid, common, "attach", printer);
    let family = children.as_mut();
    let ended =
        watch(&mut observation, &mut namer, common, &stop, &printer, family, |observation, _, wait| {
            observation.wait(observation.process.as_fd(), wait);
            (!observation.process.is_alive()).then_some(Ended::TargetGone)
        })?;
    observation.warnings.extend(children.map(Children::end).unwrap_or_default());
    if ended == Ended::TargetGone {
        printer.line(&format!("process {} ended", observation.process.pid))?;
    }
    conclude(observation, namer, common, outputs, &printer)?;
    Ok(ExitCode::SUCCESS)
}

/// Begins to watch a process that has an allocator.
pub(super) fn begin(process: Process, options: &CommonOptions) -> anyhow::Result<Observation> {
    let mut observation = Observation::begin(process, options)?;
    observation.require_told()?;
    if observation.allocators.is_empty() && !options.growth {
        // A second look, which can say why.
        let process = &observation.process;
        allocator::find(process, &Maps::read(process)?, &mut ModuleCache::default())?;
        observation.look()?;
    }
    observation.require_custom_allocators()?;
    observation.require_callers()?;
    Ok(observation)
}

/// Every mapped file is held open, and large processes map more than a thousand. What cannot be raised stays; files that
/// cannot be opened are named in the report.
pub(super) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// A process's name as part of a file's name.
pub(super) fn file_name(comm: &str) -> String {
    comm.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}
