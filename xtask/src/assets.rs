//! The page of the HTML report: built from `profiler/assets/html` with npm's packages, committed, and checked against its
//! sources.
//!
//! `heapscope` embeds the committed page, so that cargo alone builds it. `--check` builds it again elsewhere, types
//! included, and compares byte for byte.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{
    process::{find_program, run as run_command},
    workspace::Workspace,
};

/// The sources, from the tree's root.
const SOURCES: &str = "profiler/assets/html";
/// What is built from them.
const PAGE: &str = "profiler/assets/html/dist/page.html";
/// The files beside `src/` that the build reads.
const FILES: &[&str] = &[".npmrc", "build.mjs", "package.json", "package-lock.json", "tsconfig.json"];
/// The exit status of `--check` where npm or its packages are out of reach: nothing was compared, which is not a pass.
const EXIT_NOT_CHECKED: u8 = 3;

/// What to do about the page; without an option it is built and written.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build in another folder and compare with the committed page
    #[arg(long)]
    check: bool,
}

/// Runs `cargo xtask assets`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let committed = workspace.root.join(PAGE);
    let folder = match prepare(workspace) {
        Ok(folder) => folder,
        Err(error) if options.check => {
            eprintln!("error: the HTML report's page was NOT checked: {error:#}");
            return Ok(ExitCode::from(EXIT_NOT_CHECKED));
        }
        Err(error) => return Err(error),
    };
    run_command(npm(&folder).args(["run", "--silent", "check"])).context("its types do not fit")?;
    let built = folder.join("page.html");
    run_command(Command::new("node").current_dir(&folder).arg("build.mjs").arg(&built))?;
    if !options.check {
        fs::copy(&built, &committed).with_context(|| format!("writing {PAGE}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let expected = fs::read(&committed)
        .with_context(|| format!("there is no {PAGE}: run `cargo xtask assets` and commit it"))?;
    if fs::read(&built)? == expected {
        println!("{PAGE}: comes from its sources");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: {PAGE} is not what its sources give.");
    eprintln!("Run `cargo xtask assets`, run the tests, and commit the page together with the sources.");
    Ok(ExitCode::FAILURE)
}

/// A copy of the sources with the packages that they need; its folder.
fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    for program in ["node", "npm"] {
        find_program(program, &[]).with_context(|| format!("{program} is not installed"))?;
    }
    let (from, to) = (workspace.root.join(SOURCES), workspace.target.join("assets"));
    let sources = to.join("src");
    if sources.exists() {
        fs::remove_dir_all(&sources)?;
    }
    fs::create_dir_all(&sources)?;
    for file in FILES {
        copy(&from.join(file), &to.join(file))?;
    }
    for entry in fs::read_dir(from.join("src"))? {
        let entry = entry?;
        copy(&entry.path(), &sources.join(entry.file_name()))?;
    }
    // No package's own scripts: what is built is built by the bundler alone.
    run_command(npm(&to).args(["ci", "--ignore-scripts", "--silent"]))?;
    Ok(to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn npm(folder: &Path) -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(folder);
    npm
}
