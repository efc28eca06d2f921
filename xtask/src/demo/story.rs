//! The story that heapscope began with: an aiohttp service that grew until the kernel killed it, unchanged, with the releases
//! of its libraries that it had then, and with the release of multidict that repaired it.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{attach, load, load::Load, remove_if_there, service::Service};
use crate::{
    process::{find_program, run as run_command, succeeds},
    workspace::Workspace,
};

const AIOHTTP: &str = "3.4.4";
/// The release of multidict that leaks, and the next one.
const RELEASES: [&str; 2] = ["4.5.1", "4.5.2"];
/// Where what leaks is allocated: in C, and the line of Python below it.
const FUNCTION: &str = "pair_list_new";
const LINE: (&str, u64) = ("aiohttp/web_response.py", 56);
/// Until the service has all that it needs: its caches, its compiled patterns, its arenas.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the load may go on beyond the recording.
const LOAD_MARGIN: Duration = Duration::from_secs(60);

/// What one run came to.
struct Run {
    release: &'static str,
    requests: u64,
    /// How much the service's resident set grew, in bytes.
    grown: i64,
    /// Live bytes and blocks, and the largest site.
    space: u64,
    objects: u64,
    largest: Option<Value>,
}

/// Runs `cargo xtask demo --python`.
pub(super) fn run(workspace: &Workspace, heapscope: &Path, folder: &Path, seconds: u64) -> Result<()> {
    let python = python()?;
    let source = workspace.root.join("xtask/demo/echo.py");
    let [leaking, repaired] = RELEASES.map(|release| {
        println!("\naiohttp {AIOHTTP} with multidict {release}");
        let interpreter = environment(&python, &folder.join(format!("multidict-{release}")), release)?;
        watch(heapscope, Command::new(interpreter).arg(&source), folder, release, seconds)
    });
    let (leaking, repaired) = (leaking?, repaired?);
    leaking.check_leak()?;
    ensure!(
        repaired.space.saturating_mul(10) < leaking.space,
        "multidict {} was to be flat, but {repaired}",
        repaired.release
    );
    println!("\n{leaking}\n{repaired}\n");
    println!(
        "The site is {FUNCTION} below {}:{}: a block for each answer's headers, kept by whoever asks a view of them for \
         its length.",
        LINE.0, LINE.1
    );
    println!("{}\n  The flamegraph.", workspace.shown(&folder.join(svg(leaking.release))));
    Ok(())
}

fn svg(release: &str) -> String {
    format!("multidict-{release}.svg")
}

/// A CPython 3.7 that can make environments.
fn python() -> Result<PathBuf> {
    let pyenv = env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let versions = pyenv.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let versions =
        versions.into_iter().flatten().flatten().map(|version| version.path().join("bin/python3.7"));
    let mut candidates = versions.chain(find_program("python3.7", &[]));
    candidates.find(|python| succeeds(Command::new(python).args(["-c", "import venv, ensurepip"]))).context(
        "the story needs CPython 3.7, as python3.7 in PATH or under pyenv (pyenv install 3.7.16): these releases of its \
         libraries cannot be built for a later one",
    )
}

/// An environment with the libraries of the story; its interpreter.
fn environment(python: &Path, folder: &Path, release: &str) -> Result<PathBuf> {
    let interpreter = folder.join("bin/python");
    let packages = [format!("aiohttp=={AIOHTTP}"), format!("multidict=={release}")];
    if !interpreter.exists() {
        run_command(Command::new(python).args(["-m", "venv"]).arg(folder))?;
    }
    let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install"];
    run_command(Command::new(&interpreter).args(pip).args(&packages))
        .context("the libraries of the story come from the Python package index")?;
    Ok(interpreter)
}

fn watch(
    heapscope: &Path,
    program: &mut Command,
    folder: &Path,
    release: &'static str,
    seconds: u64,
) -> Result<Run> {
    let service = Service::start(program)?;
    let limit = WARM_UP + Duration::from_secs(seconds) + LOAD_MARGIN;
    let load = Load::start(service.port(), limit, |_| {
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
            .to_owned()
    });
    thread::sleep(WARM_UP);
    let (svg, json) = (folder.join(svg(release)), folder.join(format!("multidict-{release}.json")));
    for file in [&svg, &json] {
        remove_if_there(file)?;
    }
    let (requests, resident) = (requests(service.port())?, resident(service.pid())?);
    let attached = attach(heapscope, service.pid(), seconds, &[&svg, &json]);
    let (requests, grown) =
        (self::requests(service.port())? - requests, self::resident(service.pid())? - resident);
    let tally = load.stop();
    attached?;
    ensure!(tally.failed == 0, "{} of {} requests failed", tally.failed, tally.sent);
    let report: Value = serde_json::from_slice(&fs::read(&json)?).context("reading the recording's JSON")?;
    let total = |name: &str| report["totals"][name].as_u64().with_context(|| format!("no `{name}`"));
    Ok(Run {
        release,
        requests,
        grown,
        space: total("inuse_space")?,
        objects: total("inuse_objects")?,
        largest: report["sites"].get(0).cloned(),
    })
}

/// Requests that the service has answered.
fn requests(port: u16) -> Result<u64> {
    let asked = "GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let stats: Value = serde_json::from_slice(&load::request(port, asked)?)?;
    stats["requests"].as_u64().with_context(|| format!("the service's /stats have no `requests`: {stats}"))
}

/// A process's resident set, in bytes (`VmRSS` of proc_pid_status(5)).
fn resident(pid: u32) -> Result<i64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: i64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

impl Run {
    /// Whether the largest site is that of the story, with a block for each request.
    fn check_leak(&self) -> Result<()> {
        let site = self.largest.as_ref().context("nothing is live")?;
        let stack = site["stack"].as_array().context("a site has no `stack`")?;
        let is_function = |frame: &Value| frame["function"].as_str().is_some_and(|f| f.contains(FUNCTION));
        let is_line = |frame: &Value| {
            frame["file"].as_str().is_some_and(|file| file.ends_with(LINE.0))
                && frame["line"].as_u64() == Some(LINE.1)
        };
        let (function, line) = (stack.iter().position(is_function), stack.iter().position(is_line));
        match (function, line) {
            (Some(function), Some(line)) if function < line => {}
            _ => bail!("the largest site is not {FUNCTION} below {}:{}, but: {site}", LINE.0, LINE.1),
        }
        let blocks = site["inuse_objects"].as_u64().unwrap_or_default();
        // The service counts from before the attach to after its end.
        ensure!(
            blocks <= self.requests && blocks * 10 >= self.requests * 8,
            "{blocks} blocks were recorded at the site, but {} requests were answered meanwhile",
            self.requests
        );
        Ok(())
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "multidict {}: {} bytes live in {} blocks after the attach; meanwhile {} requests, and the resident set grew by \
             {} bytes",
            self.release, self.space, self.objects, self.requests, self.grown
        )
    }
}
