//! `heapscope doctor`: what this machine and a target allow, before anything is attached; with `--unwind`, what is known of
//! files.
//!
//! Facts about the machine are found by trial: programs are loaded and placed on heapscope itself. In the target nothing is
//! placed and nothing is changed; it is looked at as `attach` does before its first probe.

mod allocators;
mod checks;
mod coverage;
mod files;
mod machine;
mod names;
mod print;
mod target;
mod unwind;

use std::{io::Write, path::PathBuf, process::ExitCode};

use serde::Serialize;

use self::{checks::Check, machine::Machine, target::Target};
use super::options::DoctorOptions;

/// What `--json` prints. docs/doctor.md describes it.
#[derive(Debug, Serialize)]
struct Diagnosis {
    /// Of this description.
    version: u32,
    heapscope: &'static str,
    /// Whether attach will work fully.
    works: bool,
    machine: Machine,
    target: Option<Target>,
}

/// Writes what was asked for. The status is that of failure where attach will not work, or a file has no unwind table.
///
/// # Errors
/// Where there is no such process, a file cannot be opened, or the output cannot be written.
pub fn doctor(options: &DoctorOptions, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match options {
        DoctorOptions::Unwind(options) => unwind::write(options, out),
        DoctorOptions::Machine { target, json, debug_dirs } => {
            diagnose(target.as_deref(), *json, debug_dirs, out)
        }
    }
}

fn diagnose(
    target: Option<&str>,
    json: bool,
    debug_dirs: &[PathBuf],
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    // A wrong name is said at once.
    let target = target.map(target::find).transpose()?;
    let machine = machine::examine();
    let target = target.map(|found| target::examine(found, debug_dirs));
    let checks = || machine.checks.iter().chain(target.iter().flat_map(|target| &target.checks));
    let works = !checks().any(Check::is_no);
    let diagnosis = Diagnosis { version: 1, heapscope: env!("CARGO_PKG_VERSION"), works, machine, target };
    if json {
        serde_json::to_writer_pretty(&mut *out, &diagnosis)?;
        writeln!(out)?;
    } else {
        print::write(&diagnosis, out)?;
    }
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
