//! What is measured: heapscope in its ways, probes that do nothing, and the peers, each as its own users run it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};

use super::{
    helps_with,
    program::Program,
    stacks,
    workloads::{PATIENCE, Workload},
};

/// From a program's command line to that of a tool which starts it.
pub(super) type Wrap = fn(&Places, &[String]) -> Result<Command>;

/// How a tool comes to a program.
#[derive(Clone, Copy)]
pub(super) enum How {
    /// It starts the program.
    Launch(Wrap),
    /// It is attached by this command, and says so with a line that contains this; ended by that signal, if any.
    Attach(fn(&Places, u32) -> Result<Command>, &'static str, Option<&'static str>),
}

/// A tool.
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// Debian's package, or the Python package, that tells the version.
    pub(super) package: Option<&'static str>,
    pub(super) how: How,
    /// For a program that cannot wait to be attached to.
    pub(super) launched: Option<Wrap>,
    /// Whether it can be attached to a process that becomes the program later.
    before_exec: bool,
    /// How many times less its workloads have to do, because it is so slow.
    pub(super) shortened: u64,
    /// Measured once, because it takes long.
    pub(super) is_slow: bool,
    /// Only for Python.
    pub(super) python: bool,
    /// The share of the stacks of blocks that are live which reach `main`, from what it left in its folder and said.
    pub(super) stacks: Option<fn(&Path, &str) -> Option<f64>>,
}

/// Where things lie.
pub(super) struct Places {
    pub(super) heapscope: PathBuf,
    /// The benchmark that holds probes which do nothing, and the object that it loads.
    pub(super) holder: PathBuf,
    pub(super) object: PathBuf,
    /// Where a tool may write.
    pub(super) folder: PathBuf,
    /// Kernel headers for bcc, and the Python environment of memray.
    pub(super) headers: PathBuf,
    pub(super) python: PathBuf,
}

const fn tool(name: &'static str, how: How) -> Tool {
    Tool {
        name,
        package: None,
        how,
        launched: None,
        before_exec: false,
        shortened: 1,
        is_slow: false,
        python: false,
        stacks: None,
    }
}

/// The first of all tools: none.
pub(super) const NOTHING: &str = "nothing";
const GROWTH: &str = "heapscope --mode growth";

impl Tool {
    /// Why this workload is not for it, in two words.
    pub(super) fn declines(&self, workload: &Workload) -> Option<&'static str> {
        let cannot_wait = matches!(self.how, How::Attach(..)) && self.launched.is_none() && !self.before_exec;
        if self.python && !workload.name.starts_with("python") {
            return Some("no Python");
        }
        if cannot_wait && !workload.waits() {
            return Some("cannot attach in time");
        }
        None
    }

    /// Whether heapscope has what it asks for.
    pub(super) fn is_known_to(&self, places: &Places) -> bool {
        self.name != GROWTH || helps_with(&places.heapscope, "--mode")
    }

    /// The workload whose stacks tell whether it finds them.
    pub(super) fn judged_by(&self) -> &'static str {
        if self.python { "python json" } else { "loop, 32 frames, 256 B" }
    }
}

macro_rules! heapscope {
    ($name:literal, $($option:literal),*) => {
        Tool {
            launched: Some(|places, command| {
                let mut tool = Command::new(&places.heapscope);
                tool.arg("run").args([$($option),*] as [&str; 0 $(+ {let _ = $option; 1})*]).arg("-o");
                tool.arg(places.folder.join("report.json")).arg("--").args(command);
                Ok(tool)
            }),
            stacks: Some(stacks::of_heapscope),
            ..tool($name, How::Attach(|places, pid| {
                let mut tool = Command::new(&places.heapscope);
                tool.args(["attach", &pid.to_string()]);
                tool.args([$($option),*] as [&str; 0 $(+ {let _ = $option; 1})*]);
                tool.arg("-o").arg(places.folder.join("report.json"));
                Ok(tool)
            }, "attached", Some("-INT")))
        }
    };
}

/// All of them; the first is none.
pub(super) fn all() -> Vec<Tool> {
    vec![
        tool(NOTHING, How::Launch(|_, command| Ok(plain(command)))),
        Tool {
            before_exec: true,
            ..tool(
                "two empty entries",
                How::Attach(|places, pid| hold(places, "entries", pid), "attached", None),
            )
        },
        Tool {
            before_exec: true,
            ..tool(
                "empty session + free",
                How::Attach(|places, pid| hold(places, "session", pid), "attached", None),
            )
        },
        heapscope!("heapscope (no options)",),
        heapscope!("heapscope --sample 512KiB", "--sample", "512KiB"),
        heapscope!("heapscope --exact", "--exact"),
        Tool { stacks: None, ..heapscope!("heapscope --mode growth", "--mode", "growth") },
        Tool {
            package: Some("bpfcc-tools"),
            is_slow: true,
            shortened: 10,
            stacks: Some(|_, said| stacks::of_blocks(said, "bytes in")),
            launched: Some(|places, command| {
                let mut tool = memleak(places);
                tool.args(["-c", &command.join(" "), "-T", "100", "2"]);
                Ok(tool)
            }),
            ..tool(
                "bcc memleak",
                How::Attach(
                    |places, pid| {
                        let mut tool = memleak(places);
                        tool.args(["-p", &pid.to_string(), "-T", "100"]);
                        let allocator = allocator_of(pid);
                        if allocator != LIBC {
                            tool.args(["-O", &allocator]);
                        }
                        tool.arg("2");
                        Ok(tool)
                    },
                    "stacks with outstanding",
                    Some("-INT"),
                ),
            )
        },
        Tool {
            package: Some("bpftrace"),
            is_slow: true,
            shortened: 10,
            stacks: Some(|_, said| stacks::of_blocks(said, "@stack[")),
            launched: Some(|_, command| Ok(bpftrace(LIBC, &["-c", &command.join(" ")]))),
            ..tool(
                "bpftrace, a leak script",
                How::Attach(
                    |_, pid| Ok(bpftrace(&allocator_of(pid), &["-p", &pid.to_string()])),
                    "attached",
                    Some("-INT"),
                ),
            )
        },
        Tool {
            package: Some("heaptrack"),
            stacks: Some(|folder, _| stacks::of_heaptrack(folder)),
            ..tool(
                "heaptrack, launched",
                How::Launch(|places, command| {
                    let mut tool = Command::new("heaptrack");
                    tool.arg("-o").arg(places.folder.join("heaptrack")).args(command);
                    Ok(tool)
                }),
            )
        },
        Tool {
            package: Some("heaptrack"),
            is_slow: true,
            stacks: Some(|folder, _| stacks::of_heaptrack(folder)),
            ..tool(
                "heaptrack, attached",
                How::Attach(
                    |places, pid| {
                        let mut tool = Command::new("heaptrack");
                        tool.arg("-o").arg(places.folder.join("heaptrack"));
                        tool.args(["-p", &pid.to_string()]);
                        Ok(tool)
                    },
                    "injection finished",
                    Some("-INT"),
                ),
            )
        },
        Tool {
            package: Some("libjemalloc2"),
            ..tool("jemalloc, no profile", How::Launch(|_, command| preloaded("libjemalloc.so.2", command)))
        },
        Tool {
            package: Some("libjemalloc2"),
            stacks: Some(|folder, _| stacks::of_dump(folder, "jeprof", "je")),
            ..tool(
                "jemalloc's profiler, 512 KiB",
                How::Launch(|places, command| {
                    let mut tool = preloaded("libjemalloc.so.2", command)?;
                    let prefix = places.folder.join("je").display().to_string();
                    let options = format!("prof:true,lg_prof_sample:19,prof_final:true,prof_prefix:{prefix}");
                    tool.env("MALLOC_CONF", options);
                    Ok(tool)
                }),
            )
        },
        Tool {
            package: Some("libgoogle-perftools4"),
            ..tool("tcmalloc, no profile", How::Launch(|_, command| preloaded("libtcmalloc.so.4", command)))
        },
        Tool {
            package: Some("libgoogle-perftools4"),
            shortened: 10,
            stacks: Some(|folder, _| stacks::of_dump(folder, "google-pprof", "gperftools")),
            ..tool(
                "gperftools' heap profiler",
                How::Launch(|places, command| {
                    let mut tool = preloaded("libtcmalloc.so.4", command)?;
                    tool.env("HEAPPROFILE", places.folder.join("gperftools"));
                    Ok(tool)
                }),
            )
        },
        Tool {
            package: Some("memray"),
            python: true,
            ..tool(
                "memray --native",
                How::Launch(|places, command| {
                    let mut tool = Command::new(&places.python);
                    tool.args(["-m", "memray", "run", "--native", "-f", "-o"]);
                    tool.arg(places.folder.join("memray.bin")).args(command.iter().skip(1));
                    Ok(tool)
                }),
            )
        },
        Tool {
            package: Some("valgrind"),
            is_slow: true,
            shortened: 10,
            stacks: Some(|folder, _| stacks::of_massif(folder)),
            ..tool(
                "valgrind massif",
                How::Launch(|places, command| {
                    let mut tool = Command::new("valgrind");
                    tool.arg("--tool=massif").arg("--depth=100");
                    tool.arg(format!("--massif-out-file={}", places.folder.join("massif").display()));
                    tool.args(command);
                    Ok(tool)
                }),
            )
        },
    ]
}

/// The C library.
const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";

/// The file whose malloc the process calls: an allocator that is linked in comes before the C library.
fn allocator_of(pid: u32) -> String {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let files = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let mut others = files.filter(|file| file.contains("/libjemalloc") || file.contains("/libtcmalloc"));
    others.next().unwrap_or(LIBC).to_owned()
}

/// A command without any tool.
pub(super) fn plain(command: &[String]) -> Command {
    let mut plain = Command::new(command.first().map_or("false", String::as_str));
    plain.args(command.iter().skip(1));
    plain
}

fn hold(places: &Places, way: &str, pid: u32) -> Result<Command> {
    let mut tool = Command::new(&places.holder);
    tool.env("HEAPSCOPE_MEASURING_OBJECT", &places.object).env("HEAPSCOPE_HOLD", format!("{way} {pid}"));
    Ok(tool)
}

fn memleak(places: &Places) -> Command {
    let mut tool = Command::new("memleak-bpfcc");
    // It compiles its program at each start, and finds no headers of a kernel that is not Debian's.
    tool.env("BCC_KERNEL_SOURCE", &places.headers).env("PYTHONUNBUFFERED", "1");
    tool
}

fn bpftrace(library: &str, how: &[&str]) -> Command {
    let script = format!(
        "BEGIN {{ printf(\"attached\\n\"); }} uprobe:{library}:malloc {{ @size[tid] = arg0; }} \
         uretprobe:{library}:malloc /@size[tid]/ {{ @stack[retval] = ustack(100); @live[retval] = @size[tid]; delete(@size[tid]); }} \
         uprobe:{library}:free {{ delete(@stack[arg0]); delete(@live[arg0]); }} END {{ clear(@size); clear(@live); }}"
    );
    let mut tool = Command::new("bpftrace");
    tool.env("BPFTRACE_MAP_KEYS_MAX", "1000000").args(how).args(["-e", &script]);
    tool
}

fn preloaded(library: &str, command: &[String]) -> Result<Command> {
    let path = Path::new("/usr/lib/x86_64-linux-gnu").join(library);
    if !path.exists() {
        bail!("{library} is not installed");
    }
    let mut tool = plain(command);
    tool.env("LD_PRELOAD", path);
    Ok(tool)
}

/// Attaches a tool, and gives those that say so too early the time that they need.
pub(super) fn attach(tool: &Tool, mut command: Command, ready: &str) -> Result<Program> {
    let mut program = Program::start(&mut command)?;
    program.hear(ready, PATIENCE)?;
    if tool.name.starts_with("bpftrace") {
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(program)
}

/// Its version, as the package manager has it.
pub(super) fn version(package: &str, python: &Path) -> String {
    let output = if package == "memray" {
        Command::new(python).args(["-c", "import memray; print(memray.__version__)"]).output()
    } else {
        Command::new("dpkg-query").args(["-W", "-f=${Version}", package]).output()
    };
    let version = output.ok().filter(|output| output.status.success());
    version.map_or_else(
        || "absent".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Makes the folder anew.
pub(super) fn empty(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    Ok(fs::create_dir_all(folder)?)
}
