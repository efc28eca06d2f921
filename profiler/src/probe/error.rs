//! What can go wrong between us and the kernel, each with its remedy.

use std::io;

use super::AttachMethod;
use crate::sys::bpf::LoadError;

/// A probe could not be loaded, attached or read.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel will not load BPF programs for us.
    #[error("this process may not load BPF programs: {reason}. {remedy}")]
    NotPermitted {
        /// What is missing.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The kernel is too old for what heapscope needs.
    #[error(
        "kernel {release} is too old: heapscope needs 5.15 or later. Run it on a newer kernel, or use heaptrack there"
    )]
    KernelTooOld {
        /// What uname(2) says.
        release: String,
    },
    /// The kernel is too old for a program behind page faults that takes memory as it needs it.
    #[error(
        "kernel {release} is too old for --mode growth, which needs 6.1 or later. Leave it out to watch blocks"
    )]
    NoGrowth {
        /// What uname(2) says.
        release: String,
    },
    /// The user asked for a way to attach that this kernel does not have.
    #[error("this kernel cannot attach probes by `{}`: {source}. Leave out --probes and let heapscope choose", method.label())]
    MethodUnavailable {
        /// The way asked for.
        method: AttachMethod,
        /// What the kernel said.
        source: Box<ProbeError>,
    },
    /// The object that is built into this program could not be taken apart: a bug of ours.
    #[error("the BPF object inside this program is damaged: {0}. Please report this as a bug")]
    Object(String),
    /// The verifier or the loader refused a program.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// The kernel refused a map, or a map operation.
    #[error("the BPF map {name} failed: {source}. If memory is short, lower --max-memory")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A probe could not be placed.
    #[error("a probe could not be placed: {source}. {}", attach_remedy(source))]
    Attach {
        /// What the kernel said.
        source: io::Error,
    },
}

fn attach_remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ESRCH) => "The process has ended meanwhile",
        Some(libc::EPERM | libc::EACCES) => "Run it with sudo; probes by perf need CAP_SYS_ADMIN",
        Some(libc::EINVAL) => "Another tracer may hold the same place with a reference counter: end it first",
        Some(libc::EMFILE | libc::ENFILE) => "Raise the limit of open files (ulimit -n)",
        _ => "Try --probes multi or --probes perf",
    }
}
