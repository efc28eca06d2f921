//! The demonstration service: built from xtask/demo with the system's C compiler, started, asked, stopped.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::load;
use crate::{process::run, workspace::Workspace};

const SOURCES: &[&str] = &["server.c", "sessions.c", "images.c", "search.c"];

/// As a distribution builds its programs: optimised, without frame pointers, debug information kept.
const FLAGS: &[&str] = &["-std=gnu11", "-Wall", "-Wextra", "-O2", "-g", "-fomit-frame-pointer", "-pthread"];

/// Compiles the service into `folder`.
pub(super) fn build(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let program = folder.join("heapscope-demo-service");
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let sources = workspace.root.join("xtask/demo");
    run(Command::new(compiler)
        .args(FLAGS)
        .arg("-o")
        .arg(&program)
        .args(SOURCES.iter().map(|source| sources.join(source))))
    .context(
        "the demonstration service is written in C and needs a C compiler (Debian: apt-get install gcc)",
    )?;
    Ok(program)
}

/// A running service. It is stopped when this is dropped.
pub(super) struct Service {
    child: Child,
    port: u16,
}

/// What the service says of its own memory, in bytes asked for since it started.
pub(super) struct Account {
    /// Profiles that no session owns any more.
    pub(super) leaked_bytes: u64,
}

impl Service {
    /// Starts it and waits until it listens.
    pub(super) fn start(program: &mut Command) -> Result<Self> {
        let child = program
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.get_program().display()))?;
        let mut service = Self { child, port: 0 };
        let output = service.child.stdout.take().context("the service has no standard output")?;
        let mut line = String::new();
        // It prints this one line only, so that nothing is lost when the pipe closes behind it.
        BufReader::new(output).read_line(&mut line)?;
        service.port = line
            .trim_end()
            .strip_prefix("listening on 127.0.0.1:")
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("the service did not say where it listens, but {line:?}"))?;
        Ok(service)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The loopback port that it listens on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Asks the service for its own account.
    pub(super) fn account(&self) -> Result<Account> {
        let body = load::request(self.port, "GET /stats HTTP/1.1\r\n\r\n")
            .context("asking the service for /stats")?;
        let stats: serde_json::Value =
            serde_json::from_slice(&body).context("reading the service's /stats")?;
        match stats["leaked_bytes"].as_u64() {
            Some(leaked_bytes) => Ok(Account { leaked_bytes }),
            None => bail!("the service's /stats have no leaked_bytes: {stats}"),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
