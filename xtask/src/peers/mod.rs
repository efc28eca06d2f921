//! `cargo xtask bench peers`: what heapscope and its peers cost the same programs, in one table, in one run.

mod program;
mod stacks;
mod tools;
mod workloads;

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use self::{
    tools::{How, Places, Tool},
    workloads::Workload,
};
use crate::{
    debian, ebpf,
    process::{output, run as run_command},
    workspace::{Workspace, cargo},
};

/// Rounds, of which the median counts. What is slow is measured in the first alone.
const ROUNDS: usize = 3;
/// Debian's packages of the peers, and of what they need.
const PACKAGES: &[&str] = &[
    "bpfcc-tools",
    "bpftrace",
    "clang",
    "google-perftools",
    "heaptrack",
    "libgoogle-perftools4",
    "libjemalloc-dev",
    "libjemalloc2",
    "linux-headers-amd64",
    "python3-venv",
    "redis-server",
    "redis-tools",
    "sqlite3",
    "valgrind",
];

/// Installs what is measured beside heapscope; memray into an environment of its own.
pub(crate) fn install(workspace: &Workspace) -> Result<ExitCode> {
    let missing = debian::missing(PACKAGES);
    if !missing.is_empty() {
        debian::install(&missing)?;
    }
    let folder = workspace.target.join("peers");
    fs::create_dir_all(&folder)?;
    run_command(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
    run_command(Command::new(folder.join("venv/bin/pip")).args(["install", "--quiet", "memray"]))?;
    headers(&folder.join("headers"))?;
    Ok(ExitCode::SUCCESS)
}

/// Debian's headers are in two folders, one for all machines; bcc wants them in one.
fn headers(folder: &Path) -> Result<()> {
    tools::empty(folder)?;
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/src")?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("linux-headers-"))
    });
    // `-common` behind `-amd64`: what is there stays.
    found.sort();
    for path in found {
        let copied =
            Command::new("cp").args(["-rs", "--update=none"]).arg(path.join(".")).arg(folder).output()?;
        if !copied.status.success() {
            run_command(Command::new("cp").args(["-rsn"]).arg(path.join(".")).arg(folder))?;
        }
    }
    Ok(())
}

/// The times of one tool with one workload, in seconds, or why there are none.
#[derive(Default)]
struct Cell {
    times: Vec<f64>,
    failed: Option<String>,
}

/// Measures, and prints the table.
pub(crate) fn run(workspace: &Workspace, is_quick: bool) -> Result<ExitCode> {
    let folder = workspace.target.join("peers");
    fs::create_dir_all(&folder)?;
    run_command(cargo().current_dir(&workspace.root).args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "heapscope",
    ]))?;
    let venv = folder.join("venv/bin/python");
    let places = Places {
        heapscope: workspace.target.join("release/heapscope"),
        holder: holder(workspace)?,
        object: ebpf::build_measuring_object(workspace)?,
        folder: folder.join("left"),
        headers: folder.join("headers"),
        python: if venv.exists() { venv } else { PathBuf::from("python3") },
    };
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut workloads = workloads::all(&folder, &places.python, port)?;
    if is_quick {
        workloads.retain(|workload| ["loop, 32 frames, 256 B", "python json"].contains(&workload.name));
    }
    let tools = tools::all();
    let mut cells: BTreeMap<(usize, usize), Cell> = BTreeMap::new();
    let mut stacks = vec![None; tools.len()];
    for round in 0..if is_quick { 1 } else { ROUNDS } {
        for (column, workload) in workloads.iter().enumerate() {
            for (row, tool) in tools.iter().enumerate() {
                let cell = cells.entry((row, column)).or_default();
                let is_for_it = !tool.python || workload.name.starts_with("python");
                if !is_for_it || cell.failed.is_some() || tool.is_slow && round > 0 {
                    continue;
                }
                match measure(&places, workload, tool) {
                    Ok((time, said)) => {
                        eprintln!(
                            "round {}: {}, {}: {:.4} s",
                            round + 1,
                            workload.name,
                            tool.name,
                            time.as_secs_f64()
                        );
                        cell.times.push(time.as_secs_f64());
                        if workload.name.starts_with("loop, 32") && stacks[row].is_none() {
                            stacks[row] = tool.stacks.and_then(|of| of(&places.folder, &said));
                        }
                    }
                    Err(error) => {
                        eprintln!("round {}: {}, {}: {error:#}", round + 1, workload.name, tool.name);
                        cell.failed = Some(format!("{error:#}"));
                    }
                }
            }
        }
    }
    print(&places, &workloads, &tools, &cells, &stacks);
    Ok(ExitCode::SUCCESS)
}

/// One run; how long the work took, and all that the tool and the program said.
fn measure(places: &Places, workload: &Workload, tool: &Tool) -> Result<(Duration, String)> {
    tools::empty(&places.folder)?;
    let launch = match (tool.how, workload.waits()) {
        (How::Launch(launch), _) => Some(launch),
        (How::Attach(..), false) => Some(tool.launched.context("cannot be there from its start")?),
        (How::Attach(..), true) => None,
    };
    if let Some(launch) = launch {
        let mut program = workload.start(launch(places, workload.command())?)?;
        let time = workload.work(&mut program)?;
        // A server ends by a signal; the tool around it may have a process of its own.
        if workload.name == "redis" {
            let _ = Command::new("redis-cli")
                .args(["-p", workload_port(workload), "shutdown", "nosave"])
                .output();
        }
        return Ok((time, program.end(None)?));
    }
    let How::Attach(attach, ready, signal) = tool.how else { bail!("cannot attach") };
    let mut program = workload.start(tools::plain(workload.command()))?;
    let holder = tools::attach(tool, attach(places, program.pid())?, ready)?;
    let time = workload.work(&mut program)?;
    if tool.name == "bcc memleak" {
        // It prints every two seconds, and not at its end.
        std::thread::sleep(Duration::from_millis(2500));
    }
    if tool.name.starts_with("heaptrack") {
        // What was injected ends with the program, and the tool with that.
        program.end(Some("-TERM"))?;
        return Ok((time, holder.end(None)?));
    }
    let said = holder.end(signal)?;
    let _ = program.end(Some("-TERM"));
    Ok((time, said))
}

fn workload_port(workload: &Workload) -> &str {
    let words = workload.command();
    words.iter().skip_while(|word| *word != "--port").nth(1).map_or("0", String::as_str)
}

/// The benchmark `cost`, which can hold probes that do nothing.
fn holder(workspace: &Workspace) -> Result<PathBuf> {
    let built = output(cargo().current_dir(&workspace.root).args([
        "bench",
        "--quiet",
        "--no-run",
        "-p",
        "heapscope",
        "--bench",
        "cost",
        "--message-format",
        "json",
    ]))?;
    let messages = built.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut executables = messages.filter_map(|message| {
        let is_it = message["target"]["name"] == "cost";
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    executables.next_back().context("cargo names no executable of the benchmark `cost`")
}

fn print(
    places: &Places,
    workloads: &[Workload],
    tools: &[Tool],
    cells: &BTreeMap<(usize, usize), Cell>,
    stacks: &[Option<f64>],
) {
    println!("{}\n", machine());
    let median = |row: usize, column: usize| cells.get(&(row, column)).and_then(|cell| median(&cell.times));
    println!("| tool | version | stacks to `main` | {} |", names(workloads));
    println!("|---|---|---|{}", "---|".repeat(workloads.len()));
    let mut notes = Vec::new();
    for (row, tool) in tools.iter().enumerate() {
        let version =
            tool.package.map_or_else(String::new, |package| tools::version(package, &places.python));
        let reach = stacks[row].map_or_else(String::new, |share| format!("{:.0}%", share * 100.0));
        let mut line = format!("| {} | {version} | {reach} |", tool.name);
        for (column, workload) in workloads.iter().enumerate() {
            let cell = cells.get(&(row, column));
            let alone = median(0, column).map(|(alone, ..)| alone);
            let shown = match (cell.and_then(median_of), alone) {
                (Some((time, least, most)), Some(alone)) => shown(workload, row, time, least, most, alone),
                _ => String::from("–"),
            };
            line.push_str(&format!(" {shown} |"));
            if let Some(failed) = cell.and_then(|cell| cell.failed.as_ref()) {
                notes.push(format!("- {}, {}: {}", tool.name, workload.name, failed.trim()));
            }
        }
        println!("{line}");
    }
    println!("\n{}", notes.join("\n"));
}

fn median_of(cell: &Cell) -> Option<(f64, f64, f64)> {
    median(&cell.times)
}

/// The median, the least and the most.
fn median(times: &[f64]) -> Option<(f64, f64, f64)> {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    Some((*times.get(times.len() / 2)?, *times.first()?, *times.last()?))
}

/// What a cell says: of the loops, nanoseconds added to a pair; of the others, the slowdown.
fn shown(workload: &Workload, row: usize, time: f64, least: f64, most: f64, alone: f64) -> String {
    if row == 0 {
        return workload
            .pairs
            .map_or_else(|| format!("{time:.2} s"), |pairs| format!("{:.0} ns", time * 1e9 / pairs as f64));
    }
    let spread = |of: &dyn Fn(f64) -> String| {
        if least == most {
            format!("{} (one run)", of(time))
        } else {
            format!("{} ({} to {})", of(time), of(least), of(most))
        }
    };
    match workload.pairs {
        Some(pairs) => spread(&|time| format!("{:+.0}", (time - alone) * 1e9 / pairs as f64)),
        None => spread(&|time| format!("{:.2}", time / alone)),
    }
}

fn names(workloads: &[Workload]) -> String {
    workloads.iter().map(|workload| workload.name).collect::<Vec<_>>().join(" | ")
}

/// The machine, in a line.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let virtual_machine = if cpus.contains(" hypervisor") { ", in a virtual machine" } else { "" };
    let processors = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let (model, kernel) = (model.map_or("unknown", |(_, model)| model), kernel.trim());
    format!(
        "{processors} processors of {model}{virtual_machine}, kernel {kernel}, glibc {}.",
        tools::version("libc6", Path::new(""))
    )
}
