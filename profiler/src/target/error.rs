//! Everything that can be wrong with a target, each case with what happened and what to do about it.

use std::{io, path::PathBuf};

/// Why a process cannot be looked at. Each message is one sentence of what and one of what to do.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The pid or name is empty.
    #[error("no process was named: the pid or name is empty. List processes with `ps -e`.")]
    NothingWanted,
    /// No process has this pid or name.
    #[error(
        "no running process matches `{wanted}`. List them with `ps -e`; a name must be the whole name of the program."
    )]
    NoSuchProcess {
        /// The pid or name that was asked for.
        wanted: String,
    },
    /// A name that fits more than one process.
    #[error("{} processes match `{name}`. Name one of them by its pid:{}", candidates.len(), one_a_line(candidates))]
    SeveralMatch {
        /// The name that was asked for.
        name: String,
        /// Pid and command line of each.
        candidates: Vec<(u32, String)>,
    },
    /// The number is that of a thread.
    #[error("{thread} is a thread of process {process}. Attach to the process: {process}.")]
    ThreadNotProcess {
        /// What was asked for.
        thread: u32,
        /// The process that it belongs to.
        process: u32,
    },
    /// A kernel thread.
    #[error("process {pid} ({comm}) is a kernel thread, which has no heap. Choose a user-space process.")]
    KernelThread {
        /// Its pid.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// Ended, but not yet reaped.
    #[error(
        "process {pid} ({comm}) has ended and only waits for its parent to take note. Attach to a running one."
    )]
    Zombie {
        /// Its pid.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// The kernel denies us the look.
    #[error(
        "process {pid} of user {owner} may not be inspected by us. Run heapscope with sudo, or give it CAP_SYS_PTRACE."
    )]
    NotPermitted {
        /// Its pid.
        pid: u32,
        /// The user id that it runs as.
        owner: u32,
    },
    /// A program of ELF class 32.
    #[error(
        "process {pid} runs a 32-bit program, {}. Run its 64-bit build: only x86-64 can be profiled.",
        exe.display()
    )]
    ThirtyTwoBit {
        /// Its pid.
        pid: u32,
        /// The program.
        exe: PathBuf,
    },
    /// A program for another processor.
    #[error(
        "process {pid} runs {}, a program for another machine (ELF machine {machine}). Only x86-64 can be profiled: \
         choose another process.",
        exe.display()
    )]
    WrongMachine {
        /// Its pid.
        pid: u32,
        /// The program.
        exe: PathBuf,
        /// `e_machine` of the ELF header.
        machine: u16,
    },
    /// It ended while we looked.
    #[error(
        "process {pid} ended while it was being looked at. Start it again and attach to the new process."
    )]
    Exited {
        /// Its pid.
        pid: u32,
    },
    /// No mapped file defines `malloc` and `free`.
    #[error(
        "process {pid} ({command}) has mapped no file that defines malloc and free. If it has only just started, try \
         again; if its language keeps a heap of its own (Go, Java), use that language's profiler."
    )]
    NoAllocator {
        /// Its pid.
        pid: u32,
        /// Its command line.
        command: String,
    },
    /// A static program whose allocator cannot be found for want of symbols.
    #[error(
        "process {pid} runs {}, a static program without symbols, so its malloc cannot be found. Run a build that is \
         not stripped.",
        exe.display()
    )]
    StaticWithoutSymbols {
        /// Its pid.
        pid: u32,
        /// The program.
        exe: PathBuf,
    },
    /// The file at the path is not the one that was mapped.
    #[error(
        "{} was replaced since process {pid} mapped it, and the old file cannot be reached. Run heapscope as root, \
         which can open deleted files, or restart the process.",
        path.display()
    )]
    Replaced {
        /// Its pid.
        pid: u32,
        /// The path as the target sees it.
        path: PathBuf,
    },
    /// A file that is not the ELF file that it should be.
    #[error("{} cannot be used: {reason}. Its code goes without names and stacks; check the file.", path.display())]
    DamagedElf {
        /// The path as the target sees it.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A function on which no probe can be put.
    #[error(
        "no instruction at the beginning of {function} in {} can hold a probe. Its calls cannot be seen: report it, with \
         the file.",
        path.display()
    )]
    NoPlacement {
        /// The file as the target sees it.
        path: PathBuf,
        /// The function.
        function: String,
    },
    /// A function that the user named, which cannot be used.
    #[error(
        "`{function}` cannot be watched in {}: {reason}. Compare --allocator with the output of `nm` for that file.",
        path.display()
    )]
    CustomFunction {
        /// The file as the target sees it.
        path: PathBuf,
        /// The name given.
        function: String,
        /// What is wrong.
        reason: String,
    },
    /// No mapped file defines the functions that the user named.
    #[error(
        "no file that process {pid} has mapped defines {}, as --allocator says. Compare it with the output of `nm`; a \
         function that is inlined everywhere, or a stripped one, cannot be watched.",
        functions.join(", ")
    )]
    NoCustomAllocator {
        /// Its pid.
        pid: u32,
        /// The names given.
        functions: Vec<String>,
    },
    /// A read failed for a reason of the operating system.
    #[error("{} could not be read ({source}). Check that it is accessible, and try again.", path.display())]
    Unreadable {
        /// What was read.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// `/proc` said something that we do not understand.
    #[error("{} has an unknown form. Report it, with the version of the kernel.", path.display())]
    UnknownForm {
        /// What was read.
        path: PathBuf,
    },
}

fn one_a_line(candidates: &[(u32, String)]) -> String {
    candidates.iter().map(|(pid, command)| format!("\n  {pid:>8}  {command}")).collect()
}
