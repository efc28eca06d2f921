//! The BPF object: built from `profiler-ebpf` by the distribution's rustc, committed, and checked against its sources.
//!
//! `heapscope` embeds the committed object, so that a plain stable cargo builds it. What is committed is worth only as
//! much as the proof that it comes from the sources beside it: the build is byte for byte the same wherever the tree,
//! the target folder and CARGO_HOME lie, and `--check` repeats it elsewhere and compares.

mod toolchain;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{
    process::{output, run as run_command},
    workspace::{Workspace, cargo_home, isolated_cargo},
};
use toolchain::{BPF_TARGET, RUSTC, Toolchain};

/// The committed object, from the tree's root.
const OBJECT: &str = "profiler/bpf/heapscope.bpf.o";
/// The binary of `profiler-ebpf` that becomes the object.
const BINARY: &str = "heapscope-ebpf";
/// The one that benchmarks load in its place.
const MEASURING_BINARY: &str = "heapscope-measure";
/// The folders that the object is built from. `profiler-ebpf` includes sources of `profiler-common` by their path.
const SOURCES: &[&str] = &["profiler-ebpf", "profiler-common"];
/// The exit status of `--check` where the toolchain is absent: nothing was compared, which is not a pass.
const EXIT_NO_TOOLCHAIN: u8 = 3;

/// What to do about the BPF object; without an option it is built and written.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Install what the build needs (Debian 12 and its relatives), or see that it is there
    #[arg(long, conflicts_with = "check")]
    install: bool,
    /// Build in another folder and compare with the committed object
    #[arg(long)]
    check: bool,
}

/// Runs `cargo xtask ebpf`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if options.install {
        toolchain::install()?;
        return Ok(ExitCode::SUCCESS);
    }
    match (Toolchain::find(), options.check) {
        (Ok(toolchain), false) => write(workspace, &toolchain),
        (Ok(toolchain), true) => check(workspace, &toolchain),
        (Err(absent), false) => Err(absent),
        (Err(absent), true) => {
            eprintln!("error: the BPF object was NOT checked: {absent:#}");
            Ok(ExitCode::from(EXIT_NO_TOOLCHAIN))
        }
    }
}

fn write(workspace: &Workspace, toolchain: &Toolchain) -> Result<ExitCode> {
    let committed = workspace.root.join(OBJECT);
    fs::create_dir_all(committed.parent().context("the object has no folder")?)?;
    build(BINARY, &workspace.root, &workspace.target.join("ebpf"), toolchain, &committed)?;
    println!("{OBJECT}: {} bytes, sha256 {}", fs::metadata(&committed)?.len(), sha256(&committed)?);
    Ok(ExitCode::SUCCESS)
}

fn check(workspace: &Workspace, toolchain: &Toolchain) -> Result<ExitCode> {
    let committed = workspace.root.join(OBJECT);
    let expected = fs::read(&committed)
        .with_context(|| format!("there is no {OBJECT}: run `cargo xtask ebpf` and commit it"))?;

    // Another folder with a name of another length: a path that leaks into the object shows.
    let elsewhere = tempfile::Builder::new().prefix("heapscope-ebpf-check-").tempdir()?;
    let sources = elsewhere.path().join("a copy of the sources");
    for folder in SOURCES {
        copy_sources(&workspace.root.join(folder), &sources.join(folder))
            .with_context(|| format!("copying {folder}"))?;
    }
    let rebuilt = elsewhere.path().join("heapscope.bpf.o");
    let target = elsewhere.path().join("target");
    build(BINARY, &sources, &target, toolchain, &rebuilt)?;
    // Not committed, but it must build from the same sources.
    build(MEASURING_BINARY, &sources, &target, toolchain, &elsewhere.path().join("measure.bpf.o"))?;

    if fs::read(&rebuilt)? == expected {
        println!("{OBJECT}: comes from its sources, sha256 {}", sha256(&committed)?);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: {OBJECT} is not what its sources give.");
    eprintln!("  committed  sha256 {}", sha256(&committed)?);
    eprintln!("  rebuilt    sha256 {}  ({})", sha256(&rebuilt)?, toolchain.compiler);
    eprintln!("Run `cargo xtask ebpf`, run the tests, and commit the object together with the sources.");
    eprintln!("Where the sources did not change, the distribution's compiler did: the remedy is the same.");
    Ok(ExitCode::FAILURE)
}

/// Builds the object that benchmarks load, which is not committed; its path.
pub(crate) fn build_measuring_object(workspace: &Workspace) -> Result<PathBuf> {
    let target = workspace.target.join("ebpf");
    let object = target.join("measure.bpf.o");
    build(MEASURING_BINARY, &workspace.root, &target, &Toolchain::find()?, &object)?;
    Ok(object)
}

/// Builds one binary from the sources under `root` into the file `object`.
fn build(binary: &str, root: &Path, target: &Path, toolchain: &Toolchain, object: &Path) -> Result<()> {
    let sources = root.join("profiler-ebpf");
    let cargo = |subcommand: &str| -> Result<Command> {
        let mut cargo = isolated_cargo();
        cargo
            .current_dir(&sources)
            .env("RUSTC", RUSTC)
            .env("CARGO_TARGET_DIR", target)
            .env("PATH", toolchain.path()?)
            .args([subcommand, "--locked"]);
        Ok(cargo)
    };
    // The folder of the registry's sources is named after the registry: fetch first, so that it is there to be seen.
    run_command(&mut cargo("fetch")?)?;
    let flags = rustflags(root, target)?;
    run_command(cargo("build")?.args(["--release", "--bin", binary]).env("CARGO_ENCODED_RUSTFLAGS", flags))?;
    let built = target.join(BPF_TARGET).join("release").join(binary);
    // Only DWARF goes; BTF stays. binutils' strip does not know BPF.
    run_command(Command::new(&toolchain.strip).arg("-g").arg("-o").arg(object).arg(&built))
}

/// The flags of `profiler-ebpf/.cargo/config.toml` again (this variable replaces them) and the names under which the
/// object knows this machine's folders.
fn rustflags(root: &Path, target: &Path) -> Result<OsString> {
    let mut flags: Vec<OsString> = vec![
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // Words at once: otherwise LLVM calls functions that go byte by byte.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
        "-Ctarget-cpu=v3".into(),
        "--cfg=bpf_target_arch=\"x86_64\"".into(),
    ];
    // Of several prefixes that match, rustc takes the last: the target folder and the registry may lie in the tree.
    let mut remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    };
    remap(root, "/heapscope");
    remap(target, "/target");
    for registry in registries()? {
        remap(&registry, "/registry");
    }
    // cargo separates encoded flags by the ASCII unit separator.
    Ok(flags.join(std::ffi::OsStr::new("\u{1f}")))
}

fn registries() -> Result<Vec<PathBuf>> {
    let sources = cargo_home()?.join("registry/src");
    let mut registries = Vec::new();
    // A crate without dependencies fetches nothing, and then there is no such folder.
    if sources.exists() {
        for entry in fs::read_dir(&sources)? {
            registries.push(entry?.path());
        }
    }
    registries.sort();
    Ok(registries)
}

/// Copies a folder with all below it, but for what cargo built there.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let destination = to.join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            fs::copy(entry.path(), destination)?;
        } else if entry.file_name() != "target" {
            copy_sources(&entry.path(), &destination)?;
        }
    }
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg("--").arg(file))?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}
