//! Programs of others that read heapscope's files: packages of npm in fixed versions, and what Debian ships.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Where Debian's package valgrind has the viewer of DHAT's files.
pub(crate) const DHAT_VIEWER: &str = "/usr/libexec/valgrind/dh_view.js";

/// The packages and their versions.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/readers");
const FILES: [&str; 2] = ["package.json", "package-lock.json"];
/// The oldest node that the packages have been seen to run with.
const OLDEST_NODE: u32 = 20;

/// Where `node_modules` lies.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("readers")
}

/// Installs the packages, once, unless they are here already. Why they lack, if they do.
pub(crate) fn lacking() -> Option<String> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    ANSWER.get_or_init(|| install().err()).clone()
}

fn install() -> Result<(), String> {
    let version = Command::new("node").arg("--version").output().map_err(|_| "node is not installed")?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    if major.is_none_or(|major: u32| major < OLDEST_NODE) {
        return Err(format!("node {} is older than {OLDEST_NODE}", version.trim()));
    }
    let is_here = |name: &&str| {
        let there = fs::read(folder().join(format!("installed-{name}"))).ok();
        there.is_some() && there == fs::read(Path::new(PACKAGES).join(name)).ok()
    };
    if FILES.iter().all(is_here) {
        return Ok(());
    }
    fs::create_dir_all(folder()).map_err(|error| error.to_string())?;
    let copy = |prefix: &str| {
        FILES.iter().try_for_each(|name| {
            fs::copy(Path::new(PACKAGES).join(name), folder().join(format!("{prefix}{name}"))).map(drop)
        })
    };
    copy("").map_err(|error| error.to_string())?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder());
    match npm.output() {
        Ok(output) if output.status.success() => copy("installed-").map_err(|error| error.to_string()),
        Ok(_) => Err("the packages of tests/fixtures/readers cannot be installed".into()),
        Err(_) => Err("npm is not installed".into()),
    }
}
