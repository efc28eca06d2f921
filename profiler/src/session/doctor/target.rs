//! What a target allows. Nothing is placed in it, nothing of it is changed, and it is not stopped.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

use rustix::process::geteuid;
use serde::Serialize;

use super::{
    allocators::{self, AllocatorFacts},
    checks::{Check, Verdict},
    files::{self, FileFacts},
};
use crate::{
    report::units::{bytes, counted},
    session::observation::refuse_dangerous,
    symbolize::{
        perf_map::PerfMap,
        symbolizer::{SymbolizeOptions, Symbolizer},
    },
    target::{
        allocator,
        error::TargetError,
        maps::{MappingKind, Maps},
        module::Module,
        module_cache::ModuleCache,
        process::Process,
        procfs::Seccomp,
        python::{Interpreter, code::Memory},
    },
};

/// A process.
#[derive(Debug, Default, Serialize)]
pub(super) struct Target {
    pub(super) pid: Option<u32>,
    pub(super) name: String,
    pub(super) command: String,
    pub(super) exe: String,
    /// Effective user id.
    pub(super) uid: Option<u32>,
    pub(super) checks: Vec<Check>,
    pub(super) allocators: Vec<AllocatorFacts>,
    /// Largest text first.
    pub(super) files: Vec<FileFacts>,
    /// What the unwind tables of all files take in the kernel, in bytes.
    pub(super) table_bytes: u64,
    /// The version of the Python that was found, as `3.11`.
    pub(super) python: Option<String>,
}

/// A process that can be looked at, or the reason why it cannot be one of ours.
pub(super) type Found = Result<Process, TargetError>;

/// Finds the process.
///
/// # Errors
/// Where there is none, or several.
pub(super) fn find(name: &str) -> Result<Found, TargetError> {
    match Process::find(name) {
        Err(
            error @ (TargetError::NothingWanted
            | TargetError::NoSuchProcess { .. }
            | TargetError::SeveralMatch { .. }
            | TargetError::ThreadNotProcess { .. }),
        ) => Err(error),
        found => Ok(found),
    }
}

/// Looks at it.
pub(super) fn examine(found: Found, debug_dirs: &[PathBuf]) -> Target {
    let process = match found {
        Ok(process) => process,
        Err(error) => {
            let checks = vec![Check::from_error("process", Verdict::No, &error.to_string())];
            return Target { checks, ..Target::default() };
        }
    };
    let mut target = Target {
        pid: Some(process.pid),
        name: process.comm.clone(),
        command: process.command.clone(),
        exe: process.exe.display().to_string(),
        uid: Some(process.uid),
        checks: vec![identity(&process), seccomp(&process)],
        ..Target::default()
    };
    target.checks.extend(namespaces(&process));
    target.checks.extend(state(&process));
    match Maps::read(&process) {
        Ok(maps) => look_inside(&mut target, &process, &maps, debug_dirs),
        Err(error) => {
            target.checks.push(Check::from_error("memory", Verdict::No, &error.to_string()));
        }
    }
    target
}

/// What its mapped files tell.
fn look_inside(target: &mut Target, process: &Process, maps: &Maps, debug_dirs: &[PathBuf]) {
    let (checks, modules) = (&mut target.checks, open(process, maps));
    if process.main_thread_has_left() {
        checks.push(Check::warn(
            "main thread",
            "it has ended before the others",
            "the kernel then takes probes out early, and places none in libraries that come later: the numbers may be too \
             low",
        ));
    }
    for (path, error) in &modules.unopened {
        checks.push(Check::from_error("files", Verdict::Warn, &format!("{path}: {error}")));
    }
    let opened = modules.opened.iter().map(|(module, _)| module);
    let (found, said) = allocators::examine(opened.clone());
    if found.is_empty() {
        let why = allocator::find(process, maps, &mut ModuleCache::default());
        let why = why.err().map_or_else(|| "none was found".to_owned(), |error| error.to_string());
        checks.push(Check::from_error("allocator", Verdict::No, &why));
    } else {
        checks.extend(said);
        checks.push(Check::note(
            "other memory",
            "pools inside these blocks, and memory mapped directly, are not told apart: --allocator and --mmap do",
        ));
    }
    target.allocators = found;
    let options = SymbolizeOptions { debug_dirs: debug_dirs.to_vec(), ..SymbolizeOptions::default() };
    let mut symbolizer = Symbolizer::new(options);
    if let Err(error) = symbolizer.set_target_root(process.pid) {
        checks.push(Check::warn(
            "debug files",
            format!("the root of the process could not be opened ({error})"),
            "debug files that only it can see are not used: run it with sudo",
        ));
    }
    let is_debian = fs::read_to_string("/etc/os-release").is_ok_and(|text| text.contains("debian"));
    let (files, table_bytes, said) = files::examine(opened, &symbolizer, is_debian);
    checks.extend(said);
    (target.files, target.table_bytes) = (files, table_bytes);
    checks.extend(generated_code(process, maps));
    for (module, bias) in &modules.opened {
        python(target, process, module, *bias);
    }
}

struct Modules {
    /// Each with what the loader added to its addresses, if that is known.
    opened: Vec<(Arc<Module>, Option<u64>)>,
    unopened: Vec<(String, String)>,
}

fn open(process: &Process, maps: &Maps) -> Modules {
    let mut cache = ModuleCache::default();
    let mut modules = Modules { opened: Vec::new(), unopened: Vec::new() };
    for mapping in maps.executable() {
        match cache.open(process, mapping) {
            Ok(Some(module)) => {
                if !modules.opened.iter().any(|(known, _)| Arc::ptr_eq(known, &module)) {
                    let bias = module.bias(mapping);
                    modules.opened.push((module, bias));
                }
            }
            Ok(None) => {}
            Err(error) => {
                let path = mapping.path().map_or_else(String::new, |path| path.display().to_string());
                modules.unopened.push((path, error.to_string()));
            }
        }
    }
    modules
}

fn identity(process: &Process) -> Check {
    let rss = process.rss_bytes().map_or_else(|_| String::new(), |rss| format!(", {} resident", bytes(rss)));
    let whose = match process.uid {
        uid if uid == geteuid().as_raw() => "ours".to_owned(),
        uid => format!("of user {uid}"),
    };
    Check::ok("process", format!("{} (pid {}), {whose}{rss}: {}", process.comm, process.pid, process.command))
}

fn seccomp(process: &Process) -> Check {
    match (process.seccomp, refuse_dangerous(process)) {
        (_, Err(error)) => Check::from_error("seccomp", Verdict::No, &format!("{error:#}")),
        (Seccomp::Disabled, Ok(())) => Check::ok("seccomp", "its system calls are not filtered"),
        (Seccomp::Unknown, Ok(())) => {
            Check::note("seccomp", "the kernel does not say whether its system calls are filtered")
        }
        (Seccomp::Strict | Seccomp::Filter, Ok(())) => {
            Check::ok("seccomp", "its system calls are filtered; on this kernel a return probe does no harm")
        }
    }
}

/// In which of its namespaces it differs from us.
fn namespaces(process: &Process) -> Option<Check> {
    let inode = |path: PathBuf| fs::metadata(path).ok().map(|file| file.ino());
    let differs = |name: &&str| {
        let (own, other) =
            (inode(format!("/proc/self/ns/{name}").into()), inode(process.path(format!("ns/{name}"))));
        own.is_some() && other.is_some() && own != other
    };
    let different: Vec<_> = ["pid", "mnt", "user"].into_iter().filter(differs).collect();
    if different.is_empty() {
        return Some(Check::ok("namespaces", "the same as ours"));
    }
    let says = format!("its own: {}; its files are read through its own view", different.join(", "));
    Some(Check::ok("namespaces", says))
}

/// Whether it is stopped or traced, and how many threads it has.
fn state(process: &Process) -> Vec<Check> {
    let Ok((status, _)) = process.read("status", 1 << 14) else { return Vec::new() };
    let status = String::from_utf8_lossy(&status);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next().map(str::to_owned)
    };
    let threads = field("Threads").and_then(|threads| threads.parse::<u64>().ok()).unwrap_or(0);
    let mut checks = vec![Check::ok("threads", counted(threads, "thread", "threads"))];
    if let Some(tracer) = field("TracerPid").filter(|tracer| tracer != "0") {
        checks.push(Check::warn(
            "debugger",
            format!("process {tracer} traces it"),
            "while the debugger holds it, it does nothing that could be seen: detach the debugger, or let it go on",
        ));
    }
    if let Some(state) = field("State").filter(|state| matches!(state.as_str(), "T" | "t")) {
        checks.push(Check::warn(
            "state",
            format!("it is stopped ({state})"),
            "a stopped process allocates nothing: kill -CONT lets it go on",
        ));
    }
    checks
}

/// Code without a file, and whether it has names.
fn generated_code(process: &Process, maps: &Maps) -> Option<Check> {
    let generated = maps.executable().filter(|mapping| mapping.kind == MappingKind::Anonymous).count() as u64;
    if generated == 0 {
        return None;
    }
    let mappings = counted(generated, "mapping", "mappings");
    Some(match PerfMap::of_process(process.pid) {
        Ok(Some(_)) => Check::ok("generated code", format!("{mappings}, named by its /tmp/perf-PID.map")),
        Ok(None) => Check::warn(
            "generated code",
            format!("{mappings} of code without a file and without names"),
            "start it so that it writes /tmp/perf-PID.map (node --perf-basic-prof, java with perf-map-agent, python3 -X \
             perf)",
        ),
        Err(error) => Check::warn(
            "generated code",
            format!("{mappings}; its names could not be read ({error})"),
            "run it with sudo",
        ),
    })
}

/// The Python that a file holds, if it does, and whether its frames will be walked. The first one counts.
fn python(target: &mut Target, process: &Process, module: &Arc<Module>, bias: Option<u64>) {
    if target.python.is_some() {
        return;
    }
    let file = module.path.display();
    let interpreter = match Interpreter::find_in(module) {
        Ok(Some(interpreter)) => interpreter,
        Ok(None) => return,
        Err(reason) => {
            let remedy = "stacks will show the interpreter's own frames";
            target.checks.push(Check::warn("python", format!("{file}: {reason}"), remedy));
            return;
        }
    };
    let version = format!("3.{}", interpreter.version.minor);
    let layout = Memory::of(process)
        .map_err(|error| error.to_string())
        .and_then(|memory| interpreter.layout(bias.unwrap_or(0), &memory));
    target.checks.push(match layout {
        Ok(Some(_)) => Check::ok("python", format!("{version} in {file}: its frames will be walked")),
        Ok(None) => {
            Check::ok("python", format!("{version} in {file}: its frames will be walked once it has started"))
        }
        Err(reason) => Check::warn(
            "python",
            format!("{version} in {file}: {reason}"),
            "stacks will show the interpreter's own frames",
        ),
    });
    target.python = Some(version);
}
