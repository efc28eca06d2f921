//! Files that are truncated, overlapping, cyclic and huge: whatever is done to them, nothing panics or hangs, and memory
//! stays bounded.
//!
//! Each case of the corpus runs in a process of its own with a limit on its address space. So an allocation that a file
//! talked us into fails whoever makes it, we, a crate or a C library; a stack overflow ends that case alone; and what
//! hangs is killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking, and its name says what it tests"
)]

#[path = "damage/attach.rs"]
mod attach;
#[path = "damage/dwarf.rs"]
mod dwarf;
#[path = "damage/frames.rs"]
mod frames;
#[path = "damage/headers.rs"]
mod headers;
#[path = "damage/packed.rs"]
mod packed;
#[allow(dead_code, reason = "several test binaries share it, and none needs all of it")]
mod support;

use std::{
    env, fs,
    fs::File,
    io::Write,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Arc,
};

use heapscope::{
    symbolize::{
        frame::Frame,
        symbolizer::{CodeLocation, SymbolizeOptions, Symbolizer},
    },
    target::{
        address::Svma,
        error::TargetError,
        module::{Content, Module},
    },
};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{Resource, Rlimit, setrlimit},
};
use support::{case, program::Program};

/// Tells a child process which case it is to run itself.
const CASE: &str = "HEAPSCOPE_DAMAGE_CASE";
/// Bytes of address space that a case has: this program, its threads' stacks and arenas, the files that it makes, and
/// what is done with them.
const ADDRESS_SPACE: u64 = 768 << 20;
/// Bytes of memory that a case may use. The largest use 130 MB, most 10.
const RESIDENT: u64 = 256 << 20;

fn main() -> ExitCode {
    case::run(&[frames::CASES, headers::CASES, dwarf::CASES, packed::CASES, attach::CASES], &[])
}

/// Runs the case of this name in a process of its own.
fn isolated(name: &str, body: fn()) {
    if env::var_os(CASE).is_some() {
        let limit = Some(ADDRESS_SPACE);
        setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
        body();
        // An allocation that fails can also become an error that somebody swallows: what was used counts too.
        let used = peak_resident();
        return assert!(used <= RESIDENT, "{used} bytes were used");
    }
    let mut command = Command::new(env::current_exe().unwrap());
    let mut child = Program::start(command.args([name, "--exact"]).env(CASE, name));
    let status = child.wait();
    assert!(status.success(), "{name}: {status}\n{}", child.rest());
}

/// Bytes of memory that this process has used at most.
fn peak_resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")).unwrap();
    peak.trim().parse::<u64>().unwrap() << 10
}

/// The module with these bytes in a file, as a target's library is.
fn module_of(bytes: &[u8]) -> Result<Arc<Module>, TargetError> {
    let mut file = File::from(memfd_create("damaged", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    Module::new(PathBuf::from("/lib/libdamaged.so"), Content::File(file), false).map(Arc::new)
}

/// The frames that are found at an address of a module.
fn frames_at(module: &Arc<Module>, at: u64) -> Vec<Arc<Frame>> {
    let mut symbolizer = Symbolizer::new(SymbolizeOptions::default());
    // A return address is looked up one byte before.
    let address = at + 1;
    symbolizer.frames(&CodeLocation {
        address,
        module: Some((Arc::clone(module), Svma(address))),
        guessed: false,
    })
}

/// The function that is found there.
fn function_at(module: &Arc<Module>, at: u64) -> Option<String> {
    frames_at(module, at).pop()?.function.clone()
}
