//! The demonstration: a service that leaks, a client that keeps it busy, and heapscope attached to it.
//!
//! It checks what it shows: the leak must be the largest site and the cache the next one, else it fails.

mod accounted;
mod churning;
mod client;
mod interpreter;
mod load;
mod pace;
mod service;
mod story;
mod verdict;
mod watching;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    process::{as_root, run as run_command},
    workspace::{Workspace, cargo},
};
pub(crate) use churning::soak as soak_python;
use load::Load;
pub(crate) use pace::measure as measure_story;
use service::Service;
use verdict::Verdict;

/// How long the load may go on beyond the recording: attaching, symbolizing and writing take a part of it.
const LOAD_MARGIN: Duration = Duration::from_secs(120);

/// How to demonstrate.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long to record, in seconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: u64,
    /// The story that heapscope began with instead: an aiohttp service under CPython 3.7, with the leak and without. Where
    /// there is none, the newest python3 with an extension that leaks
    #[arg(long)]
    python: bool,
    /// `--python`: the interpreter to tell the story with
    #[arg(long, value_name = "PATH", requires = "python")]
    interpreter: Option<PathBuf>,
}

/// Runs `cargo xtask demo`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let folder = workspace.target.join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    println!("building heapscope");
    let heapscope = build_heapscope(workspace)?;
    if options.python {
        let time = Duration::from_secs(options.seconds);
        story::run(workspace, &heapscope, &folder, time, options.interpreter.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("building the demonstration service");
    let program = service::build(workspace, &folder)?;

    let service = Service::start(&mut Command::new(&program))?;
    println!(
        "service {} listens on 127.0.0.1:{}; it serves its first requests",
        service.pid(),
        service.port()
    );
    let load = Load::start(service.port(), Duration::from_secs(options.seconds) + LOAD_MARGIN, load::mix);

    let svg = folder.join("heapscope-demo.svg");
    let json = folder.join("heapscope-demo.json");
    let html = folder.join("heapscope-demo.html");
    // An old file must not pass for what this run wrote.
    for file in [&svg, &json, &html] {
        remove_if_there(file)?;
    }
    let before = service.account()?;
    let attached = attach(&heapscope, service.pid(), options.seconds, &[&svg, &json, &html]);
    let tally = load.stop();
    attached?;
    let after = service.account()?;
    drop(service);
    println!("the client sent {} requests; {} of them failed", tally.sent, tally.failed);

    let forgotten = after.leaked_bytes - before.leaked_bytes;
    let verdict = Verdict::of(&fs::read(&json).with_context(|| format!("reading {}", json.display()))?)?;
    verdict.check(forgotten)?;
    println!(
        "
{verdict}
The service itself counted {forgotten} bytes forgotten, from before the attach to after its end.

{svg}
  The flamegraph: open it in a browser. Its widest tower ends in {leak}: xtask/demo/sessions.c opens a
  session for each visitor without a cookie, then frees the session and not its profile. Beside it stands the
  cache of thumbnails, which is bounded. Drawing and searching allocate far more and free it all: no tower.
{html}
  The same to explore in a browser: the sentence at its top names the leak, a click on it shows the leaking line.
{json}
  The same account for programs: every site with its whole stack.",
        leak = verdict::LEAK,
        svg = workspace.shown(&svg),
        html = workspace.shown(&html),
        json = workspace.shown(&json),
    );
    Ok(ExitCode::SUCCESS)
}

fn build_heapscope(workspace: &Workspace) -> Result<PathBuf> {
    run_command(cargo().current_dir(&workspace.root).args([
        "build",
        "--release",
        "--package",
        "heapscope",
        "--bin",
        "heapscope",
    ]))?;
    Ok(workspace.target.join("release/heapscope"))
}

fn attach(heapscope: &Path, pid: u32, seconds: u64, outputs: &[&Path]) -> Result<()> {
    let mut command = as_root(heapscope, "attaching with eBPF")?;
    // The verdict compares block by block, whatever this machine is worth.
    command.arg("attach").arg(pid.to_string()).arg("--exact").arg("--duration").arg(format!("{seconds}s"));
    for output in outputs {
        command.arg("-o").arg(output);
    }
    run_command(&mut command)
}

fn remove_if_there(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the old {}", file.display()))
        }
        _ => Ok(()),
    }
}
