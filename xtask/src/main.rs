//! heapscope's own chores: `cargo xtask <command>`.
//!
//! What a shell script would do is done here in Rust, so that one `cargo` is all that a clone needs. Nothing in this
//! crate is linked into `heapscope`.

mod assets;
mod bench;
mod debian;
mod demo;
mod ebpf;
mod fuzz;
mod peers;
mod process;
mod soak;
mod test_run;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use workspace::Workspace;

/// heapscope's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a small service that leaks, attach to it, and leave a flamegraph of the leak in target/demo/.
    Demo(demo::Options),
    /// Build and run every test; the last line counts the passed, the failed and the skipped.
    Test,
    /// Measure side by side with the peers, and print a table.
    Bench(bench::Options),
    /// Random histories of allocator calls at full load for minutes, counted to the byte (needs root).
    Soak(soak::Options),
    /// Build the BPF object that is committed as profiler/bpf/heapscope.bpf.o.
    Ebpf(ebpf::Options),
    /// Build the page of the HTML report that is committed as profiler/assets/html/dist/page.html.
    Assets(assets::Options),
    /// Run the fuzz targets, each for ten minutes, and print what came of them.
    Fuzz(fuzz::Options),
    /// Check what the compiler does not: the layer table, the files' first lines and lengths.
    Tidy,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = Workspace::find().and_then(|workspace| match arguments.command {
        Command::Demo(options) => demo::run(&workspace, &options),
        Command::Bench(options) => bench::run(&workspace, &options),
        Command::Soak(options) => soak::run(&workspace, &options),
        Command::Test => test_run::run(&workspace),
        Command::Ebpf(options) => ebpf::run(&workspace, &options),
        Command::Assets(options) => assets::run(&workspace, &options),
        Command::Fuzz(options) => fuzz::run(&workspace, &options),
        Command::Tidy => tidy::run(&workspace),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
