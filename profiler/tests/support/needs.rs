//! What a test cannot do without, found out before the tests run: a test that lacks something is skipped, with the
//! reason, and never passes for want of it.
//!
//! Nothing here asks heapscope: were it to say falsely that it has no rights, every test would be skipped instead of
//! failing.

use std::{fs, path::Path, process::Command, sync::OnceLock};

/// Something that the machine may lack.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// The rights to load and attach BPF programs.
    Probes,
    /// A program on the PATH.
    Program(&'static str),
    /// gdb, on a machine whose debug registers work.
    Debugger,
    /// A shared library in Debian's folder or the loader's other ones.
    Library(&'static str),
    /// The rights to become another user.
    Root,
    /// Kernel threads, which a container does not see.
    KernelThreads,
    /// A kernel that runs 32-bit programs.
    ThirtyTwoBit,
    /// The crates of the Rust programs with allocators of their own, on this machine or within reach.
    Crates,
    /// An interpreter with numpy, Cython and orjson, which the environment names.
    PythonPackages,
    /// What programs embed the system's Python with: its headers, and libpython.
    PythonLibraries,
    /// The npm packages of programs that read heapscope's files, on this machine or within reach.
    Readers,
    /// The viewer that valgrind ships for DHAT's files.
    DhatViewer,
    /// A kernel that interrupts its own code for another thread.
    Preemption,
    /// New namespaces, with the rights in them that heapscope has here.
    Namespaces,
}

impl Need {
    /// Why it is lacking; `None` where it is there.
    pub(crate) fn lacking(self) -> Option<String> {
        match self {
            Self::Probes => no_probes(),
            Self::Program(name) => (!has_program(name)).then(|| format!("{name} is not installed")),
            Self::Debugger => no_debugger(),
            Self::Library(name) => library(name).is_none().then(|| format!("{name} is not installed")),
            Self::Root => (!has_capability(CAP_SETUID)).then(|| "changing the user needs root".into()),
            Self::KernelThreads => no_kernel_threads(),
            Self::ThirtyTwoBit => no_32_bit(),
            Self::Crates => no_crates(),
            Self::PythonPackages => std::env::var_os("HEAPSCOPE_PYTHON_PACKAGES").is_none().then(|| {
                "HEAPSCOPE_PYTHON_PACKAGES does not name a Python with numpy, Cython and orjson".into()
            }),
            Self::PythonLibraries => no_python_libraries(),
            Self::Readers => super::readers::lacking(),
            Self::DhatViewer => (!Path::new(super::readers::DHAT_VIEWER).exists())
                .then(|| "valgrind's dh_view.js is not installed".into()),
            Self::Namespaces => no_namespaces(),
            Self::Preemption => no_preemption(),
        }
    }
}

/// Where a library lies.
pub(crate) fn library(name: &str) -> Option<String> {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"]
        .iter()
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| Path::new(path).exists())
}

/// Debian: libpython3-dev.
fn no_python_libraries() -> Option<String> {
    let ask = "import os, sysconfig as s; assert os.path.exists(s.get_paths()['include'] + '/Python.h'); \
               assert os.path.exists(s.get_config_var('LIBPL') + '/' + s.get_config_var('LIBRARY'))";
    let has = Command::new("/usr/bin/python3").args(["-c", ask]).output();
    (!has.is_ok_and(|output| output.status.success()))
        .then(|| "the headers and libraries of /usr/bin/python3 are not installed".into())
}

fn no_debugger() -> Option<String> {
    static LACKING: OnceLock<Option<String>> = OnceLock::new();
    let lacking = || {
        let mut gdb = Command::new("gdb");
        gdb.args(["-batch", "-nx", "-ex", "starti", "-ex", "hbreak *$pc", "-ex", "continue", "true"]);
        match gdb.output() {
            Ok(output) if String::from_utf8_lossy(&output.stdout).contains("exited normally") => None,
            Ok(output) => {
                let errors = String::from_utf8_lossy(&output.stderr);
                let last = errors.lines().last().unwrap_or_default();
                Some(format!("gdb sets no hardware breakpoints here: {last}"))
            }
            Err(_) => Some("gdb is not installed".into()),
        }
    };
    LACKING.get_or_init(lacking).clone()
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Bits of include/uapi/linux/capability.h.
const CAP_SETUID: u32 = 7;
const CAP_SYS_ADMIN: u32 = 21;

fn has_capability(bit: u32) -> bool {
    let status = read("/proc/self/status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    effective >> bit & 1 == 1
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn no_probes() -> Option<String> {
    if !has_capability(CAP_SYS_ADMIN) {
        return Some("eBPF needs root".into());
    }
    // The whole range of user ids means the first user namespace, the only one whose root may load programs.
    if read("/proc/self/uid_map").split_ascii_whitespace().ne(["0", "0", "4294967295"]) {
        return Some("eBPF is not allowed in a user namespace".into());
    }
    read("/sys/kernel/security/lockdown")
        .contains("[confidentiality]")
        .then(|| "the kernel is locked down (confidentiality mode)".into())
}

/// What the kernel was built for is in its version; what it does, where both are possible, in a file for debugging, and on
/// the command line if it was asked for.
fn no_preemption() -> Option<String> {
    let version = rustix::system::uname().version().to_string_lossy().into_owned();
    let is = |word: &str| version.split(' ').any(|of_version| of_version == word);
    let chosen = read("/sys/kernel/debug/sched/preempt");
    let asked = read("/proc/cmdline").split_ascii_whitespace().any(|word| word == "preempt=full");
    let preempts = is("PREEMPT") || is("PREEMPT_RT") || chosen.contains("(full)") || asked;
    (!preempts).then(|| {
        "the kernel does not interrupt its own code, so that every walk ends before the next begins".into()
    })
}

fn no_namespaces() -> Option<String> {
    let tried =
        Command::new("unshare").args(["-m", "-p", "-f", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("no namespaces: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// Fetches them, once, unless they are here already.
fn no_crates() -> Option<String> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    let fetch = |how: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["fetch", "--locked", "--manifest-path", CRATES]).args(how).output()
    };
    let is_done = |how: &[&str]| fetch(how).is_ok_and(|output| output.status.success());
    ANSWER
        .get_or_init(|| {
            (!is_done(&["--offline"]) && !is_done(&[]))
                .then(|| "the crates of tests/fixtures/rust-allocators cannot be fetched".into())
        })
        .clone()
}

const CRATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rust-allocators/Cargo.toml");

fn no_kernel_threads() -> Option<String> {
    (read("/proc/2/comm") != "kthreadd\n").then(|| "kernel threads are not visible here".into())
}

fn no_32_bit() -> Option<String> {
    match Command::new(super::fixture::waiting_32_bit()).spawn() {
        Ok(mut child) => {
            let _ = child.kill();
            let _ = child.wait();
            None
        }
        Err(error) => Some(format!("the kernel runs no 32-bit programs: {error}")),
    }
}
