//! A uprobe by perf_event_open(2) with which the kernel raises a counter in the target: that of the listeners of a USDT
//! probe. aya has no words for it.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
};

use perf_event_open_sys::{
    bindings::{PERF_FLAG_FD_CLOEXEC, perf_event_attr},
    perf_event_open,
};

use super::bpf;

/// The number of the kernel's kind of event, which is another on each machine.
const EVENT_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";
/// Where the counter's place stands in `config` (`PERF_UPROBE_REF_CTR_OFFSET_SHIFT` of kernel/events/core.c).
const COUNTER_SHIFT: u32 = 32;

/// Such a probe.
#[derive(Clone, Copy, Debug)]
pub struct CountedUprobe<'a> {
    /// The file, as this process can open it.
    pub path: &'a CStr,
    /// Offset of the instruction in the file, in bytes.
    pub offset: u64,
    /// Offset of the counter's place in the file.
    pub counter: u64,
    /// What the program is told.
    pub cookie: u64,
    /// The process to watch.
    pub pid: u32,
}

/// Attaches a program. The probe goes, and the counter is as it was, when the descriptor is closed, by whatever cause.
///
/// # Errors
/// What perf_event_open(2) and bpf(2) answer: EINVAL where another tracer is at the same instruction and has not raised the
/// counter; and a counter that lies beyond 4 GiB, for which the kernel has no room.
pub fn attach(program: BorrowedFd<'_>, probe: &CountedUprobe<'_>) -> io::Result<OwnedFd> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let counter = u32::try_from(probe.counter).map_err(invalid)?;
    let pid = i32::try_from(probe.pid).map_err(invalid)?;
    let event_type = fs::read_to_string(EVENT_TYPE)?;
    let mut attributes = perf_event_attr::default();
    attributes.size = u32::try_from(size_of::<perf_event_attr>()).map_err(invalid)?;
    attributes.type_ = event_type.trim().parse().map_err(io::Error::other)?;
    attributes.config = u64::from(counter) << COUNTER_SHIFT;
    attributes.config1 = probe.path.as_ptr() as u64;
    attributes.config2 = probe.offset;
    // On one thread, as the event sees it; the program behind it runs for all that share its memory.
    // SAFETY: the attributes and the path in them live until the call returns, and it writes into neither.
    let event = unsafe { perf_event_open(&raw mut attributes, pid, -1, -1, PERF_FLAG_FD_CLOEXEC.into()) };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just given to nobody but us.
    let event = unsafe { OwnedFd::from_raw_fd(event) };
    // The link keeps the event.
    bpf::link_perf_event(program, event.as_fd(), probe.cookie)
}
