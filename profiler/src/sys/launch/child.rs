//! The new process between fork and exec: it waits at a gate until it is traced, then executes the program.
//!
//! `std::process::Command` does not fit: it waits for the child by itself when the exec fails, and would meet a traced
//! one's stops there.

use std::{
    ffi::{CString, OsStr, OsString},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::PathBuf,
    ptr,
};

use rustix::process::Pid;

use super::LaunchError;

/// A command and its environment in the form that execvpe(3) takes, made before the fork because nothing may be allocated after it.
pub(super) struct Program {
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// The child, seen from us.
pub(super) struct Child {
    pub(super) pid: Pid,
    gate: UnixStream,
}

impl Program {
    /// The command with our environment, in which `variables` have these values.
    pub(super) fn new(command: &[OsString], variables: &[(&str, &str)]) -> Result<Self, LaunchError> {
        if command.is_empty() {
            return Err(LaunchError::NoCommand);
        }
        let c_string =
            |text: &OsStr| CString::new(text.as_bytes()).map_err(|_| LaunchError::NulByte(text.to_owned()));
        let arguments = command.iter().map(|argument| c_string(argument)).collect::<Result<_, _>>()?;
        let inherited = std::env::vars_os().filter(|(name, _)| !variables.iter().any(|(new, _)| name == new));
        let new = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let environment = inherited
            .chain(new)
            .map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                c_string(&name)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { arguments, environment })
    }

    /// The program as the user named it.
    pub(super) fn path(&self) -> PathBuf {
        self.arguments.first().map(|name| OsStr::from_bytes(name.as_bytes()).into()).unwrap_or_default()
    }

    /// Makes the process, which waits for [`Child::release`]. If that never comes, because we fail or die, it ends.
    pub(super) fn fork(&self) -> Result<Child, LaunchError> {
        let (ours, theirs) =
            UnixStream::pair().map_err(|source| LaunchError::System { action: "make a socket", source })?;
        let pointers = |texts: &[CString]| {
            texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        // SAFETY: the child calls nothing but `execute`, which keeps to async-signal-safe functions, as a child of a
        // process with several threads has to.
        match unsafe { libc::fork() } {
            // SAFETY: both are NULL-terminated arrays of C strings that `self` keeps alive; the descriptors are the
            // child's copies, which nobody else uses.
            0 => unsafe { execute(&arguments, &environment, ours.as_raw_fd(), theirs.as_raw_fd()) },
            pid => match Pid::from_raw(pid).filter(|_| pid > 0) {
                Some(pid) => Ok(Child { pid, gate: ours }),
                None => {
                    Err(LaunchError::System { action: "start a process", source: io::Error::last_os_error() })
                }
            },
        }
    }
}

impl Child {
    /// Lets the child execute the program.
    pub(super) fn release(&mut self) {
        // It fails only when the child was killed meanwhile, which waiting for it shows.
        let _ = self.gate.write_all(&[1]);
    }

    /// Waits until the program is executed. `Some` is the reason why it was not; the child then ends by itself.
    pub(super) fn exec_error(self) -> Option<io::Error> {
        let mut errno = Vec::new();
        // Success closes the child's end, which is close-on-exec, without a word.
        self.gate.take(4).read_to_end(&mut errno).ok()?;
        Some(io::Error::from_raw_os_error(i32::from_ne_bytes(errno.try_into().ok()?)))
    }
}

/// The child's life up to the exec.
///
/// # Safety
/// Only for a forked child; `arguments` and `environment` must be C strings and NULL at the end.
unsafe fn execute(
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
    parents_end: RawFd,
    gate: RawFd,
) -> ! {
    let mut byte = 0u8;
    // SAFETY: all functions are async-signal-safe (signal-safety(7); glibc's execvpe allocates on the stack only); the
    // pointers are to locals of the size given, or as the caller vouches.
    unsafe {
        // Our copy of the parent's end would keep the gate from closing when the parent dies.
        libc::close(parents_end);
        // The Rust runtime ignores SIGPIPE, and an ignored signal would stay so through the exec; our signal mask and
        // that of the thread which forked are nobody's business either. Caught signals become default by themselves.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        let opened = loop {
            match libc::read(gate, (&raw mut byte).cast(), 1) {
                -1 if *libc::__errno_location() == libc::EINTR => {}
                count => break count == 1,
            }
        };
        if opened && let Some(program) = arguments.first() {
            libc::execvpe(*program, arguments.as_ptr(), environment.as_ptr());
            let errno = (*libc::__errno_location()).to_ne_bytes();
            libc::write(gate, errno.as_ptr().cast(), errno.len());
        }
        libc::_exit(127)
    }
}
