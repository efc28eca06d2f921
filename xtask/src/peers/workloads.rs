//! What is slowed down: each a program that says when it is ready, works when it is told to, and says when it is done.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::program::{Program, TIMED_OUT};
use crate::process::run;

/// One of them.
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// The command line.
    command: Vec<String>,
    kind: Kind,
    /// Pairs of calls, where it is a loop of them.
    pub(super) pairs: Option<u64>,
}

enum Kind {
    /// Told what to do by this text, after that one has had it say that it is ready.
    Told { hello: &'static str, go: String },
    /// A server, loaded by this command, and ended by the other.
    Served { load: Vec<String>, end: Vec<String> },
    /// Works from its start to its end; its command line contains this.
    Whole { marker: String },
}

/// How long any step may take before it counts as hung. What is measured takes a few seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);

const PYTHON: &str = "import json, sys
data = [{'id': i, 'name': 'name %d' % i, 'tags': ['a', 'b', str(i)], 'price': i * 1.5} for i in range(2000)]
print('ready', flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[1])):
    json.loads(json.dumps(data))
print('done', flush=True)
print('kept', flush=True)
sys.stdin.readline()
";

/// How much each has to do at full length.
const PAIRS: u64 = 1_000_000;
const PYTHON_ROUNDS: u64 = 250;
const SQL_ROWS: u64 = 300_000;
const REDIS_REQUESTS: u64 = 180_000;
const CPP_TYPES: u64 = 8;

/// A file that uses the standard library's containers with so many types.
fn cpp(types: u64) -> String {
    let mut text =
        String::from("#include <algorithm>\n#include <map>\n#include <string>\n#include <vector>\n");
    for number in 0..types {
        let _ = write!(
            text,
            "struct T{number} {{ int key; std::string name; bool operator<(const T{number} &o) const {{ return key < o.key; }} }};\n\
             int use{number}() {{ std::map<std::string, std::vector<T{number}>> words; words[\"a\"].push_back({{1, \"b\"}}); \
             std::sort(words[\"a\"].begin(), words[\"a\"].end()); return (int)words.size(); }}\n"
        );
    }
    text
}

fn sql(rows: u64) -> String {
    format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, price REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
  INSERT INTO t SELECT i, 'name ' || i, i * 1.5 FROM n;
CREATE INDEX by_name ON t(name);
SELECT count(*), group_concat(substr(name, 1, 8)) IS NULL, sum(price) FROM t WHERE name LIKE '%7%' GROUP BY id % 500 LIMIT 1;
SELECT count(DISTINCT upper(name)) FROM t;
.print done
.print kept
"
    )
}

/// All of them, with an n-th of their work where it is `shortened` n times; what they are made of lies in `folder`.
pub(super) fn all(folder: &Path, python: &Path, port: u16, shortened: u64) -> Result<Vec<Workload>> {
    let loops = folder.join("loops");
    fs::write(folder.join("loops.c"), include_str!("loops.c"))?;
    run(Command::new("cc")
        .args(["-O2", "-fomit-frame-pointer", "-fno-builtin", "-g", "-pthread", "-o"])
        .arg(&loops)
        .arg(folder.join("loops.c")))?;
    fs::write(folder.join("work.py"), PYTHON)?;
    let unit = folder.join(format!("unit-{shortened}.cpp"));
    fs::write(&unit, cpp((CPP_TYPES / shortened).max(1)))?;
    let pairs = PAIRS / shortened;
    let looped = |name, threads: u64, depth: u32, size: u32| Workload {
        name,
        command: vec![
            text(&loops),
            threads.to_string(),
            depth.to_string(),
            size.to_string(),
            pairs.to_string(),
        ],
        kind: Kind::Told { hello: "", go: "go\n".into() },
        pairs: Some(pairs),
    };
    let object = text(&folder.join(format!("unit-{shortened}.o")));
    let (port, requests) = (port.to_string(), REDIS_REQUESTS / shortened);
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    Ok(vec![
        looped("loop, 8 frames, 16 B", 1, 8, 16),
        looped("loop, 32 frames, 256 B", 1, 32, 256),
        looped("loop, 100 frames, 4096 B", 1, 100, 4096),
        looped("2 threads, 32 frames, 256 B", 2, 32, 256),
        Workload {
            name: "python json",
            command: vec![
                text(python),
                text(&folder.join("work.py")),
                (PYTHON_ROUNDS / shortened).max(1).to_string(),
            ],
            kind: Kind::Told { hello: "", go: "go\n".into() },
            pairs: None,
        },
        Workload {
            name: "sqlite",
            command: words("sqlite3 :memory:"),
            kind: Kind::Told { hello: ".print ready\n", go: sql(SQL_ROWS / shortened) },
            pairs: None,
        },
        Workload {
            name: "redis",
            command: words(&format!(
                "redis-server --bind 127.0.0.1 --port {port} --save  --appendonly no --activerehashing no"
            )),
            kind: Kind::Served {
                load: words(&format!(
                    "timeout {} redis-benchmark -p {port} -t set -n {requests} -r 100000 -d 400 -q",
                    PATIENCE.as_secs()
                )),
                end: words(&format!("timeout 5 redis-cli -p {port} shutdown nosave")),
            },
            pairs: None,
        },
        Workload {
            name: "clang++ -O1",
            command: vec![
                // bpftrace takes no name that two folders of PATH have.
                text(&located("clang++")),
                "-O1".into(),
                "-c".into(),
                text(&unit),
                "-o".into(),
                object.clone(),
            ],
            kind: Kind::Whole { marker: object },
            pairs: None,
        },
    ])
}

/// The first program of this name in PATH; its name alone where there is none.
fn located(name: &str) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| name.into())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Workload {
    /// Its command line.
    pub(super) fn command(&self) -> &[String] {
        &self.command
    }

    /// Whether a tool can attach before the work begins.
    pub(super) fn waits(&self) -> bool {
        !matches!(self.kind, Kind::Whole { .. })
    }

    /// Starts it, so far that a tool can attach.
    pub(super) fn start(&self, mut command: Command) -> Result<Program> {
        let mut program = Program::start(&mut command)?;
        match &self.kind {
            Kind::Told { hello, .. } => {
                program.say(hello)?;
                program.hear("ready", PATIENCE)?;
            }
            Kind::Served { .. } => program.hear("Ready to accept connections", PATIENCE)?,
            Kind::Whole { .. } => {}
        }
        Ok(program)
    }

    /// Has it do its work; how long that took.
    pub(super) fn work(&self, program: &mut Program) -> Result<Duration> {
        match &self.kind {
            Kind::Told { go, .. } => {
                let began = Instant::now();
                program.say(go)?;
                program.hear("done", PATIENCE)?;
                let time = began.elapsed();
                program.hear("kept", PATIENCE)?;
                Ok(time)
            }
            Kind::Served { load, .. } => {
                let began = Instant::now();
                let output = command_of(load)?.output()?;
                match output.status.code() {
                    Some(0) => Ok(began.elapsed()),
                    // What timeout(1) answers.
                    Some(124) => bail!("{TIMED_OUT}: the load took more than {} s", PATIENCE.as_secs()),
                    _ => bail!("redis-benchmark failed: {}", String::from_utf8_lossy(&output.stderr)),
                }
            }
            Kind::Whole { marker } => life_of(marker, program),
        }
    }

    /// Ends what the tool that started it may not have as its own child.
    pub(super) fn stop(&self) {
        if let Kind::Served { end, .. } = &self.kind
            && let Ok(mut command) = command_of(end)
        {
            let _ = command.output();
        }
    }
}

fn command_of(words: &[String]) -> Result<Command> {
    let mut command = Command::new(words.first().context("no command")?);
    command.args(words.iter().skip(1));
    Ok(command)
}

/// How long a process lives whose command line contains this. The tool that starts it may take long before and afterwards.
fn life_of(marker: &str, program: &mut Program) -> Result<Duration> {
    let waited = Instant::now();
    let (process, began) = loop {
        if let Some(process) = find(marker) {
            break (process, Instant::now());
        }
        if waited.elapsed() > PATIENCE {
            bail!("{TIMED_OUT}: the compiler was not started: {}", program.last_words());
        }
        if !program.is_alive() {
            bail!("the compiler was not started: {}", program.last_words());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let lives = || {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    };
    while lives() {
        if began.elapsed() > PATIENCE {
            bail!("{TIMED_OUT}: the compiler has not ended after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(began.elapsed())
}

fn find(marker: &str) -> Option<PathBuf> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.map(|entry| entry.path()).find(|path| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let program = words.first().map(|word| word.rsplit('/').next().unwrap_or_default().to_owned());
        // valgrind becomes what it runs and keeps its own name.
        let runs = |program: &String| program.starts_with("clang") || program.starts_with("valgrind");
        program.as_ref().is_some_and(runs) && words.iter().any(|word| word == marker)
    })
}
