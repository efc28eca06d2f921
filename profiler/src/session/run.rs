//! `heapscope run -- CMD`: a program that is watched from its first allocation to its end.

use std::{
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
    sync::mpsc::{RecvTimeoutError, TryRecvError},
    time::Duration,
};

use anyhow::Context;

use super::{
    attach::file_name,
    children::Children,
    naming::Namer,
    observation::Observation,
    options::{CommonOptions, RunOptions},
    output::Outputs,
    signals::StopFlag,
    watch::{Ended, Printer, conclude, watch},
};
use crate::{
    sys::launch::{Event, Launch, LaunchError},
    target::process::Process,
};

/// Starts a program, watches it, writes the reports, and ends with the program's own exit status (128 plus the number
/// of the signal that killed it; 127 and 126 where it could not be found or executed, as shells do).
///
/// # Errors
/// What and what to do, in one sentence each.
pub fn run(options: &RunOptions) -> anyhow::Result<ExitCode> {
    let common = &options.common;
    let name = options.command.first().map(|program| Path::new(program).file_name().unwrap_or(program));
    let name = file_name(&name.unwrap_or_default().to_string_lossy());
    let mut outputs = Outputs::open(common, &format!("heapscope-{name}"))?;
    let stop = StopFlag::catch()?;
    // CPython asks malloc for every object then, and not for arenas of its own (PYTHONMALLOC in python(1)).
    let variables: &[_] = if options.python_all { &[("PYTHONMALLOC", "malloc")] } else { &[] };
    let launch = match Launch::spawn(&options.command, variables) {
        Ok(launch) => launch,
        Err(error) => {
            eprintln!("heapscope: {error}");
            return Ok(ExitCode::from(match error {
                LaunchError::NotFound { .. } => 127,
                LaunchError::NotExecutable { .. } => 126,
                _ => 1,
            }));
        }
    };
    let mut program = Program { launch, status: None, held: None, replaced: false };
    // The program's standard output is its own: everything of ours goes to standard error.
    let printer = Printer::Stderr;
    let mut namer = Namer::new(common, "run");
    let started = program.start(common).inspect_err(|_| program.kill())?;
    let Some(mut observation) = started else {
        // It ended before it could be watched.
        return Ok(program.exit_code());
    };
    let mut children = Children::of(observation.process.pid, common, "run", printer);
    loop {
        observation.recorder = outputs.recorder(common);
        let family = children.as_mut();
        let ended = watch(
            &mut observation,
            &mut namer,
            common,
            &stop,
            &printer,
            family,
            |observation, namer, wait| program.follow(observation, namer, wait),
        )?;
        if ended != Ended::TargetReplaced {
            break;
        }
        // The image that was watched is gone with all its memory; the account begins anew with the next one.
        drop(observation);
        program.replaced = true;
        match program.start(common) {
            Ok(Some(next)) => observation = next,
            Ok(None) => return Ok(program.exit_code()),
            Err(error) => {
                program.wait();
                return Err(error);
            }
        }
    }
    observation.warnings.extend(children.map(Children::end).unwrap_or_default());
    let concluded = conclude(observation, namer, common, outputs, &printer);
    program.wait();
    concluded?;
    Ok(program.exit_code())
}

/// The program under way.
struct Program {
    launch: Launch,
    /// Once it has ended.
    status: Option<u8>,
    /// An exec that was met while the image before it was watched.
    held: Option<crate::sys::launch::Stopped>,
    /// Whether an image was watched before.
    replaced: bool,
}

/// How long the tracer may take to tell an exec that the probes have seen. It takes less than a millisecond, unless the
/// exec is one that it does not see.
const UNSEEN_EXEC: Duration = Duration::from_millis(500);

impl Program {
    /// Follows the program from its exec to the moment when its loader is done, placing probes on the way. `None` if it
    /// ended before that.
    fn start(&mut self, options: &CommonOptions) -> anyhow::Result<Option<Observation>> {
        let mut observation = None;
        if let Some(stopped) = self.held.take() {
            observation = Some(self.begin(options)?);
            stopped.resume();
        }
        loop {
            let event = match self.launch.events().recv_timeout(UNSEEN_EXEC) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => {
                    // One that has ended has its end among the next events.
                    if observation.is_none() && self.replaced && Process::open(self.launch.pid()).is_ok() {
                        return self.begin_late(options).map(Some);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            };
            match event {
                Event::Exec(stopped) => {
                    if let Some(withheld) = self.launch.withheld_privileges() {
                        eprintln!("heapscope: {withheld}");
                    }
                    // The image before this one never ran a line of its own.
                    drop(observation.take());
                    observation = Some(self.begin(options)?);
                    stopped.resume();
                }
                Event::Loading(stopped) => {
                    if let Some(observation) = &mut observation {
                        observation.look()?;
                    }
                    stopped.resume();
                }
                Event::Running(stopped) => {
                    let Some(mut started) = observation.take() else { continue };
                    started.look()?;
                    if started.allocators.is_empty() && !options.growth {
                        started.warnings.push(
                            "No file of the program defines malloc and free: nothing can be seen until it loads one. A \
                             static program must not be stripped."
                                .into(),
                        );
                    }
                    if let Err(missing) = started.require_custom_allocators() {
                        // A library that comes later may define it.
                        started.warnings.push(format!("Not found when the program began: {missing}"));
                    }
                    let told = started.require_told();
                    if let Err(missing) = started.require_callers().and(told) {
                        started.warnings.push(format!("Not found when the program began: {missing}"));
                    }
                    stopped.resume();
                    return Ok(Some(started));
                }
                Event::Ending(stopped) => stopped.resume(),
                Event::Exited(_) | Event::Killed(_) => {
                    self.ended(&event);
                    return Ok(None);
                }
            }
        }
    }

    /// Begins with an image that runs already: its exec was seen by the probes but not by the tracer.
    fn begin_late(&self, options: &CommonOptions) -> anyhow::Result<Observation> {
        let mut observation = self.begin(options)?;
        observation.warnings.push(
            "The program replaced itself by an exec in a thread after its main thread had ended, which cannot be traced: \
             the new program was found running, and what it allocated before is not seen."
                .into(),
        );
        Ok(observation)
    }

    fn begin(&self, options: &CommonOptions) -> anyhow::Result<Observation> {
        let process = Process::open(self.launch.pid()).context("the program cannot be watched")?;
        Observation::begin(process, options)
    }

    /// Waits for the program's next event, at most for `wait`.
    fn follow(&mut self, observation: &mut Observation, namer: &mut Namer, wait: Duration) -> Option<Ended> {
        let event = self.launch.next_event().or_else(|_| {
            observation.wait(self.launch.as_fd(), wait);
            self.launch.next_event()
        });
        let event = match event {
            Ok(event) => event,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => return Some(Ended::TargetGone),
        };
        match event {
            Event::Exec(stopped) => {
                self.held = Some(stopped);
                Some(Ended::TargetReplaced)
            }
            Event::Loading(stopped) | Event::Running(stopped) => {
                stopped.resume();
                None
            }
            Event::Ending(stopped) => {
                // The last moment at which mappings and the names of generated code can be read.
                let _ = observation.tick();
                namer.ask_living(observation);
                stopped.resume();
                None
            }
            Event::Exited(_) | Event::Killed(_) => {
                self.ended(&event);
                Some(Ended::TargetGone)
            }
        }
    }

    fn ended(&mut self, event: &Event) {
        self.status = match event {
            Event::Exited(code) => Some(u8::try_from(*code & 0xff).unwrap_or(1)),
            Event::Killed(signal) => Some(u8::try_from(128 + (*signal & 0x7f)).unwrap_or(255)),
            _ => self.status,
        };
    }

    /// Ends a program that cannot be watched. It has not run an instruction of its own yet.
    fn kill(&self) {
        if let Some(pid) = i32::try_from(self.launch.pid()).ok().and_then(rustix::process::Pid::from_raw) {
            // One that is gone already is what we want.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// Lets the program run on unwatched, and waits for its end.
    fn wait(&mut self) {
        self.held = None;
        self.launch.detach();
        while self.status.is_none() {
            match self.launch.events().recv() {
                // Those that hold the program let it go when they are dropped.
                Ok(event) => self.ended(&event),
                Err(_) => break,
            }
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status.unwrap_or(1))
    }
}
