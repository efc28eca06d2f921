//! Benchmarks: each is a `cargo bench` target of `profiler` that prints one table; here is what they need beside it.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::Result;

use crate::{
    demo, ebpf, peers,
    process::run as run_command,
    workspace::{Workspace, cargo},
};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The benchmark
    what: What,
    #[command(flatten)]
    peers: peers::Options,
    /// `story`: turns of each kind
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    turns: u32,
    /// `story`: how long a turn is, in seconds
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// `story`: the interpreter to tell it with
    #[arg(long, value_name = "PATH")]
    interpreter: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// A stack taken by unwind tables, beside an empty probe and the kernel's walk by frame pointers (needs root)
    Walk,
    /// A pair of malloc and free under heapscope, beside probes that do nothing (needs root)
    Cost,
    /// heapscope's own CPU time and memory, time to the first probe and to the report (needs root)
    Weight,
    /// Requests a second of redis and of a Python service with a budget of 5%, beside untouched runs, and what a trap takes by
    /// how much a program does up to the next (needs root, redis-server)
    Budget,
    /// What `--mode growth` costs a loop that touches pages, a program beside it, redis and Python (needs root, redis-server)
    Growth,
    /// Ten million live blocks from 131,072 sites: memory, time, cost of a call (needs root and 6 GB of memory)
    Ledger,
    /// 200 runs sampled anew: whether estimates are unbiased and their errors right (needs root)
    Sampling,
    /// heapscope and its peers on the same programs, about twenty minutes (needs root; `--install` gets the peers)
    Peers,
    /// A recording of 24 hours with 20,000 sites: its size, and the time that it takes to open
    Recording,
    /// Requests a second of `demo --python`'s service, untouched and watched without options, in turns (needs root)
    Story,
    /// Unwind tables of a process the size of clang
    Tables,
    /// Names for 10,000 addresses of a file with 150 MB of debug information, beside llvm-symbolizer and addr2line
    Symbols,
}

/// Runs `cargo xtask bench`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let (name, object) = match options.what {
        What::Walk => ("walk", Some(ebpf::build_measuring_object(workspace)?)),
        What::Cost => ("cost", Some(ebpf::build_measuring_object(workspace)?)),
        What::Weight => ("weight", None),
        What::Budget => ("budget", None),
        What::Growth => ("growth", None),
        What::Ledger => ("ledger", Some(ebpf::build_measuring_object(workspace)?)),
        What::Sampling => ("sampling", None),
        What::Peers if options.peers.install => return peers::install(workspace),
        What::Peers => return peers::run(workspace, &options.peers),
        What::Recording => ("recording", None),
        What::Story => {
            let time = Duration::from_secs(options.seconds);
            demo::measure_story(workspace, options.turns, time, options.interpreter.as_deref())?;
            return Ok(ExitCode::SUCCESS);
        }
        What::Tables => ("tables", None),
        What::Symbols => ("symbols", None),
    };
    let mut bench: Command = cargo();
    bench.current_dir(&workspace.root).args(["bench", "--quiet", "-p", "heapscope", "--bench", name]);
    if let Some(object) = object {
        bench.env("HEAPSCOPE_MEASURING_OBJECT", object);
    }
    run_command(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
