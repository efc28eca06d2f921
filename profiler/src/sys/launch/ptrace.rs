//! ptrace(2) as the launcher needs it: signals as plain numbers, because real-time signals have no name in `nix`, and
//! stops told apart by what has to be done about them.

use std::ptr;

use nix::sys::ptrace::{self, Options};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// `PTRACE_EVENT_STOP`, include/uapi/linux/ptrace.h; the libc crate has it for uClibc only.
const EVENT_STOP: i32 = 128;
/// What PTRACE_O_TRACESYSGOOD adds to SIGTRAP.
const SYSTEM_CALL_MARK: i32 = 0x80;

/// Why a traced program stands still: the status of waitid(2), decoded as ptrace(2) describes for PTRACE_SEIZE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// A new program was executed.
    Exec,
    /// The traced thread is about to end.
    Ending,
    /// On the way into or out of a system call.
    SystemCall,
    /// A stop signal took effect (SIGSTOP, Ctrl-Z); SIGCONT will end it.
    Group,
    /// SIGCONT has ended a group stop.
    Trap,
    /// A signal is to be delivered.
    Signal(i32),
}

impl Stop {
    /// `status` is the signal in the low byte and the ptrace event above it.
    fn decode(status: i32) -> Self {
        let signal = status & 0xff;
        match status >> 8 {
            libc::PTRACE_EVENT_EXEC => Self::Exec,
            libc::PTRACE_EVENT_EXIT => Self::Ending,
            EVENT_STOP if signal == libc::SIGTRAP => Self::Trap,
            EVENT_STOP => Self::Group,
            _ if signal == libc::SIGTRAP | SYSTEM_CALL_MARK => Self::SystemCall,
            _ => Self::Signal(signal),
        }
    }
}

/// One side of a system call, from PTRACE_GET_SYSCALL_INFO (Linux 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SystemCall {
    /// Before it is carried out.
    Entry {
        /// Address behind the instruction that made it.
        instruction: u64,
        /// As in `SYS_*`.
        number: u64,
        arguments: [u64; 6],
    },
    /// After it.
    Exit { failed: bool },
}

/// How a program goes on after a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resume {
    /// To the next event or signal.
    Freely,
    /// To the next side of a system call, event or signal.
    ToSystemCall,
    /// Not at all: in a group stop, where only SIGCONT or SIGKILL end it.
    Listening,
}

/// A process of which this thread traces the main thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracee(pub(super) Pid);

impl Tracee {
    /// Begins to trace, without stopping it. PTRACE_O_EXITKILL is not among the options: a program outlives its
    /// profiler.
    pub(super) fn seize(pid: Pid) -> nix::Result<Self> {
        let options =
            Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXIT;
        ptrace::seize(nix_pid(pid), options)?;
        Ok(Self(pid))
    }

    /// The stop in which the program is; `None` when it is in none, for instance because SIGKILL ended it.
    pub(super) fn take_stop(self) -> Option<Stop> {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(self.0), options).ok().flatten()?;
        status.trapping_signal().map(Stop::decode)
    }

    /// Ends a stop, and delivers `signal` (0 is none). It fails only when SIGKILL was faster, which the next wait
    /// shows.
    pub(super) fn resume(self, how: Resume, signal: i32) {
        let request = match how {
            Resume::Freely => libc::PTRACE_CONT,
            Resume::ToSystemCall => libc::PTRACE_SYSCALL,
            Resume::Listening => libc::PTRACE_LISTEN,
        };
        // SAFETY: none of these requests reads or writes our memory; the last argument is a number.
        unsafe {
            libc::ptrace(
                request,
                self.0.as_raw_nonzero().get(),
                ptr::null_mut::<libc::c_void>(),
                libc::c_long::from(signal),
            );
        }
    }

    /// The system call at whose side the program stands; `None` when it is gone.
    pub(super) fn system_call(self) -> Option<SystemCall> {
        let info = ptrace::syscall_info(nix_pid(self.0)).ok()?;
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                // SAFETY: `op` says which member of the union the kernel has written.
                let entry = unsafe { info.u.entry };
                Some(SystemCall::Entry {
                    instruction: info.instruction_pointer,
                    number: entry.nr,
                    arguments: entry.args,
                })
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                // SAFETY: as above.
                let exit = unsafe { info.u.exit };
                Some(SystemCall::Exit { failed: exit.is_error != 0 })
            }
            _ => None,
        }
    }
}

fn nix_pid(pid: Pid) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_told_apart() {
        for (status, stop) in [
            (libc::SIGTRAP | (libc::PTRACE_EVENT_EXEC << 8), Stop::Exec),
            (libc::SIGTRAP | (libc::PTRACE_EVENT_EXIT << 8), Stop::Ending),
            (libc::SIGTRAP | (EVENT_STOP << 8), Stop::Trap),
            (libc::SIGTSTP | (EVENT_STOP << 8), Stop::Group),
            (libc::SIGTRAP | SYSTEM_CALL_MARK, Stop::SystemCall),
            (libc::SIGTRAP, Stop::Signal(libc::SIGTRAP)),
            (libc::SIGSTOP, Stop::Signal(libc::SIGSTOP)),
            (64, Stop::Signal(64)),
        ] {
            assert_eq!(Stop::decode(status), stop, "status {status:#x}");
        }
    }
}
