//! bpf(2), where aya 0.14 has no words for it: programs with an expected attach type, uprobe_multi links, batches.
//!
//! The argument structs are the parts of `union bpf_attr` in use, as include/uapi/linux/bpf.h lays them out; the kernel
//! takes a shorter one and reads the rest as zero.

use std::{
    ffi::{CStr, c_long},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use bytemuck::{NoUninit, Zeroable};

mod batches;
pub mod map;

mod command {
    pub(super) const MAP_CREATE: i64 = 0;
    pub(super) const MAP_LOOKUP_ELEM: i64 = 1;
    pub(super) const MAP_UPDATE_ELEM: i64 = 2;
    pub(super) const MAP_DELETE_ELEM: i64 = 3;
    pub(super) const PROG_LOAD: i64 = 5;
    pub(super) const OBJ_GET_INFO_BY_FD: i64 = 15;
    pub(super) const BTF_LOAD: i64 = 18;
    pub(super) const MAP_LOOKUP_BATCH: i64 = 24;
    pub(super) const MAP_UPDATE_BATCH: i64 = 26;
    pub(super) const LINK_CREATE: i64 = 28;
    pub(super) const ENABLE_STATS: i64 = 32;
}

/// `enum bpf_attach_type`: a program behind a perf event (kernel 5.15).
const ATTACH_PERF_EVENT: u32 = 41;
/// `enum bpf_attach_type`: one link for many uprobes (kernel 6.6).
pub const ATTACH_UPROBE_MULTI: u32 = 48;
/// `enum bpf_attach_type`: the same, with one run at the entry and one at the return (kernel 6.13).
pub const ATTACH_UPROBE_SESSION: u32 = 57;
/// `BPF_PROG_TYPE_KPROBE`, which uprobes are too.
pub const PROGRAM_TYPE_KPROBE: u32 = 2;
/// `BPF_PROG_TYPE_PERF_EVENT`.
pub const PROGRAM_TYPE_PERF_EVENT: u32 = 7;
/// `BPF_F_UPROBE_MULTI_RETURN`: run at the return only.
const MULTI_RETURN: u32 = 1;

/// A program to load.
#[derive(Clone, Copy, Debug)]
pub struct ProgramLoad<'a> {
    /// Its name, cut at 15 bytes by the kernel's limit.
    pub name: &'a str,
    /// Its instructions, 8 bytes each.
    pub instructions: &'a [u8],
    /// Its licence.
    pub license: &'a CStr,
    /// [`PROGRAM_TYPE_KPROBE`] or [`PROGRAM_TYPE_PERF_EVENT`].
    pub program_type: u32,
    /// [`ATTACH_UPROBE_MULTI`], [`ATTACH_UPROBE_SESSION`] or 0.
    pub attach_type: u32,
    /// Its types, without which global functions and source lines in verifier messages do not work.
    pub btf: BorrowedFd<'a>,
    /// `struct bpf_func_info` records and the size of one.
    pub func_info: (&'a [u8], u32),
    /// `struct bpf_line_info` records and the size of one.
    pub line_info: (&'a [u8], u32),
}

/// The kernel refused a program.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused the BPF program `{name}`: {source}{}", tail(log))]
pub struct LoadError {
    /// The program's name.
    pub name: String,
    /// What the system call answered.
    pub source: io::Error,
    /// What the verifier said, if anything.
    pub log: String,
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(12).collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
}

/// Asks the kernel; the answer is a file descriptor, a number or an error.
fn call<T: NoUninit>(command: i64, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: the kernel reads and writes within the size given. Pointers inside point to memory that the caller of
    // this function keeps borrowed for the duration of the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Asks for a file descriptor.
fn call_for_fd<T: NoUninit>(command: i64, attributes: &mut T) -> io::Result<OwnedFd> {
    let answer = call(command, attributes)?;
    let fd = i32::try_from(answer).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn address_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr() as u64
}

fn length<T>(slice: &[T]) -> io::Result<u32> {
    u32::try_from(slice.len()).map_err(io::Error::other)
}

/// Loads type information.
///
/// # Errors
/// What bpf(2) answers to `BPF_BTF_LOAD`.
pub fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, NoUninit)]
    struct Attributes {
        btf: u64,
        log_buf: u64,
        btf_size: u32,
        log_size: u32,
        log_level: u32,
        padding: u32,
    }
    let mut attributes = Attributes::zeroed();
    attributes.btf = address(bytes);
    attributes.btf_size = length(bytes)?;
    call_for_fd(command::BTF_LOAD, &mut attributes)
}

/// How often a program is handed in again whose verification a signal has interrupted: as often as libbpf does.
const ATTEMPTS: usize = 5;

/// Loads a uprobe program. The verifier's log is asked for only after a refusal, because it costs time. The verifier gives
/// up with EAGAIN when a signal comes (`do_check` of kernel/bpf/verifier.c), which says nothing of the program.
///
/// # Errors
/// The kernel's answer with the end of the verifier's log.
pub fn load_program(program: &ProgramLoad<'_>) -> Result<OwnedFd, LoadError> {
    let mut log = Vec::new();
    let mut answers = (0..ATTEMPTS).map(|_| try_load(program, &mut log));
    let is_final = |answer: &io::Result<_>| {
        answer.as_ref().err().is_none_or(|error| error.kind() != io::ErrorKind::WouldBlock)
    };
    let failed = match answers.find(is_final).unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into())) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    log.resize(1 << 20, 0);
    let source = match try_load(program, &mut log) {
        Ok(fd) => return Ok(fd),
        // Without rights there is no log either; the first answer tells more than "no space for a log".
        Err(_) => failed,
    };
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let log = String::from_utf8_lossy(log.get(..end).unwrap_or_default()).into_owned();
    Err(LoadError { name: program.name.to_owned(), source, log })
}

fn try_load(program: &ProgramLoad<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, NoUninit)]
    struct Attributes {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
        prog_btf_fd: u32,
        func_info_rec_size: u32,
        func_info: u64,
        func_info_cnt: u32,
        line_info_rec_size: u32,
        line_info: u64,
        line_info_cnt: u32,
        attach_btf_id: u32,
    }
    let mut attributes = Attributes::zeroed();
    attributes.prog_type = program.program_type;
    attributes.insn_cnt = length(program.instructions)? / 8;
    attributes.insns = address(program.instructions);
    attributes.license = program.license.as_ptr() as u64;
    if !log.is_empty() {
        attributes.log_level = 1;
        attributes.log_size = length(log)?;
        attributes.log_buf = address_mut(log);
    }
    for (to, from) in attributes.prog_name.iter_mut().take(15).zip(program.name.bytes()) {
        *to = from;
    }
    attributes.expected_attach_type = program.attach_type;
    attributes.prog_btf_fd = raw(program.btf);
    attributes.func_info = address(program.func_info.0);
    attributes.func_info_rec_size = program.func_info.1;
    attributes.func_info_cnt = records(program.func_info)?;
    attributes.line_info = address(program.line_info.0);
    attributes.line_info_rec_size = program.line_info.1;
    attributes.line_info_cnt = records(program.line_info)?;
    call_for_fd(command::PROG_LOAD, &mut attributes)
}

fn records((bytes, size): (&[u8], u32)) -> io::Result<u32> {
    Ok(length(bytes)?.checked_div(size).unwrap_or(0))
}

/// A link of one program to many places in one file.
#[derive(Clone, Copy, Debug)]
pub struct MultiLink<'a> {
    /// [`ATTACH_UPROBE_MULTI`] or [`ATTACH_UPROBE_SESSION`].
    pub attach_type: u32,
    /// The file, as this process can open it.
    pub path: &'a CStr,
    /// Offsets in the file, in bytes.
    pub offsets: &'a [u64],
    /// One cookie for each offset.
    pub cookies: &'a [u64],
    /// For each offset the place in the file of a counter that the kernel raises while the probe is there, or 0; empty where
    /// there are none.
    pub counters: &'a [u64],
    /// Whether to run at the functions' returns instead.
    pub at_return: bool,
    /// The process to watch; the kernel leaves every other one alone.
    pub pid: u32,
}

/// Attaches. The probes go when the descriptor is closed, by whatever cause.
///
/// # Errors
/// What bpf(2) answers to `BPF_LINK_CREATE`.
pub fn link_uprobe_multi(program: BorrowedFd<'_>, link: &MultiLink<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, NoUninit)]
    struct Attributes {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
        path: u64,
        offsets: u64,
        ref_ctr_offsets: u64,
        cookies: u64,
        cnt: u32,
        multi_flags: u32,
        pid: u32,
        padding: u32,
    }
    if link.offsets.len() != link.cookies.len() || ![0, link.offsets.len()].contains(&link.counters.len()) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut attributes = Attributes::zeroed();
    attributes.prog_fd = raw(program);
    attributes.attach_type = link.attach_type;
    attributes.path = link.path.as_ptr() as u64;
    attributes.offsets = address(link.offsets);
    attributes.cookies = address(link.cookies);
    attributes.ref_ctr_offsets = if link.counters.is_empty() { 0 } else { address(link.counters) };
    attributes.cnt = length(link.offsets)?;
    attributes.multi_flags = if link.at_return { MULTI_RETURN } else { 0 };
    attributes.pid = link.pid;
    call_for_fd(command::LINK_CREATE, &mut attributes)
}

/// Attaches a program to a perf event. The link keeps the event, and the program is off it when the descriptor is closed.
///
/// # Errors
/// What bpf(2) answers to `BPF_LINK_CREATE`.
pub fn link_perf_event(program: BorrowedFd<'_>, event: BorrowedFd<'_>, cookie: u64) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, NoUninit)]
    struct Attributes {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
        cookie: u64,
    }
    let (prog_fd, target_fd) = (raw(program), raw(event));
    let mut attributes = Attributes { prog_fd, target_fd, attach_type: ATTACH_PERF_EVENT, flags: 0, cookie };
    call_for_fd(command::LINK_CREATE, &mut attributes)
}

/// Has the kernel measure the run time of all BPF programs for as long as the descriptor lives. It costs two clock
/// reads a run.
///
/// # Errors
/// What bpf(2) answers to `BPF_ENABLE_STATS` (kernel 5.8).
pub fn enable_run_time_stats() -> io::Result<OwnedFd> {
    // `enum bpf_stats_type`: BPF_STATS_RUN_TIME is 0.
    call_for_fd(command::ENABLE_STATS, &mut 0u32)
}

/// Run time of a program while stats were enabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunTime {
    /// Nanoseconds.
    pub nanoseconds: u64,
    /// Runs.
    pub runs: u64,
}

/// What the kernel measured of a program.
///
/// # Errors
/// What bpf(2) answers to `BPF_OBJ_GET_INFO_BY_FD`.
pub fn run_time(program: BorrowedFd<'_>) -> io::Result<RunTime> {
    // `struct bpf_prog_info`: run_time_ns at byte 192, run_cnt at 200.
    let mut info = [0u64; 32];
    object_info(program, &mut info)?;
    Ok(RunTime { nanoseconds: info[24], runs: info[25] })
}

/// How many instructions the verifier followed, over all paths, before it let a program in. The kernel refuses a program
/// of more than a million.
///
/// # Errors
/// What bpf(2) answers to `BPF_OBJ_GET_INFO_BY_FD`.
pub fn verified_instructions(program: BorrowedFd<'_>) -> io::Result<u32> {
    // `struct bpf_prog_info`: verified_insns at byte 216 (kernel 5.16; zero before).
    let mut info = [0u32; 64];
    object_info(program, &mut info)?;
    Ok(info[54])
}

/// Has the kernel describe a BPF object; it writes as many bytes as `info` has, or fewer.
fn object_info<T: NoUninit + bytemuck::AnyBitPattern>(
    object: BorrowedFd<'_>,
    info: &mut [T],
) -> io::Result<()> {
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, NoUninit)]
    struct Attributes {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut attributes = Attributes::zeroed();
    attributes.bpf_fd = raw(object);
    attributes.info_len = u32::try_from(size_of_val(info)).map_err(io::Error::other)?;
    attributes.info = address_mut(info);
    call(command::OBJ_GET_INFO_BY_FD, &mut attributes).map(drop)
}

#[cfg(test)]
mod interrupted;
