//! Child processes: each is watched by a thread of its own, and has a ledger and reports of its own.
//!
//! The kernel tells of every fork on the machine; those of our target and of its descendants are followed. A child begins
//! as a copy of its parent: what it inherits was allocated by another process, and when it frees that, the free matches
//! nothing. Mostly it executes another program soon, and is watched anew.

use std::{
    collections::HashSet,
    ffi::OsStr,
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use profiler_common::counters::Counter;

use super::{
    mapped::Mapped,
    naming::Namer,
    observation::Observation,
    options::{BudgetOptions, CommonOptions, OutputSpec},
    output::Outputs,
    signals::StopFlag,
    watch::{Ended, Printer, report_options, watch},
};
use crate::{
    report::units,
    symbolize::label::clean,
    sys::perf::Birth,
    target::{family::descendants, process::Process},
};

/// Children that are watched at a time: each takes kernel memory of its own.
const MOST: usize = 16;
/// How long a child is let be before it is looked at: most execute another program at once.
const SETTLE: Duration = Duration::from_millis(3);
/// A child's part of `--max-memory`.
const SHARE: u64 = 4;

/// The children of one target.
#[derive(Debug)]
pub(super) struct Children {
    options: CommonOptions,
    command: &'static str,
    printer: Printer,
    stop: StopFlag,
    family: HashSet<u32>,
    running: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<bool>>,
    declined: u64,
    untold: bool,
}

impl Children {
    /// The children of this process, if they are to be followed: those that it has, and from now on those of which
    /// [`Self::heard`] is told.
    pub(super) fn of(
        pid: u32,
        options: &CommonOptions,
        command: &'static str,
        printer: Printer,
    ) -> Option<Self> {
        if !options.children {
            return None;
        }
        let options = CommonOptions {
            duration: None,
            interval: None,
            quiet: true,
            children: false,
            max_memory: options.max_memory / SHARE,
            // A child is short-lived, and its beginning worth more than the cost of it.
            budget: BudgetOptions { measure_first: false, ..options.budget },
            ..options.clone()
        };
        let mut children = Self {
            options,
            command,
            printer,
            stop: StopFlag::default(),
            family: HashSet::from([pid]),
            running: Arc::default(),
            threads: Vec::new(),
            declined: 0,
            untold: false,
        };
        for child in descendants(pid) {
            children.family.insert(child);
            children.follow(child, Duration::ZERO);
        }
        Some(children)
    }

    /// Takes note of forks and ends, in order.
    pub(super) fn heard(&mut self, births: Result<Vec<Birth>, &std::io::Error>) {
        let Ok(births) = births else {
            self.untold = true;
            return;
        };
        for birth in births {
            match birth.parent {
                Some(parent) if self.family.contains(&parent) => {
                    if self.family.insert(birth.pid) {
                        self.follow(birth.pid, SETTLE);
                    }
                }
                Some(_) => {}
                None => {
                    self.family.remove(&birth.pid);
                }
            }
        }
    }

    fn follow(&mut self, pid: u32, settle: Duration) {
        if self.running.load(Ordering::Relaxed) >= MOST {
            self.declined += 1;
            return;
        }
        let (options, command, printer) = (self.options.clone(), self.command, self.printer);
        let (stop, running) = (self.stop.clone(), Arc::clone(&self.running));
        running.fetch_add(1, Ordering::Relaxed);
        let thread = thread::Builder::new().name(format!("child-{pid}")).spawn(move || {
            thread::sleep(settle);
            let watched = follow(pid, &options, command, &stop, printer);
            running.fetch_sub(1, Ordering::Relaxed);
            watched.unwrap_or_else(|error| {
                eprintln!("child {pid} is not watched: {error:#}");
                false
            })
        });
        match thread {
            Ok(thread) => self.threads.push(thread),
            Err(_) => {
                self.running.fetch_sub(1, Ordering::Relaxed);
                self.declined += 1;
            }
        }
    }

    /// Ends the watching of all children; what to tell about those that were not watched.
    pub(super) fn end(self) -> Vec<String> {
        self.stop.set();
        let followed = self.threads.len();
        let watched =
            self.threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|it| *it).count();
        let mut said = Vec::new();
        if self.untold {
            said.push(
                "The kernel does not tell of forks here: children that came later are not watched.".into(),
            );
        }
        if self.declined > 0 {
            said.push(format!(
                "{} not watched: there are {MOST} at a time at most.",
                units::counted(self.declined, "child process was", "child processes were")
            ));
        }
        if watched < followed {
            said.push(format!(
                "{} ended before probes could be placed, or could not be watched.",
                units::counted((followed - watched) as u64, "child process", "child processes")
            ));
        }
        said
    }
}

/// Watches a child until it ends, program after program; whether it was watched at all.
fn follow(
    pid: u32,
    options: &CommonOptions,
    command: &'static str,
    stop: &StopFlag,
    printer: Printer,
) -> anyhow::Result<bool> {
    let mut program = 0_u32;
    loop {
        let Ok(process) = Process::open(pid) else { return Ok(program > 0) };
        let image = process.image().ok();
        let begun = Observation::begin(process, options);
        let Ok(process) = Process::open(pid) else { return Ok(program > 0) };
        if image.is_none() || process.image().ok() != image {
            // It has executed another program while we were looking at the one before.
            continue;
        }
        let mut observation = begun?;
        program += 1;
        let mut namer = Namer::new(options, command);
        let ended =
            watch(&mut observation, &mut namer, options, stop, &printer, None, |observation, _, wait| {
                observation.wait(observation.process.as_fd(), wait);
                (!observation.process.is_alive()).then_some(Ended::TargetGone)
            })?;
        conclude(observation, namer, options, &printer, program)?;
        if ended != Ended::TargetReplaced {
            return Ok(true);
        }
    }
}

/// Writes a child's reports, and a line about it. One that allocated nothing is not worth one.
fn conclude(
    mut observation: Observation,
    mut namer: Namer,
    options: &CommonOptions,
    printer: &Printer,
    program: u32,
) -> anyhow::Result<()> {
    namer.ask_living(&mut observation);
    observation.end();
    let mapped_nothing = observation.mapped.as_ref().is_none_or(Mapped::is_empty);
    if observation.counters()?.get(Counter::AllocObjects) == 0
        && mapped_nothing
        && observation.growth.is_none()
    {
        return Ok(());
    }
    let profile = namer.profile(&observation, options, usize::MAX)?;
    let pid = observation.process.pid;
    let number = if program > 1 { format!("{pid}-{program}") } else { pid.to_string() };
    let mut options = options.clone();
    for output in &mut options.outputs {
        output.path = numbered(output, &number);
    }
    let name = super::attach::file_name(&observation.process.comm);
    let outputs = Outputs::open(&options, &format!("heapscope-{name}-{number}"))?;
    let written = outputs.write(&profile, &report_options(&options))?;
    let totals = &profile.totals;
    printer.line(&format!(
        "child {pid} ({}): {} live in {}; {} allocated in {}; wrote {}",
        clean(&observation.process.comm),
        units::bytes(totals.inuse_space),
        units::blocks(totals.inuse_objects),
        units::bytes(totals.alloc_space),
        units::blocks(totals.alloc_objects),
        written.join(", ")
    ))
}

/// `leak.json` becomes `leak.1234.json`, and `leak.pb.gz` with it `leak.1234.pb.gz`.
fn numbered(OutputSpec { path, format }: &OutputSpec, number: &str) -> PathBuf {
    let dotted = format!(".{}", format.ending());
    let parts = path
        .file_name()
        .and_then(OsStr::to_str)
        .and_then(|name| name.split_at_checked(name.len().checked_sub(dotted.len())?));
    if let Some((stem, ending)) = parts.filter(|(_, ending)| ending.eq_ignore_ascii_case(&dotted)) {
        return path.with_file_name(format!("{stem}.{number}{ending}"));
    }
    let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
    path.with_extension(match extension {
        Some(extension) => format!("{number}.{extension}"),
        None => number.to_owned(),
    })
}
