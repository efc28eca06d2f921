//! Every test of the workspace in one command, with a count that hides nothing.
//!
//! cargo prints one result per test binary and none for all. This adds them up, takes a binary that died before it
//! could report for a failed test, and repeats why tests were skipped: a skip is never a pass.

mod summary;

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::{Context, Result};

use crate::{
    debian,
    process::{find_program, run as run_command},
    workspace::{Workspace, cargo},
};
use summary::Summary;

/// Programs that some tests run beside heapscope, with Debian's packages of them. A test skips where one is absent.
const PROGRAMS: &[(&str, &str)] = &[
    ("bpftool", "bpftool"),
    ("chromium", "chromium"),
    ("clang++", "clang"),
    ("dwp", "binutils"),
    ("dwz", "dwz"),
    ("g++", "g++"),
    ("gdb", "gdb"),
    ("go", "golang-go"),
    ("heaptrack_print", "heaptrack"),
    ("musl-gcc", "musl-tools"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3"),
    ("readelf", "binutils"),
    ("redis-cli", "redis-tools"),
    ("redis-server", "redis-server"),
    ("tmux", "tmux"),
    ("valgrind", "valgrind"),
];

/// The package that would start a network service where nothing forbids it.
const SERVICES: &[&str] = &["redis-server"];

/// Runs `cargo xtask test`. The exit status is cargo's.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    provide_programs();
    let mut build = tests(workspace);
    run_command(build.arg("--no-run")).context("the tests do not build")?;

    let (status, summary) = stream(tests(workspace).arg("--no-fail-fast"))?;
    let mut out = io::stdout().lock();
    summary.write(&mut out)?;
    out.flush()?;
    Ok(match status.code() {
        Some(0) if summary.failed() == 0 => ExitCode::SUCCESS,
        code => code
            .and_then(|code| u8::try_from(code).ok())
            .filter(|&code| code != 0)
            .map_or(ExitCode::FAILURE, ExitCode::from),
    })
}

fn tests(workspace: &Workspace) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(&workspace.root).args(["test", "--workspace"]);
    cargo
}

/// Installs what is absent where that needs no questions: as root, with apt. What cannot be installed stays absent, and
/// the tests that need it say so.
fn provide_programs() {
    let absent: Vec<_> =
        PROGRAMS.iter().filter(|(program, _)| find_program(program, &[]).is_none()).collect();
    for (program, package) in absent {
        if !debian::can_install() {
            println!("{program} is not installed: the tests that need it will be skipped");
        } else if SERVICES.contains(package) && !debian::policy_forbids_services() {
            println!(
                "{program} is not installed, and the package {package} would start a service here: \
                 the tests that need it will be skipped"
            );
        } else if let Err(error) = debian::install(&[package]) {
            println!("{program} could not be installed ({error:#}): the tests that need it will be skipped");
        }
    }
}

/// Passes on the output of the tests line by line while it is counted.
fn stream(tests: &mut Command) -> Result<(ExitStatus, Summary)> {
    // One pipe for both outputs keeps their lines in order: cargo names each binary on the one, the binary reports on
    // the other. Colours would stand between us and the words.
    let (reader, writer) = io::pipe()?;
    let mut child = tests
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_TERM_QUIET", "false")
        .env("CARGO_TERM_VERBOSE", "false")
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .context("cannot start cargo test")?;
    // The command keeps its ends of the pipe open; without this the reader would wait for itself.
    tests.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());

    let mut summary = Summary::default();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut out = io::stdout().lock();
    // A test may print bytes that are not UTF-8.
    while reader.read_until(b'\n', &mut line)? > 0 {
        out.write_all(&line)?;
        out.flush()?;
        summary.line(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    summary.end();
    Ok((child.wait()?, summary))
}
