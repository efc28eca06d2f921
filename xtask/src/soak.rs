//! The model test at length: what it does and what it holds against what is in `profiler/benches/soak.rs`, which is built
//! as benchmarks are, with heapscope's release build.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    process::run as run_command,
    workspace::{Workspace, cargo},
};

/// How long, and which histories.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Minutes of full load
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Other numbers make other histories
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// An aiohttp service that makes and drops code with each request instead; needs the Python package index
    #[arg(long)]
    python: bool,
}

/// Runs `cargo xtask soak`. Whatever differs is an error.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if options.python {
        crate::demo::soak_python(workspace, options.minutes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut soak = cargo();
    soak.current_dir(&workspace.root)
        .args(["bench", "--quiet", "-p", "heapscope", "--bench", "soak"])
        .env("HEAPSCOPE_SOAK_MINUTES", options.minutes.to_string())
        .env("HEAPSCOPE_SOAK_SEED", options.seed.to_string());
    run_command(&mut soak)?;
    Ok(ExitCode::SUCCESS)
}
