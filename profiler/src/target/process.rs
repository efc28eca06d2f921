//! Who the target is: its identity, its rights, whether it still lives and which program it runs.
//!
//! A pid is reused once its process is gone, so a pidfd is held from the start, and whatever was read from
//! `/proc/PID` counts only if the process still lived after the read.

use std::{
    fs, io,
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    param::page_size,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    error::TargetError,
    procfs::{Seccomp, Stat, parse_stat, parse_status, printable, read_bounded},
};

pub mod cpu;

/// Bytes read of a file of `/proc/PID` that is small by nature; of a command line, what is worth showing.
const SMALL_FILE: u64 = 4096;
/// `EM_X86_64` of the ELF specification.
const MACHINE_X86_64: u16 = 62;
/// `EM_386` of the ELF specification.
const MACHINE_386: u16 = 3;
/// `ELFCLASS32` of the ELF specification.
const CLASS_32: u8 = 1;

/// A running process.
#[derive(Debug)]
pub struct Process {
    /// Its number in our pid namespace.
    pub pid: u32,
    /// The name that the kernel keeps, at most 15 bytes; what is not printable is replaced.
    pub comm: String,
    /// Its command line, joined by spaces; `[comm]` where it has none. What is not printable is replaced.
    pub command: String,
    /// The program's path as the target sees it, without the kernel's ` (deleted)`.
    pub exe: PathBuf,
    /// Its effective user id.
    pub uid: u32,
    /// Whether its system calls are filtered.
    pub seccomp: Seccomp,
    /// When it started, in clock ticks since boot: with the pid, a name that is never reused.
    pub start_time: u64,
    pidfd: OwnedFd,
    /// The thread through which its memory is seen: the main one, until that has left by `pthread_exit`.
    seen_through: AtomicU32,
}

/// The program that a process runs. It changes with exec: by the file, or by the stack's random place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageId {
    /// Address of the bottom of the stack, chosen anew by each exec.
    pub start_stack: u64,
    /// Device of the program file.
    pub device: u64,
    /// Inode of the program file.
    pub inode: u64,
}

/// How a process is known to itself: the kernel names it so to programs that run in its context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnIdentity {
    /// Its pid in its own, innermost pid namespace.
    pub pid: u32,
    /// Device of that namespace's file (`/proc/PID/ns/pid`).
    pub namespace_device: u64,
    /// Inode of that file.
    pub namespace_inode: u64,
}

impl Process {
    /// Opens the process with this pid.
    ///
    /// # Errors
    /// Where there is none, or it is a thread, a kernel thread, a zombie, not ours to inspect, or not x86-64.
    pub fn open(pid: u32) -> Result<Self, TargetError> {
        let absent = || TargetError::NoSuchProcess { wanted: pid.to_string() };
        let raw_pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(absent)?;
        let status_path = proc_path(pid, "status");
        let status = match read_bounded(&status_path, SMALL_FILE) {
            Ok((text, _)) => parse_status(&text).ok_or(TargetError::UnknownForm { path: status_path })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
            Err(source) => return Err(TargetError::Unreadable { path: status_path, source }),
        };
        if status.thread_group != pid {
            return Err(TargetError::ThreadNotProcess { thread: pid, process: status.thread_group });
        }
        let pidfd = match pidfd_open(raw_pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Err(absent()),
            Err(error) => {
                return Err(TargetError::Unreadable { path: proc_path(pid, ""), source: error.into() });
            }
        };
        let mut process = Self {
            pid,
            comm: String::new(),
            command: String::new(),
            exe: PathBuf::new(),
            uid: status.uid,
            seccomp: status.seccomp,
            start_time: 0,
            pidfd,
            seen_through: AtomicU32::new(pid),
        };
        process.introduce()?;
        Ok(process)
    }

    /// Finds the one process that `name_or_pid` means: a decimal number is a pid, anything else must equal its
    /// `comm`, the file name of its program, or the file name in its `argv[0]`. We ourselves are never meant.
    ///
    /// # Errors
    /// Where nothing was asked for, none or several match, and those of [`Process::open`].
    pub fn find(name_or_pid: &str) -> Result<Self, TargetError> {
        // A process in the middle of an exec has an empty command line, so nothing would match something.
        if name_or_pid.is_empty() {
            return Err(TargetError::NothingWanted);
        }
        let absent = || TargetError::NoSuchProcess { wanted: name_or_pid.to_owned() };
        if name_or_pid.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::open(name_or_pid.parse().map_err(|_| absent())?);
        }
        let entries = fs::read_dir("/proc")
            .map_err(|source| TargetError::Unreadable { path: PathBuf::from("/proc"), source })?;
        let matching = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|&pid| pid != std::process::id() && answers_to(pid, name_or_pid));
        choose(matching.map(|pid| (pid, Self::open(pid)))).unwrap_or_else(|pids| match pids.as_slice() {
            [] => Err(absent()),
            several => Err(TargetError::SeveralMatch {
                name: name_or_pid.to_owned(),
                candidates: several.iter().map(|&pid| (pid, command_line(pid))).collect(),
            }),
        })
    }

    /// The path of a file below `/proc/PID`.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        proc_path(self.pid, name)
    }

    /// The path of a file below `/proc/PID` that shows its memory or its files: `maps`, `map_files`, `mem`, `root`. When
    /// the main thread has left by `pthread_exit` while others go on, `/proc/PID` shows none of them, and this leads
    /// through another thread (`/proc/TID` exists, though it is not listed).
    #[must_use]
    pub fn memory_path(&self, name: impl AsRef<Path>) -> PathBuf {
        proc_path(self.seen_through.load(Ordering::Relaxed), name)
    }

    /// Whether the main thread has left by `pthread_exit` while others go on, as far as the last look at the mappings
    /// could tell.
    #[must_use]
    pub fn main_thread_has_left(&self) -> bool {
        self.seen_through.load(Ordering::Relaxed) != self.pid
    }

    /// Whether the thread that stands in for the main one is no thread of this process any more. Its number may be
    /// another process's.
    pub(super) fn has_lost_its_deputy(&self) -> bool {
        let deputy = self.seen_through.load(Ordering::Relaxed);
        deputy != self.pid && !self.path(format!("task/{deputy}")).exists()
    }

    /// Finds a thread that still has memory; whether it is another one than before.
    pub(super) fn look_through_another_thread(&self) -> bool {
        let threads = fs::read_dir(self.path("task")).into_iter().flatten();
        let ids = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let mut with_memory = ids.filter(|id| fs::read_link(proc_path(*id, "exe")).is_ok());
        let found = with_memory.next();
        found.is_some_and(|found| self.seen_through.swap(found, Ordering::Relaxed) != found)
    }

    /// Reads at most `limit` bytes of a file below `/proc/PID`; the flag says whether there was more.
    ///
    /// # Errors
    /// Where the process has ended (then the bytes may be another's), or the file cannot be read.
    pub fn read(&self, name: &str, limit: u64) -> Result<(Vec<u8>, bool), TargetError> {
        self.read_path(self.path(name), limit)
    }

    /// The same for any file that tells of it.
    pub(super) fn read_path(&self, path: PathBuf, limit: u64) -> Result<(Vec<u8>, bool), TargetError> {
        let result = read_bounded(&path, limit).map_err(|error| self.explain(path, error))?;
        if self.is_alive() { Ok(result) } else { Err(TargetError::Exited { pid: self.pid }) }
    }

    /// What an error of the operating system means when it came from looking at this process.
    #[must_use]
    pub fn explain(&self, path: PathBuf, source: io::Error) -> TargetError {
        match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::SRCH) => TargetError::Exited { pid: self.pid },
            _ if !self.is_alive() => TargetError::Exited { pid: self.pid },
            Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
                TargetError::NotPermitted { pid: self.pid, owner: self.uid }
            }
            _ => TargetError::Unreadable { path, source },
        }
    }

    /// Which program it runs now.
    ///
    /// # Errors
    /// Where it has ended, or we may not look.
    pub fn image(&self) -> Result<ImageId, TargetError> {
        let path = self.path("exe");
        let file = fs::metadata(&path).map_err(|error| self.explain(path, error))?;
        Ok(ImageId { start_stack: self.stat()?.start_stack, device: file.dev(), inode: file.ino() })
    }

    /// How it is known in its own pid namespace, which may be a container's.
    ///
    /// # Errors
    /// Where it has ended, or we may not look.
    pub fn own_identity(&self) -> Result<OwnIdentity, TargetError> {
        let path = self.path("ns/pid");
        let namespace = fs::metadata(&path).map_err(|error| self.explain(path, error))?;
        let (status, _) = self.read("status", SMALL_FILE)?;
        let status = String::from_utf8_lossy(&status);
        // `NSpid:` lists the pid in each namespace from ours inwards. A kernel without namespaces has no such line.
        let innermost = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let innermost = innermost.and_then(|pids| pids.split_ascii_whitespace().next_back()?.parse().ok());
        Ok(OwnIdentity {
            pid: innermost.unwrap_or(self.pid),
            namespace_device: namespace.dev(),
            namespace_inode: namespace.ino(),
        })
    }

    /// Bytes of its memory that are resident.
    ///
    /// # Errors
    /// Where it has ended, or `/proc/PID/statm` cannot be read.
    pub fn rss_bytes(&self) -> Result<u64, TargetError> {
        let (text, _) = self.read("statm", SMALL_FILE)?;
        let text = String::from_utf8_lossy(&text);
        let pages = text.split_ascii_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
        let pages = pages.ok_or_else(|| TargetError::UnknownForm { path: self.path("statm") })?;
        Ok(pages.saturating_mul(page_size() as u64))
    }

    /// Whether it still runs. A zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.exited(Duration::ZERO)
    }

    /// Waits until it ends, at most for `timeout`; says whether it has ended. A signal to us ends the wait early.
    #[must_use]
    pub fn exited(&self, timeout: Duration) -> bool {
        let mut descriptors = [PollFd::new(&self.pidfd, PollFlags::IN)];
        // A timeout that does not fit the kernel's type is endless for every purpose.
        let timeout = Timespec::try_from(timeout).ok();
        matches!(poll(&mut descriptors, timeout.as_ref()), Ok(ready) if ready > 0)
    }

    fn stat(&self) -> Result<Stat, TargetError> {
        let (line, _) = self.read("stat", SMALL_FILE)?;
        parse_stat(&line).ok_or_else(|| TargetError::UnknownForm { path: self.path("stat") })
    }

    /// Fills in what `open` promises, refusing what cannot be a target.
    fn introduce(&mut self) -> Result<(), TargetError> {
        let pid = self.pid;
        // Not through `read`, for which a zombie has ended.
        let stat = read_stat(pid).ok_or(TargetError::Exited { pid })?;
        self.comm = comm(pid);
        if stat.kernel_thread {
            return Err(TargetError::KernelThread { pid, comm: self.comm.clone() });
        }
        if stat.has_ended() {
            return Err(TargetError::Zombie { pid, comm: self.comm.clone() });
        }
        self.start_time = stat.start_time;
        self.command = command_line(pid);
        let link = self.path("exe");
        let exe = fs::read_link(&link).map_err(|error| self.explain(link, error))?;
        self.exe = without_deleted(exe);
        self.check_machine()?;
        if self.is_alive() { Ok(()) } else { Err(TargetError::Exited { pid }) }
    }

    /// Looks at the ELF header of the program: `EI_CLASS` is byte 4, `e_machine` bytes 18 and 19.
    fn check_machine(&self) -> Result<(), TargetError> {
        let path = self.path("exe");
        let mut header = [0_u8; 20];
        let read = fs::File::open(&path).and_then(|mut file| file.read_exact(&mut header));
        read.map_err(|error| self.explain(path, error))?;
        self.check_header(&header)
    }

    fn check_header(&self, header: &[u8; 20]) -> Result<(), TargetError> {
        let machine = u16::from_le_bytes([header[18], header[19]]);
        let (pid, exe) = (self.pid, self.exe.clone());
        match (machine, header[4]) {
            (MACHINE_X86_64, CLASS_32) | (MACHINE_386, _) => Err(TargetError::ThirtyTwoBit { pid, exe }),
            (MACHINE_X86_64, _) => Ok(()),
            _ => Err(TargetError::WrongMachine { pid, exe, machine }),
        }
    }
}

/// The pidfd, which poll(2) finds readable when the process has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn proc_path(pid: u32, name: impl AsRef<Path>) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

/// The process that forked it, or that it was left to.
pub(super) fn parent_of(pid: u32) -> Option<u32> {
    read_stat(pid).map(|stat| stat.parent)
}

fn read_stat(pid: u32) -> Option<Stat> {
    parse_stat(&read_bounded(&proc_path(pid, "stat"), SMALL_FILE).ok()?.0)
}

/// The one candidate that is meant, or the pids of all that may be. Those that vanished before they could be opened are
/// none. Zombies and kernel threads stand in nobody's way, but when alone they are worth naming as what they are.
fn choose<Opened>(
    candidates: impl Iterator<Item = (u32, Result<Opened, TargetError>)>,
) -> Result<Result<Opened, TargetError>, Vec<u32>> {
    let (mut usable, mut unusable) = (Vec::new(), None);
    for (pid, opened) in candidates {
        match opened {
            Err(TargetError::NoSuchProcess { .. } | TargetError::Exited { .. }) => {}
            Err(TargetError::KernelThread { .. } | TargetError::Zombie { .. }) => {
                unusable.get_or_insert(opened);
            }
            _ => usable.push((pid, opened)),
        }
    }
    match (usable.len(), usable.pop(), unusable) {
        (1, Some((_, only)), _) | (0, _, Some(only)) => Ok(only),
        (_, last, _) => Err(usable.into_iter().chain(last).map(|(pid, _)| pid).collect()),
    }
}

fn comm(pid: u32) -> String {
    let (name, _) = read_bounded(&proc_path(pid, "comm"), SMALL_FILE).unwrap_or_default();
    printable(name.strip_suffix(b"\n").unwrap_or(&name))
}

fn command_line(pid: u32) -> String {
    let (arguments, _) = read_bounded(&proc_path(pid, "cmdline"), SMALL_FILE).unwrap_or_default();
    let joined: Vec<u8> = arguments.iter().map(|&byte| if byte == 0 { b' ' } else { byte }).collect();
    let joined = printable(joined.trim_ascii_end());
    if joined.is_empty() { format!("[{}]", comm(pid)) } else { joined }
}

fn answers_to(pid: u32, name: &str) -> bool {
    let last_part_is = |path: &Path| path.file_name().is_some_and(|part| part.to_string_lossy() == name);
    let argument_is = || {
        let (arguments, _) = read_bounded(&proc_path(pid, "cmdline"), SMALL_FILE).unwrap_or_default();
        let first = arguments.split(|&byte| byte == 0).next().unwrap_or_default();
        last_part_is(Path::new(String::from_utf8_lossy(first).as_ref()))
    };
    comm(pid) == name
        || fs::read_link(proc_path(pid, "exe")).is_ok_and(|exe| last_part_is(&without_deleted(exe)))
        || argument_is()
}

/// The path without the mark that the kernel's `d_path` appends when the file has no name any more.
fn without_deleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(stripped) => PathBuf::from(stripped),
        None => path,
    }
}

#[cfg(test)]
mod tests;
