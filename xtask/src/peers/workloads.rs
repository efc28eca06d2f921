//! What is slowed down: each a program that says when it is ready, works when it is told to, and says when it is done.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::program::Program;
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
    /// A server, loaded by this command.
    Served { load: Vec<String> },
    /// Works from its start to its end; its command line contains this.
    Whole { marker: String },
}

/// How long any of them may take before it counts as hung.
pub(super) const HANG: Duration = Duration::from_secs(120);

const PYTHON: &str = "import json, sys
data = [{'id': i, 'name': 'name %d' % i, 'tags': ['a', 'b', str(i)], 'price': i * 1.5} for i in range(2000)]
print('ready', flush=True)
sys.stdin.readline()
for _ in range(25):
    json.loads(json.dumps(data))
print('done', flush=True)
print('kept', flush=True)
sys.stdin.readline()
";

const CPP: &str = "#include <algorithm>\n#include <map>\n#include <string>\n#include <vector>\n\
int main() { std::map<std::string, std::vector<int>> words; words[\"a\"].push_back(1); \
std::sort(words[\"a\"].begin(), words[\"a\"].end()); return words.size() == 1 ? 0 : 1; }\n";

const SQL: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, price REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
  INSERT INTO t SELECT i, 'name ' || i, i * 1.5 FROM n;
CREATE INDEX by_name ON t(name);
SELECT count(*), group_concat(substr(name, 1, 8)) IS NULL, sum(price) FROM t WHERE name LIKE '%7%' GROUP BY id % 500 LIMIT 1;
SELECT count(DISTINCT upper(name)) FROM t;
.print done
.print kept
";

/// All of them; what they are made of lies in `folder`.
pub(super) fn all(folder: &Path, python: &Path, port: u16) -> Result<Vec<Workload>> {
    let loops = folder.join("loops");
    fs::write(folder.join("loops.c"), include_str!("loops.c"))?;
    run(Command::new("cc")
        .args(["-O2", "-fomit-frame-pointer", "-fno-builtin", "-g", "-pthread", "-o"])
        .arg(&loops)
        .arg(folder.join("loops.c")))?;
    fs::write(folder.join("work.py"), PYTHON)?;
    fs::write(folder.join("unit.cpp"), CPP)?;
    let pairs = 50_000;
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
    let object = text(&folder.join("unit.o"));
    let port = port.to_string();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    Ok(vec![
        looped("loop, 8 frames, 16 B", 1, 8, 16),
        looped("loop, 32 frames, 256 B", 1, 32, 256),
        looped("loop, 100 frames, 4096 B", 1, 100, 4096),
        looped("2 threads, 32 frames, 256 B", 2, 32, 256),
        Workload {
            name: "python json",
            command: vec![text(python), text(&folder.join("work.py"))],
            kind: Kind::Told { hello: "", go: "go\n".into() },
            pairs: None,
        },
        Workload {
            name: "sqlite",
            command: words("sqlite3 :memory:"),
            kind: Kind::Told { hello: ".print ready\n", go: SQL.into() },
            pairs: None,
        },
        Workload {
            name: "redis",
            command: words(&format!(
                "redis-server --bind 127.0.0.1 --port {port} --save  --appendonly no --activerehashing no"
            )),
            kind: Kind::Served {
                load: words(&format!("redis-benchmark -p {port} -t set -n 30000 -r 100000 -d 400 -q")),
            },
            pairs: None,
        },
        Workload {
            name: "clang++ -O1",
            command: vec![
                "clang++".into(),
                "-O1".into(),
                "-c".into(),
                text(&folder.join("unit.cpp")),
                "-o".into(),
                object.clone(),
            ],
            kind: Kind::Whole { marker: object },
            pairs: None,
        },
    ])
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
                program.hear("ready", HANG)?;
            }
            Kind::Served { .. } => program.hear("Ready to accept connections", HANG)?,
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
                program.hear("done", HANG)?;
                let time = began.elapsed();
                program.hear("kept", HANG)?;
                Ok(time)
            }
            Kind::Served { load } => {
                let began = Instant::now();
                let mut command = Command::new(load.first().context("no load")?);
                let output = command.args(load.iter().skip(1)).output()?;
                if !output.status.success() {
                    bail!("redis-benchmark failed: {}", String::from_utf8_lossy(&output.stderr));
                }
                Ok(began.elapsed())
            }
            Kind::Whole { marker } => life_of(marker, program),
        }
    }
}

/// How long a process lives whose command line contains this. The tool that starts it may take long before and afterwards.
fn life_of(marker: &str, program: &mut Program) -> Result<Duration> {
    let waited = Instant::now();
    let (process, began) = loop {
        if let Some(process) = find(marker) {
            break (process, Instant::now());
        }
        if waited.elapsed() > HANG || !program.is_alive() {
            bail!("the compiler was not started: {}", program.last_words());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let lives = || {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    };
    while lives() {
        if began.elapsed() > HANG {
            bail!("the compiler has not ended after {} s", HANG.as_secs());
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
        program.is_some_and(|program| program.starts_with("clang")) && words.iter().any(|word| word == marker)
    })
}
