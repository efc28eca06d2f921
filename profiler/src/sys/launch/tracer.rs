//! The two threads behind a [`Launch`](super::Launch).
//!
//! The *tracer* makes the process and answers its stops; all ptrace requests are its, as the kernel demands. The
//! *watch* waits for the process and only wakes the tracer, so that the tracer can be told to let go at any time. To let
//! go, the tracer thread simply ends: the kernel then detaches what it traced, and unlike PTRACE_DETACH this needs no
//! stop, which would make the program's `epoll_wait` and others fail with EINTR. A stop that the watch has seen but the
//! tracer not taken keeps its signal, and the kernel delivers it.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use rustix::{
    io::retry_on_intr,
    process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid},
};

use super::{
    Answer, Event, LaunchError, Stopped,
    bell::EventSender,
    child::{Child, Program},
    loader::{Loader, Progress},
    ptrace::{Resume, Stop, SystemCall, Tracee},
    takeover::Takeover,
};

/// What the tracer can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Notice {
    /// By the watch: the process stands still.
    Stopped,
    /// By the user, or by the watch at the end: trace no longer.
    LetGo,
}

/// How far the program is.
enum Phase {
    /// The child has not executed the program.
    Forked,
    /// The dynamic loader is at work.
    Loading(Loader),
    /// The program runs.
    Free,
}

struct Tracer {
    tracee: Tracee,
    phase: Phase,
    /// A thread other than the main one executes a program, and has not come to a stop yet.
    takeover: Option<Takeover>,
    events: EventSender,
}

/// The body of the tracer thread. `start` receives the child as soon as it executes the program, or why there is none.
pub(super) fn trace(
    program: &Program,
    start: &Sender<Result<Child, LaunchError>>,
    alarm: Sender<Notice>,
    inbox: &Receiver<Notice>,
    events: EventSender,
) {
    let mut child = match program.fork() {
        Ok(child) => child,
        Err(error) => return drop(start.send(Err(error))),
    };
    let pid = child.pid;
    let (taken, may_watch) = mpsc::channel();
    let watcher_events = events.clone();
    let started = Tracee::seize(pid)
        .map_err(|errno| LaunchError::TracingRefused { source: errno.into() })
        .and_then(|tracee| {
            thread::Builder::new()
                .name("launch-watch".into())
                .spawn(move || watch(pid, &alarm, &may_watch, &watcher_events))
                .map(|_| tracee)
                .map_err(|source| LaunchError::System { action: "start a thread", source })
        });
    let tracee = match started {
        Ok(tracee) => tracee,
        Err(error) => {
            // The gate closes with it, and the child ends without having been a program.
            drop(child);
            let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED));
            return drop(start.send(Err(error)));
        }
    };
    child.release();
    let _ = start.send(Ok(child));
    let mut tracer = Tracer { tracee, phase: Phase::Forked, takeover: None, events };
    for notice in inbox {
        if notice == Notice::LetGo {
            return;
        }
        if let Some(stop) = tracee.take_stop() {
            tracer.handle(stop);
        }
        let _ = taken.send(());
    }
}

/// The body of the watch thread: tells stops to the tracer, one at a time, and the end to everybody.
fn watch(pid: Pid, alarm: &Sender<Notice>, taken: &Receiver<()>, events: &EventSender) {
    let wait = |options| retry_on_intr(|| waitid(WaitId::Pid(pid), options)).ok().flatten();
    let mut traced = true;
    loop {
        let stops = if traced { WaitIdOptions::STOPPED } else { WaitIdOptions::empty() };
        let Some(status) = wait(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | stops) else { break };
        if let Some(end) = end_of(&status) {
            wait(WaitIdOptions::EXITED);
            // Without a receiver nobody wants to know.
            let _ = events.send(end);
            break;
        }
        traced = alarm.send(Notice::Stopped).is_ok() && taken.recv().is_ok();
    }
    let _ = alarm.send(Notice::LetGo);
}

fn end_of(status: &WaitIdStatus) -> Option<Event> {
    status.exit_status().map(Event::Exited).or_else(|| status.terminating_signal().map(Event::Killed))
}

impl Tracer {
    fn handle(&mut self, stop: Stop) {
        if matches!(stop, Stop::Exec | Stop::Group | Stop::Trap)
            && let Some(takeover) = self.takeover.take()
        {
            takeover.finish();
            return self.enter_program();
        }
        match stop {
            Stop::Exec => self.enter_program(),
            Stop::Ending => self.leave(),
            Stop::SystemCall => self.follow_loader(),
            Stop::Group => self.tracee.resume(Resume::Listening, 0),
            Stop::Trap => self.resume(0),
            Stop::Signal(signal) => self.resume(signal),
        }
    }

    fn resume(&self, signal: i32) {
        let how = if matches!(self.phase, Phase::Loading(_)) { Resume::ToSystemCall } else { Resume::Freely };
        self.tracee.resume(how, signal);
    }

    /// Tells an event and waits for the answer; that nobody is there to answer means to go on.
    fn report(&self, event: fn(Stopped) -> Event) -> Answer {
        let (answer, answered) = mpsc::channel();
        let _ = self.events.send(event(Stopped { answer }));
        answered.recv().unwrap_or(Answer::Resume)
    }

    fn enter_program(&mut self) {
        let answer = self.report(Event::Exec);
        let pid = self.tracee.0.as_raw_nonzero().get().unsigned_abs();
        match Loader::of(pid) {
            Some(loader) if answer == Answer::Resume => self.phase = Phase::Loading(loader),
            _ => self.set_free(),
        }
        self.resume(0);
    }

    fn follow_loader(&mut self) {
        let progress = match (&mut self.phase, self.tracee.system_call()) {
            (Phase::Loading(loader), Some(SystemCall::Entry { instruction, number, arguments })) => {
                loader.call_begins(instruction, number, &arguments)
            }
            (Phase::Loading(loader), Some(SystemCall::Exit { failed })) => loader.call_ended(failed),
            _ => Progress::Nothing,
        };
        let done = match progress {
            Progress::Nothing => false,
            Progress::CodeMapped => self.report(Event::Loading) == Answer::FinishLoading,
            Progress::Done => true,
        };
        if done {
            self.set_free();
        }
        self.resume(0);
    }

    fn set_free(&mut self) {
        self.report(Event::Running);
        self.phase = Phase::Free;
    }

    fn leave(&mut self) {
        if matches!(self.phase, Phase::Forked) {
            return self.resume(0);
        }
        self.report(Event::Ending);
        self.phase = Phase::Free;
        let takeover = Takeover::begin(self.tracee.0);
        self.resume(0);
        self.takeover = takeover.and_then(Takeover::seize);
    }
}
