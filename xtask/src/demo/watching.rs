//! heapscope while it watches a service, and how the service fares meanwhile.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::load;
use crate::process::as_root;

/// A heapscope that ends by itself.
pub(super) struct Watching(Child);

impl Watching {
    /// Starts `heapscope attach` with these arguments, without waiting for it. With `--quiet` it prints nothing.
    pub(super) fn start(heapscope: &Path, pid: u32, time: Duration, arguments: &[&str]) -> Result<Self> {
        let mut command = as_root(heapscope, "attaching with eBPF")?;
        command.args(["attach", &pid.to_string(), "--duration", &format!("{}s", time.as_secs())]);
        command.args(arguments).stderr(Stdio::piped());
        if arguments.contains(&"--quiet") {
            command.stdout(Stdio::null());
        }
        Ok(Self(command.spawn().context("starting heapscope")?))
    }

    /// Waits until its probes are live. What it says is passed on.
    pub(super) fn until_attached(&mut self) -> Result<()> {
        let mut errors = BufReader::new(self.0.stderr.take().context("heapscope was waited for already")?);
        let mut line = String::new();
        while errors.read_line(&mut line)? > 0 {
            eprint!("{line}");
            if line.starts_with("attached") {
                thread::spawn(move || std::io::copy(&mut errors, &mut std::io::stderr()));
                return Ok(());
            }
            line.clear();
        }
        bail!("heapscope did not attach: {}", self.0.wait()?)
    }

    /// Waits for its end.
    pub(super) fn end(mut self) -> Result<()> {
        let mut said = String::new();
        if let Some(mut errors) = self.0.stderr.take() {
            errors.read_to_string(&mut said)?;
        }
        let status = self.0.wait()?;
        ensure!(status.success(), "heapscope failed: {status}\n{said}");
        Ok(())
    }
}

/// A service at a moment.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Requests that it has answered.
    pub(super) requests: u64,
    /// Its resident set in bytes.
    pub(super) resident: i64,
}

impl Moment {
    /// Looks.
    pub(super) fn of(pid: u32, port: u16) -> Result<Self> {
        let asked = "GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let stats: Value = serde_json::from_slice(&load::request(port, asked)?)?;
        let requests = stats["requests"].as_u64();
        let requests =
            requests.with_context(|| format!("the service's /stats have no `requests`: {stats}"))?;
        Ok(Self { requests, resident: resident(pid)? })
    }
}

/// A process's resident set, in bytes: counted page by page (`smaps_rollup` of proc_pid_smaps(5)), where `VmRSS` may be
/// some pages off.
fn resident(pid: u32) -> Result<i64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss")?;
    let kilobytes: i64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}
