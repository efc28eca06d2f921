//! Starts a program under observation from its first instruction: `heapscope run -- CMD ARGS…`.
//!
//! An allocation can only be seen by a probe that was placed before it. So the program is held at the moments when
//! there is something new to probe, and the caller acts while it is held:
//!
//! ```text
//! Exec      a program was executed; only it and its dynamic loader are mapped
//! Loading   the loader mapped code: perhaps an allocator, and nothing of it has run yet
//! Running   the loader has done its work; from here on the program runs free
//! Exec      … it executed another program (`sh -c 'exec python3'`), and all begins again
//! Ending    the main thread leaves; its memory can be read for the last time
//! Exited    the end
//! ```
//!
//! Why `Loading` comes early enough: a loader maps all libraries, then relocates them, and only then calls into one.
//! Why it costs nothing later: system calls are watched during the loader's work only. While the program runs free the
//! tracing shows itself at execs, at the end, and as a detour of some microseconds for signals to the main thread;
//! other threads and child processes are not traced at all.
//!
//! The program keeps the standard streams, the process group, the environment and the working directory, gets none of
//! our file descriptors that are close-on-exec (Rust's all are), and starts with an empty signal mask and SIGPIPE at
//! its default. Signals that were ignored when heapscope was started stay ignored, as `nohup` needs it; so whoever
//! wants to outlive a Ctrl-C must catch SIGINT, not ignore it, or else the program would inherit that.
//!
//! When heapscope dies, whatever the cause, the kernel lets the program go on.
//!
//! Limits: code that is loaded later (`dlopen`) gives no event; a 32-bit program and `ld.so PROGRAM` get no `Loading`;
//! an exec by a thread after the main thread has left by `pthread_exit` is not reported; with LD_AUDIT, `Running` comes
//! when the audit library makes its first system call, before the program's own libraries are mapped.

mod bell;
mod child;
mod loader;
mod privileges;
mod ptrace;
mod takeover;
mod tracer;

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

pub use privileges::WithheldPrivileges;

use bell::Bell;
use child::Program;
use tracer::Notice;

/// Why a program could not be started. A shell exits with 127 for [`LaunchError::NotFound`] and with 126 for
/// [`LaunchError::NotExecutable`].
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The command is empty.
    #[error("no command to run: write it behind `--`, as in `heapscope run -- python3 app.py`")]
    NoCommand,
    /// The kernel takes arguments as C strings.
    #[error("the argument {0:?} contains a NUL byte, which no program can be given")]
    NulByte(OsString),
    /// ENOENT or ENOTDIR from execve(2).
    #[error(
        "{}: command not found: not in PATH or, for a path, no such file, or the interpreter that it names (`#!` line, \
         dynamic loader) does not exist", program.display()
    )]
    NotFound {
        /// As given by the user.
        program: PathBuf,
    },
    /// Any other error from execve(2), such as EACCES.
    #[error("{}: cannot be executed: {source}", program.display())]
    NotExecutable {
        /// As given by the user.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// PTRACE_SEIZE of our own child was refused.
    #[error(
        "not permitted to trace a program of our own ({source}): a seccomp profile (a container's, for instance) or \
         kernel.yama.ptrace_scope=2 or 3 forbids ptrace; allow CAP_SYS_PTRACE, or start the program by itself and use \
         `heapscope attach`"
    )]
    TracingRefused {
        /// What the kernel said.
        source: io::Error,
    },
    /// No process, thread or socket could be had.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What became of the program. Those with a [`Stopped`] hold it until that is answered or dropped.
#[derive(Debug)]
pub enum Event {
    /// A program was executed and has not run an instruction. The memory of the one before, probes included, is gone.
    Exec(Stopped),
    /// The dynamic loader mapped executable memory. A library may not be relocated yet: read the file, not the memory.
    Loading(Stopped),
    /// The libraries are all there and, with glibc, no constructor has run. Comes right after [`Event::Exec`] when
    /// there is no loader.
    Running(Stopped),
    /// The main thread leaves: the process ends or a thread other than the main one executes a program, in which case
    /// [`Event::Exec`] follows. What is in its memory can be read for the last time. No thread of it may be ptrace-d
    /// now: an exec under way would wait for the one and the kernel for the other.
    Ending(Stopped),
    /// It ended by itself with this status. The pid is free for others from now on.
    Exited(i32),
    /// A signal of this number ended it. The pid is free for others from now on.
    Killed(i32),
}

/// The program stands still. To drop this is to resume the program, so that no early return leaves it frozen.
#[derive(Debug)]
#[must_use = "the program goes on when this is dropped"]
pub struct Stopped {
    answer: Sender<Answer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Resume,
    FinishLoading,
}

impl Stopped {
    /// Lets the program go on to the next event.
    pub fn resume(self) {
        self.answer_with(Answer::Resume);
    }

    /// Lets the program go on and spares it further [`Event::Loading`]: all that is wanted is there already, as in a
    /// musl program, whose loader is its C library. [`Event::Running`] follows at once. Elsewhere as [`Self::resume`].
    pub fn finish_loading(self) {
        self.answer_with(Answer::FinishLoading);
    }

    fn answer_with(self, answer: Answer) {
        // The tracer waits for this answer, so it can only be gone when the whole process is about to end.
        let _ = self.answer.send(answer);
    }
}

/// A program that was started and is followed to its end. Dropping this lets it go, as [`Launch::detach`] does.
#[derive(Debug)]
pub struct Launch {
    pid: u32,
    events: Receiver<Event>,
    bell: Bell,
    tracer: Sender<Notice>,
}

impl Launch {
    /// Starts `command`, its program looked for in PATH, with our environment, in which `variables` have these values, and
    /// returns when it is executed; [`Event::Exec`] is then the first event.
    ///
    /// # Errors
    /// [`LaunchError`]; no process is left behind.
    pub fn spawn(command: &[OsString], variables: &[(&str, &str)]) -> Result<Self, LaunchError> {
        let program = Program::new(command, variables)?;
        let path = program.path();
        let (event_sender, events) = mpsc::channel();
        let no_bell = |source| LaunchError::System { action: "make an event descriptor", source };
        let bell = Bell::new().map_err(no_bell)?;
        let event_sender = bell.rung_by(event_sender);
        let (tracer, inbox) = mpsc::channel();
        let (start_sender, start) = mpsc::channel();
        let alarm = tracer.clone();
        // ptrace binds the traced program to one thread of the tracer, so a thread of its own.
        thread::Builder::new()
            .name("launch-tracer".into())
            .spawn(move || tracer::trace(&program, &start_sender, alarm, &inbox, event_sender))
            .map_err(|source| LaunchError::System { action: "start a thread", source })?;
        let gone =
            |_| LaunchError::System { action: "start a thread", source: io::ErrorKind::BrokenPipe.into() };
        let child = start.recv().map_err(gone)??;
        let launch = Self { pid: child.pid.as_raw_nonzero().get().unsigned_abs(), events, bell, tracer };
        match child.exec_error() {
            None => Ok(launch),
            Some(source) => {
                // The channel closes when the failed child was waited for.
                launch.events.iter().for_each(drop);
                Err(match source.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        LaunchError::NotFound { program: path }
                    }
                    _ => LaunchError::NotExecutable { program: path, source },
                })
            }
        }
    }

    /// The process id of the program, which execs do not change.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What happens to the program, in order. The channel closes after [`Event::Exited`] or [`Event::Killed`], or
    /// without them if our own process was started with SIGCHLD ignored, as the kernel then keeps no exit status of a
    /// program that was let go.
    #[must_use]
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// The next event if there is one already; else the descriptor becomes readable when one comes or the channel closes.
    ///
    /// # Errors
    /// [`mpsc::TryRecvError`].
    pub fn next_event(&self) -> Result<Event, mpsc::TryRecvError> {
        self.bell.silence();
        self.events.try_recv()
    }

    /// Ends the tracing: the program runs on by itself, its system calls not interrupted. Where it is held by a
    /// [`Stopped`], that must be answered or dropped first. [`Event::Exited`] and [`Event::Killed`] still come; others
    /// may, if they were under way.
    pub fn detach(&self) {
        // It fails when the program has ended: then there is nothing to let go.
        let _ = self.tracer.send(Notice::LetGo);
    }

    /// Whether the kernel withheld the rights of a set-user-ID or set-group-ID program, because it is traced by
    /// someone who has not the right to trace everybody. To be asked at [`Event::Exec`].
    #[must_use]
    pub fn withheld_privileges(&self) -> Option<WithheldPrivileges> {
        privileges::withheld(self.pid)
    }
}

/// The descriptor to wait on before [`Launch::next_event`].
impl AsFd for Launch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        self.detach();
    }
}
