//! `cargo xtask soak --python`: an aiohttp service that makes and drops code all the time, watched for minutes. No stack may
//! name code that was there before, and nothing may grow.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{LOAD_MARGIN, build_heapscope, load, load::Load, remove_if_there, service::Service};
use crate::{
    process::{as_root, find_program, run as run_command},
    workspace::Workspace,
};

/// As in xtask/demo/churning.py; a bytearray has a byte behind its own.
const FIRST_SIZE: u64 = 20_000 + 1;
const FUNCTIONS: u64 = 200;
/// The resident memory is read this far apart.
const READ_EVERY: Duration = Duration::from_secs(5);
/// What the median of heapscope's resident memory may grow by from the third quarter of the time to the last, in KiB.
const MOST_GROWTH: u64 = 2048;

/// Runs it.
pub(crate) fn soak(workspace: &Workspace, minutes: u64) -> Result<()> {
    let folder = workspace.target.join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let heapscope = build_heapscope(workspace)?;
    let interpreter = environment(&folder.join("churning"))?;
    let service =
        Service::start(Command::new(interpreter).arg(workspace.root.join("xtask/demo/churning.py")))?;
    let seconds = minutes * 60;
    let load = Load::start(service.port(), Duration::from_secs(seconds) + LOAD_MARGIN, |_| {
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
            .to_owned()
    });
    let json = folder.join("churning.json");
    remove_if_there(&json)?;
    let mut command = as_root(&heapscope, "attaching with eBPF")?;
    command.args([
        "attach",
        &service.pid().to_string(),
        "--quiet",
        "--duration",
        &format!("{seconds}s"),
        "-o",
    ]);
    let mut watching = command.arg(&json).stdout(Stdio::null()).spawn().context("starting heapscope")?;
    let began = Instant::now();
    let mut readings = Vec::new();
    // By its end, naming and writing are under way, which take memory of their own.
    while watching.try_wait()?.is_none() {
        thread::sleep(READ_EVERY);
        if began.elapsed() < Duration::from_secs(seconds) {
            readings.extend(Reading::of(watching.id()));
        }
    }
    let requests = requests(service.port())?;
    let tally = load.stop();
    ensure!(tally.failed == 0, "{} of {} requests failed", tally.failed, tally.sent);
    let report: Value = serde_json::from_slice(&fs::read(&json)?).context("reading the recording's JSON")?;
    let names = Names::of(&report)?;
    let steady = Steady::of(&readings).context("it ended before its memory could be read")?;
    println!(
        "{minutes} min: {requests} requests, {} functions made; {} sites in the profile",
        requests * 5,
        report["sites"].as_array().map_or(0, Vec::len)
    );
    println!(
        "of {} kept blocks: {} named right, {} gone, {} wrong",
        names.all, names.right, names.gone, names.wrong
    );
    println!(
        "resident: {} KiB at the start, {} and {} KiB the medians of the last two quarters; maps of the kernel: {} KiB at \
         the start, {} at the end",
        steady.first.resident, steady.third, steady.last, steady.first.locked, steady.end.locked
    );
    println!("lost: {}\nwarnings: {}", report["quality"]["lost"], report["quality"]["warnings"]);
    ensure!(names.wrong == 0, "wrong names");
    ensure!(names.right * 100 >= names.all * 99, "names are missing");
    ensure!(steady.last <= steady.third + MOST_GROWTH, "heapscope grows");
    Ok(())
}

/// An environment with aiohttp; its interpreter.
fn environment(folder: &Path) -> Result<PathBuf> {
    let interpreter = folder.join("bin/python");
    if !interpreter.exists() {
        let python = find_program("python3", &[]).context("no python3 in PATH")?;
        run_command(Command::new(python).args(["-m", "venv"]).arg(folder))?;
    }
    let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "aiohttp"];
    run_command(Command::new(&interpreter).args(pip))
        .context("aiohttp comes from the Python package index")?;
    Ok(interpreter)
}

fn requests(port: u16) -> Result<u64> {
    let asked = "GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let stats: Value = serde_json::from_slice(&load::request(port, asked)?)?;
    stats["requests"].as_u64().with_context(|| format!("the service's /stats have no `requests`: {stats}"))
}

/// Memory at a moment, in KiB.
#[derive(Clone, Copy)]
struct Reading {
    resident: u64,
    /// Of BPF maps and programs (`memlock` in `/proc/PID/fdinfo`).
    locked: u64,
}

impl Reading {
    fn of(pid: u32) -> Option<Self> {
        let number = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?;
        let locked = descriptors.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
        let locked: u64 = locked.filter_map(|text| number(&text, "memlock")).sum();
        Some(Self { resident: number(&status, "VmRSS")?, locked: locked / 1024 })
    }
}

struct Steady {
    first: Reading,
    end: Reading,
    /// Medians of the resident memory.
    third: u64,
    last: u64,
}

impl Steady {
    fn of(readings: &[Reading]) -> Option<Self> {
        let quarter = readings.len() / 4;
        let median = |of: &[Reading]| {
            let mut of: Vec<u64> = of.iter().map(|reading| reading.resident).collect();
            of.sort_unstable();
            of.get(of.len() / 2).copied()
        };
        Some(Self {
            first: *readings.first()?,
            end: *readings.last()?,
            third: median(readings.get(quarter * 2..quarter * 3)?)?,
            last: median(readings.get(quarter * 3..)?)?,
        })
    }
}

/// What became of the blocks that the service keeps.
#[derive(Default)]
struct Names {
    all: u64,
    right: u64,
    gone: u64,
    wrong: u64,
}

impl Names {
    fn of(report: &Value) -> Result<Self> {
        let mut names = Self::default();
        for site in report["sites"].as_array().context("the JSON has no `sites`")? {
            let (objects, space) = (site["inuse_objects"].as_u64(), site["inuse_space"].as_u64());
            let (Some(objects @ 1..), Some(space)) = (objects, space) else { continue };
            let Some(which) = (space / objects).checked_sub(FIRST_SIZE).filter(|which| *which < FUNCTIONS)
            else {
                continue;
            };
            let frames = site["stack"].as_array().context("a site has no `stack`")?;
            let named = |frame: &&Value| frame["file"].as_str().is_some_and(|file| file.starts_with("made_"));
            let Some(made) = frames.iter().find(named) else {
                names.all += objects;
                names.gone += objects;
                continue;
            };
            let is_right = made["function"] == format!("made_{which:03}")
                && made["file"] == format!("made_{which:03}.py")
                && made["line"].as_u64() == Some(which % 7 + 2)
                && space == objects * (FIRST_SIZE + which);
            names.all += objects;
            *(if is_right { &mut names.right } else { &mut names.wrong }) += objects;
        }
        Ok(names)
    }
}
