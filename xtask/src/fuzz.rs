//! Runs the fuzz targets of `profiler/fuzz`, each for as long as asked, and says in one table what came of it.
//!
//! Everything that is written lies in the build folder: `fuzz/corpus/TARGET` keeps what was learned from one run to the
//! next, `fuzz/crashes/TARGET` the inputs that broke a promise, `fuzz/TARGET.log` what libFuzzer said.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    process::{find_program, run as run_command},
    workspace::{Workspace, cargo_home, isolated_cargo},
};

/// What `cargo xtask fuzz` is asked to do.
#[derive(Args)]
pub(crate) struct Options {
    /// The targets; all where none is named.
    targets: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    seconds: u32,
}

/// How large an input gets, in bytes, and what it may cost: more is a finding, like a panic. Most take microseconds.
const BOUNDS: &[&str] =
    &["-max_len=20000", "-timeout=20", "-report_slow_units=20", "-malloc_limit_mb=256", "-rss_limit_mb=2048"];

/// Seeds that every machine has, beside those in `profiler/fuzz/seeds`. Only the beginning is taken.
const MACHINE_SEEDS: &[(&str, &str)] = &[
    ("allocators", "/bin/true"),
    ("elf_rows", "/bin/true"),
    ("module", "/bin/true"),
    ("maps", "/proc/self/maps"),
    ("procfs", "/proc/self/status"),
];
/// Bytes of a seed of the machine that are taken.
const MACHINE_SEED_BYTES: usize = 20_000;

/// What came of one target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    runs: u64,
    coverage: u64,
    crashes: usize,
}

/// Runs `cargo xtask fuzz`. The exit status is 1 where an input broke a promise.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let project = workspace.root.join("profiler/fuzz");
    let known = targets(&project)?;
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no fuzz target `{unknown}`: choose from {}", known.join(", "));
    }
    provide_cargo_fuzz()?;
    let built = workspace.target.join("fuzz");
    run_command(&mut cargo_fuzz("build", &project, &built)).context("the fuzz targets do not build")?;

    let chosen = if options.targets.is_empty() { &known } else { &options.targets };
    let mut outcomes = Vec::new();
    for target in chosen {
        println!("{target}: {} s", options.seconds);
        outcomes.push((target, fuzz(target, options.seconds, &project, &built)?));
    }
    println!("\n{:<14} {:>12} {:>9} {:>8}", "target", "runs", "coverage", "crashes");
    for (target, Outcome { runs, coverage, crashes }) in &outcomes {
        println!("{target:<14} {runs:>12} {coverage:>9} {crashes:>8}");
    }
    if outcomes.iter().all(|(_, outcome)| outcome.crashes == 0) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: the inputs that crash are in {}", workspace.shown(&built.join("crashes")));
    Ok(ExitCode::FAILURE)
}

/// The targets are the files of their folder.
fn targets(project: &Path) -> Result<Vec<String>> {
    let folder = project.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn provide_cargo_fuzz() -> Result<()> {
    if find_program("cargo-fuzz", &[cargo_home()?.join("bin")]).is_some() {
        return Ok(());
    }
    run_command(isolated_cargo().args(["install", "cargo-fuzz", "--locked"]))
        .context("cargo-fuzz cannot be installed")
}

/// `cargo fuzz` with the address sanitizer, which also bounds each single allocation. The flag for it is not stable, but
/// the stable compiler has all that it needs.
fn cargo_fuzz(command: &str, project: &Path, built: &Path) -> Command {
    let mut cargo = isolated_cargo();
    cargo.env("RUSTC_BOOTSTRAP", "1").current_dir(project);
    cargo.args(["fuzz", command, "--fuzz-dir"]).arg(project).arg("--target-dir").arg(built.join("build"));
    cargo
}

fn fuzz(target: &str, seconds: u32, project: &Path, built: &Path) -> Result<Outcome> {
    let (corpus, crashes) = (built.join("corpus").join(target), built.join("crashes").join(target));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&crashes)?;
    plant_machine_seeds(target, &corpus)?;
    // Gives way to whoever else wants the machine.
    let mut fuzzer = Command::new("nice");
    fuzzer.args(["-n", "19"]).arg(built.join("build/x86_64-unknown-linux-gnu/release").join(target));
    fuzzer.arg(&corpus).args(Some(project.join("seeds").join(target)).filter(|seeds| seeds.is_dir()));
    fuzzer.arg(format!("-max_total_time={seconds}")).args(BOUNDS);
    fuzzer.arg(format!("-artifact_prefix={}/", crashes.display()));
    let known_crashes = files(&crashes)?;
    let log = built.join(format!("{target}.log"));
    let (mut outcome, ended_well) = follow(&mut fuzzer, &log)?;
    outcome.crashes = files(&crashes)? - known_crashes;
    if !ended_well && outcome.crashes == 0 {
        bail!("{target} ended without a result: see {}", log.display());
    }
    Ok(outcome)
}

fn plant_machine_seeds(target: &str, corpus: &Path) -> Result<()> {
    for (_, path) in MACHINE_SEEDS.iter().filter(|(of, _)| *of == target) {
        let mut seed = fs::read(path).unwrap_or_default();
        seed.truncate(MACHINE_SEED_BYTES);
        fs::write(corpus.join(path.replace('/', "_")), seed)?;
    }
    Ok(())
}

fn files(folder: &Path) -> Result<usize> {
    Ok(fs::read_dir(folder)?.count())
}

/// Runs libFuzzer to its end; says what it counted, and whether it ended of its own accord.
fn follow(fuzzer: &mut Command, log: &Path) -> Result<(Outcome, bool)> {
    let mut child =
        fuzzer.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot start nice")?;
    let stderr = child.stderr.take().context("libFuzzer's standard error is not there")?;
    let mut log = File::create(log)?;
    let mut outcome = Outcome::default();
    // A crash may print bytes of the input.
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line?;
        log.write_all(&line)?;
        log.write_all(b"\n")?;
        outcome.hear(&String::from_utf8_lossy(&line));
    }
    Ok((outcome, child.wait()?.success()))
}

impl Outcome {
    /// Takes up a line of libFuzzer's: `#1234\tNEW    cov: 56 ft: …`.
    fn hear(&mut self, line: &str) {
        let Some((runs, rest)) = line.strip_prefix('#').and_then(|line| line.split_once('\t')) else {
            return;
        };
        let coverage = rest.split_once(" cov: ").and_then(|(_, rest)| rest.split(' ').next());
        if let (Ok(runs), Some(Ok(coverage))) = (runs.parse(), coverage.map(str::parse)) {
            (self.runs, self.coverage) = (runs, coverage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_with_numbers_counts() {
        let mut outcome = Outcome::default();
        for line in [
            "INFO: Loaded 1 modules   (313 inline 8-bit counters)",
            "#2\tINITED cov: 18 ft: 18 corp: 1/4b exec/s: 0 rss: 33Mb",
            "#1250575\tDONE   cov: 21 ft: 21 corp: 3/13b lim: 4096 exec/s: 208429 rss: 131Mb",
            "#0 0x55d in main",
            "    #1 0x55d in main",
        ] {
            outcome.hear(line);
        }
        assert_eq!(outcome, Outcome { runs: 1_250_575, coverage: 21, crashes: 0 });
    }
}
