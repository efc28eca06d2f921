//! Debian's packages: what is installed, and how to install the rest.

use std::{fs, process::Command};

use anyhow::{Result, bail};

use crate::process::{as_root, output, run, succeeds};

/// Whether apt rules here: Debian, Ubuntu and what descends from them, by os-release(5).
pub(crate) fn is_debian_like() -> bool {
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|ids| ids.trim_matches('"').split(' '))
        .any(|id| id == "debian" || id == "ubuntu")
}

/// Those of the packages that are not installed.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages.iter().copied().filter(|package| !is_installed(package)).collect()
}

fn is_installed(package: &str) -> bool {
    // dpkg-query fails for a package that it never heard of, and prints `config-files` for a removed one.
    Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .output()
        .is_ok_and(|answer| answer.status.success() && answer.stdout == b"installed")
}

/// Installs the packages without their recommendations. Fetches apt's lists first where they do not know a package,
/// and again where an old list names a file that the mirror no longer has.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let unknown = |packages: &[&str]| -> Vec<String> {
        packages.iter().filter(|package| !has_candidate(package)).map(|&p| p.to_owned()).collect()
    };
    let mut updated = false;
    if !unknown(packages).is_empty() {
        update()?;
        updated = true;
    }
    let unknown = unknown(packages);
    if !unknown.is_empty() {
        bail!("apt knows no package {} here", unknown.join(", "));
    }
    match apt_install(packages) {
        Err(_) if !updated => {
            update()?;
            apt_install(packages)
        }
        outcome => outcome,
    }
}

fn has_candidate(package: &str) -> bool {
    // A name that is only mentioned by others has a policy entry too, with `Candidate: (none)`.
    output(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]))
        .is_ok_and(|policy| policy.lines().any(|l| l.contains("Candidate:") && !l.contains("(none)")))
}

fn update() -> Result<()> {
    println!("fetching apt's lists");
    run(apt_get()?.arg("update"))
}

fn apt_install(packages: &[&str]) -> Result<()> {
    println!("installing {}", packages.join(", "));
    run(apt_get()?.args(["install", "--yes", "--no-install-recommends"]).args(packages))
}

fn apt_get() -> Result<Command> {
    // `env` carries the setting through sudo. Another apt may hold the lock for a while on a fresh machine.
    let mut command = as_root("/usr/bin/env", "installing Debian packages")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=600"]);
    Ok(command)
}

/// Whether installing a package here leaves its services stopped: the local policy of invoke-rc.d(8) forbids every
/// start (exit status 101), as it does in container images.
pub(crate) fn policy_forbids_services() -> bool {
    Command::new("/usr/sbin/policy-rc.d")
        .args(["heapscope-test", "start"])
        .status()
        .is_ok_and(|status| status.code() == Some(101))
}

/// Whether this machine could install packages without asking anybody.
pub(crate) fn can_install() -> bool {
    is_debian_like()
        && crate::process::is_root().unwrap_or(false)
        && succeeds(Command::new("apt-get").arg("--version"))
}
