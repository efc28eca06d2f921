//! An exec by a thread other than the main one, which is not traced: Go's `syscall.Exec`, for instance, in wrappers.
//!
//! Such a thread ends all others, the main one last, waits for that and takes over its process id (`de_thread`,
//! fs/exec.c); it cannot be traced in between, because PTRACE_SEIZE takes the lock (`cred_guard_mutex`) that an exec
//! holds from its beginning until the old program is gone. It can be made to wait, though: a SIGSTOP sent while the main
//! thread stands at its end takes effect when the exec is done, before the new program's first instruction.
//!
//! The alternative, to trace every thread from its birth, would stop the program at each, and at each signal to each.

use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};

use super::ptrace::Tracee;

/// How often a thread that runs is looked at again before it is taken for one that does not execute a program: one that
/// does sleeps as soon as it has told the others to end.
const LOOKS: u32 = 1000;

/// An exec under way, its process stopped as soon as it is done.
pub(super) struct Takeover(Pid);

impl Takeover {
    /// To be called while the main thread of `pid` is held at its end. `None` when it ends for another reason.
    pub(super) fn begin(pid: Pid) -> Option<Self> {
        (is_executing(pid) && kill_process(pid, Signal::STOP).is_ok()).then_some(Self(pid))
    }

    /// Traces the process again, after the main thread was resumed to its end. If it does, the next stop is at the exec
    /// or at the first instruction, and [`Self::finish`] is due there.
    pub(super) fn seize(self) -> Option<Self> {
        // The first request waits for the lock and then fails, on the old main thread; the second finds the new one.
        if (0..2).any(|_| Tracee::seize(self.0).is_ok()) {
            return Some(self);
        }
        self.finish();
        None
    }

    /// Takes the stop back, whether it took effect already or not.
    pub(super) fn finish(self) {
        // It fails only when the process has ended.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Whether a thread other than the main one is in an exec, by /proc/PID/task/TID/syscall (proc(5)): the number of the
/// system call in which it sleeps, or `running`.
fn is_executing(pid: Pid) -> bool {
    let main = pid.as_raw_nonzero().to_string();
    let is_exec = |line: &str| {
        let number = line.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
        number.is_some_and(|number| [libc::SYS_execve, libc::SYS_execveat].contains(&number))
    };
    for _ in 0..LOOKS {
        let Ok(tasks) = fs::read_dir(format!("/proc/{main}/task")) else { return false };
        let mut others = tasks
            .flatten()
            .filter(|task| task.file_name() != *main)
            .filter_map(|task| fs::read_to_string(task.path().join("syscall")).ok())
            .filter(|line| is_exec(line) || line.starts_with("running"))
            .peekable();
        if others.peek().is_none() {
            return false;
        }
        if others.any(|line| is_exec(&line)) {
            return true;
        }
        thread::yield_now();
    }
    false
}
