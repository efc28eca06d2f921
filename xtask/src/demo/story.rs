//! The story that heapscope began with: an aiohttp service that grew until the kernel killed it, unchanged, with the releases
//! of its libraries that it had then, and with the release of multidict that repaired it.
//!
//! They cannot be built for a Python other than 3.7. Where there is none, a service that needs only Python's own library
//! takes their place, with an extension of ours that forgets a block with each request.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    accounted::Accounted,
    client::Clients,
    interpreter::Interpreter,
    remove_if_there,
    service::Service,
    watching::{Moment, Watching},
};
use crate::{process::run as run_command, workspace::Workspace};

const AIOHTTP: &str = "3.4.4";
/// The release of multidict that leaks, and the next one.
const RELEASES: [&str; 2] = ["4.5.1", "4.5.2"];
/// Until the service has all that it needs: its caches, its compiled patterns, its arenas.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long heapscope goes on after the last request.
const REST: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 2;

/// A story: a service that leaks, the same without the leak, and where what leaks is allocated.
pub(super) struct Story {
    pub(super) leaking: Variant,
    repaired: Variant,
    /// The function in C.
    function: &'static str,
    /// The end of the file's path, and the line of Python below it.
    file: &'static str,
    line: u64,
    /// Bytes that each request leaves there, where they are known to the byte.
    bytes: Option<u64>,
    /// Why it is so, in a sentence.
    moral: String,
}

/// One of a story's services.
pub(super) struct Variant {
    /// For people.
    pub(super) name: String,
    /// For files.
    key: String,
    program: PathBuf,
    arguments: Vec<PathBuf>,
}

impl Variant {
    /// Starts it.
    pub(super) fn start(&self) -> Result<Service> {
        Service::start(Command::new(&self.program).args(&self.arguments))
    }
}

impl Story {
    /// The story that can be told here; `asked` is a Python to tell it with.
    pub(super) fn prepare(workspace: &Workspace, folder: &Path, asked: Option<&Path>) -> Result<Self> {
        let python = Interpreter::choose(asked)?;
        println!("Python 3.{}: {}", python.minor, python.path.display());
        let sources = workspace.root.join("xtask/demo");
        if python.has_the_story() {
            Self::as_it_was(&python, &sources, folder)
        } else {
            Self::of_ours(&python, &sources, folder)
        }
    }

    fn as_it_was(python: &Interpreter, sources: &Path, folder: &Path) -> Result<Self> {
        let [leaking, repaired] = RELEASES.map(|release| {
            let key = format!("multidict-{release}");
            let program = environment(&python.path, &folder.join(&key), release)?;
            let name = format!("aiohttp {AIOHTTP} with multidict {release}");
            Ok::<_, anyhow::Error>(Variant { name, key, program, arguments: vec![sources.join("echo.py")] })
        });
        Ok(Self {
            leaking: leaking?,
            repaired: repaired?,
            function: "pair_list_new",
            file: "aiohttp/web_response.py",
            line: 56,
            bytes: None,
            moral: "a block for each answer's headers, kept by whoever asks a view of them for its length"
                .into(),
        })
    }

    fn of_ours(python: &Interpreter, sources: &Path, folder: &Path) -> Result<Self> {
        let (source, script) = (sources.join("forgetful.c"), sources.join("plain.py"));
        let folder = folder.join(format!("forgetful-3.{}", python.minor));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let library = folder.join("forgetful.so");
        let mut compiler = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
        compiler.args(["-O2", "-g", "-Wall", "-shared", "-fPIC"]);
        let (how, place) = match &python.headers {
            Some(headers) => {
                compiler.arg("-DFORGETFUL_MODULE").arg("-I").arg(headers);
                ("module", folder)
            }
            None => ("ctypes", library.clone()),
        };
        println!("building its extension, as a {how}");
        run_command(compiler.arg("-o").arg(&library).arg(source))
            .context("the extension is written in C and needs a C compiler (Debian: apt-get install gcc)")?;
        let text = fs::read_to_string(&script)?;
        let line =
            text.lines().position(|line| line.trim() == "keep(KEPT)").context("plain.py keeps nothing")?;
        let variant = |key: &str, name: String, more: Vec<PathBuf>| Variant {
            name,
            key: format!("plain-{key}"),
            program: python.path.clone(),
            arguments: [script.clone()].into_iter().chain(more).collect(),
        };
        let leaking = format!("asyncio with an extension that forgets, as a {how}");
        Ok(Self {
            leaking: variant("leaking", leaking, vec![how.into(), place]),
            repaired: variant("flat", "the same without it".into(), vec!["flat".into()]),
            function: "forgetful_keep",
            file: "plain.py",
            line: line as u64 + 1,
            bytes: Some(1024),
            moral: "a block for each request, which the extension forgets".into(),
        })
    }

    /// Whether the largest site is that of the story, with a block for each request.
    fn check_leak(&self, run: &Run) -> Result<()> {
        let site = run.report["sites"].get(0).context("nothing is live")?;
        let stack = site["stack"].as_array().context("a site has no `stack`")?;
        let is_function =
            |frame: &Value| frame["function"].as_str().is_some_and(|f| f.contains(self.function));
        let is_line = |frame: &Value| {
            frame["file"].as_str().is_some_and(|file| file.ends_with(self.file))
                && frame["line"].as_u64() == Some(self.line)
        };
        let (function, line) = (stack.iter().position(is_function), stack.iter().position(is_line));
        match (function, line) {
            (Some(function), Some(line)) if function < line => {}
            _ => bail!(
                "the largest site is not {} below {}:{}, but: {site}",
                self.function,
                self.file,
                self.line
            ),
        }
        let number = |name: &str| site[name].as_u64().unwrap_or_default();
        let (blocks, bytes) = (number("inuse_objects"), number("inuse_space"));
        // Idle connections may hold the blocks of the last requests that they served, and of those before the first.
        ensure!(
            blocks.abs_diff(run.requests) <= 2 * CONNECTIONS as u64,
            "{blocks} blocks were recorded at the site, but {} requests were answered meanwhile",
            run.requests
        );
        if let Some(each) = self.bytes {
            ensure!(bytes == blocks * each, "{bytes} bytes in {blocks} blocks of {each}");
        }
        Ok(())
    }
}

/// What one run came to.
struct Run {
    requests: u64,
    accounted: Accounted,
    report: Value,
    svg: PathBuf,
}

impl Run {
    /// Live bytes and blocks after the attach.
    fn total(&self, name: &str) -> Result<u64> {
        self.report["totals"][name].as_u64().with_context(|| format!("no `{name}`"))
    }
}

/// Runs `cargo xtask demo --python`.
pub(super) fn run(
    workspace: &Workspace,
    heapscope: &Path,
    folder: &Path,
    time: Duration,
    asked: Option<&Path>,
) -> Result<()> {
    let story = Story::prepare(workspace, folder, asked)?;
    let leaking = watch(heapscope, &story.leaking, folder, time)?;
    let repaired = watch(heapscope, &story.repaired, folder, time)?;
    println!();
    for (variant, run) in [(&story.leaking, &leaking), (&story.repaired, &repaired)] {
        let (space, objects) = (run.total("inuse_space")?, run.total("inuse_objects")?);
        println!("{}: {space} bytes live in {objects} blocks; {} requests", variant.name, run.requests);
    }
    println!("\n{}\n{:>11.1}  the same without the leak", leaking.accounted, repaired.accounted.growth());
    story.check_leak(&leaking)?;
    leaking.accounted.check()?;
    ensure!(
        repaired.total("inuse_space")?.saturating_mul(10) < leaking.total("inuse_space")?,
        "{} was to be flat",
        story.repaired.name
    );
    println!("\nThe site is {} below {}:{}: {}.", story.function, story.file, story.line, story.moral);
    println!("{}\n  The flamegraph.", workspace.shown(&leaking.svg));
    Ok(())
}

fn watch(heapscope: &Path, variant: &Variant, folder: &Path, time: Duration) -> Result<Run> {
    println!("\n{}", variant.name);
    let service = variant.start()?;
    let mut clients = Clients::connect(service.port(), CONNECTIONS)?;
    clients.send(WARM_UP)?;
    let file = |kind: &str| folder.join(format!("{}.{kind}", variant.key));
    let (svg, json) = (file("svg"), file("json"));
    for file in [&svg, &json] {
        remove_if_there(file)?;
    }
    let outputs = ["--exact", "-o", &svg.to_string_lossy(), "-o", &json.to_string_lossy()];
    let mut watching = Watching::start(heapscope, service.pid(), time + REST, &outputs)?;
    watching.until_attached()?;
    let look = || Moment::of(service.pid(), service.port());
    let before = look()?;
    clients.send(time)?;
    let after = look()?;
    watching.end()?;
    let requests = after.requests - before.requests;
    let report: Value = serde_json::from_slice(&fs::read(&json)?).context("reading the recording's JSON")?;
    let accounted = Accounted::of(&report, requests, after.resident - before.resident)?;
    Ok(Run { requests, accounted, report, svg })
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
