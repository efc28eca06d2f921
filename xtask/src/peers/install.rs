//! What is measured beside heapscope, from Debian and the Python package index.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Result;

use super::tools;
use crate::{debian, process::run, workspace::Workspace};

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

/// Installs them; memray into an environment of its own.
pub(crate) fn install(workspace: &Workspace) -> Result<ExitCode> {
    let missing = debian::missing(PACKAGES);
    if !missing.is_empty() {
        debian::install(&missing)?;
    }
    let folder = workspace.target.join("peers");
    fs::create_dir_all(&folder)?;
    run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
    run(Command::new(folder.join("venv/bin/pip")).args(["install", "--quiet", "memray"]))?;
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
            run(Command::new("cp").args(["-rsn"]).arg(path.join(".")).arg(folder))?;
        }
    }
    Ok(())
}
