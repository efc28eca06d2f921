//! The commands and their flags, with examples.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::{
    budget_args::{BudgetArgs, Watching},
    doctor_args::{self, DoctorArgs},
    mode_args::ModeArgs,
    report_args::{DIFF_EXAMPLES, DiffArgs, REPORT_EXAMPLES, ReportArgs},
    top_args::{self, TopArgs},
    values,
};
use crate::{
    probe::AttachMethod,
    report::{format::Format, profile::At},
    session::options::{AttachOptions, CommonOptions, MarkOptions, OutputSpec, RunOptions},
    symbolize::wanted::WantedFunction,
    target::allocator::custom::CustomAllocator,
};

/// Shows by stack the memory that a running process allocated and never freed.
///
/// The process is not modified, not restarted and not injected into: eBPF probes on its allocator keep the account, and
/// whatever ends heapscope takes them out again.
#[derive(Debug, Parser)]
#[command(name = "heapscope", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  sudo heapscope attach 1234                        watch process 1234 until Ctrl-C
  sudo heapscope attach redis-server -d 30s         watch by name for 30 seconds
  sudo heapscope attach 1234 -o leak.svg -o leak.json
  sudo heapscope run -- ./server --port 8080        start a program and watch it from its first allocation";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Watch a running process
    #[command(after_help = ATTACH_EXAMPLES)]
    Attach(AttachArgs),
    /// Start a program and watch it from its first allocation to its end
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Show a running process live in the terminal
    #[command(after_help = top_args::EXAMPLES)]
    Top(TopArgs),
    /// Mark a moment in the process that another heapscope watches: what is born after it is a generation of its own
    #[command(after_help = MARK_EXAMPLES)]
    Mark(MarkArgs),
    /// Make reports of a recording, without rights and on any machine
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Show what has grown from one recording to another, or between two moments of one
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// Show what this machine and a process allow, before anything is attached
    #[command(after_help = doctor_args::EXAMPLES)]
    Doctor(DoctorArgs),
    /// Print completions for a shell
    #[command(after_help = "Examples:\n  heapscope completions bash > /etc/bash_completion.d/heapscope")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page
    #[command(
        after_help = "Examples:\n  heapscope man | man -l -\n  heapscope man attach > heapscope-attach.1"
    )]
    Man {
        /// The command to describe; without it, heapscope as a whole
        command: Option<String>,
    },
}

const ATTACH_EXAMPLES: &str = "\
Examples:
  sudo heapscope attach 1234                        until Ctrl-C; a table, and a flamegraph in a file
  sudo heapscope attach redis-server -d 30s         by name, for 30 seconds
  sudo heapscope attach 1234 -d 1m --min-age 20s    only blocks that have lived for 20 seconds
  sudo heapscope attach 1234 -d 10s -o - --format folded | flamegraph.pl > heap.svg
  sudo heapscope attach 1234 --interval 5s          a table every 5 seconds
  sudo heapscope attach 1234 --mode growth -d 1m    who makes it grow: page faults, no probe on malloc
  sudo heapscope attach 1234 --allocator 'alloc=pool_get(size=1);free=pool_put(ptr=1)'";

const RUN_EXAMPLES: &str = "\
Examples:
  sudo heapscope run -- python3 app.py
  sudo heapscope run -o build.svg -- c++ -O2 -c big.cpp
  sudo heapscope run -d 30s -- ./server             report after 30 seconds; the program goes on until it ends";

const MARK_EXAMPLES: &str = "\
Examples:
  heapscope mark 1234 'after warm-up'               in another terminal, while `heapscope attach 1234` runs
  heapscope mark redis-server                       without a name, it gets its number
  kill -USR1 $(pidof heapscope)                     the same";

/// How the kernel is asked to attach the probes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Probes {
    /// Session if the kernel has it, else multi, else perf
    Auto,
    /// One program at entry and return (kernel 6.13)
    Session,
    /// One link for all places (kernel 6.6)
    Multi,
    /// One perf event a place (kernel 5.15)
    Perf,
}

impl Probes {
    fn method(self) -> Option<AttachMethod> {
        match self {
            Self::Auto => None,
            Self::Session => Some(AttachMethod::Session),
            Self::Multi => Some(AttachMethod::Multi),
            Self::Perf => Some(AttachMethod::Perf),
        }
    }
}

/// Which moment's live memory is shown.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Moment {
    /// The end of the observation
    End,
    /// When the process held the most bytes
    Peak,
    /// When the process called exit, before its exit handlers ran
    Exit,
}

impl Moment {
    fn at(self) -> At {
        match self {
            Self::End => At::End,
            Self::Peak => At::Peak,
            Self::Exit => At::Exit,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    /// Stop after this time (30s, 2m; a bare number is seconds); without it, on Ctrl-C or when the process ends
    #[arg(short, long, value_name = "TIME", value_parser = values::duration)]
    duration: Option<Duration>,

    #[command(flatten)]
    mode: ModeArgs,

    #[command(flatten)]
    budget: BudgetArgs,

    /// Write a report: .html page, .svg flamegraph, .hscope recording, .json … by the ending; may be given several times; `-` is
    /// standard output
    #[arg(short, long, value_name = "FILE")]
    output: Vec<PathBuf>,

    /// Format of outputs whose ending does not say it
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Watch the child processes too, those that it has and those to come: each has reports of its own, with its process
    /// id in their names
    #[arg(long)]
    children: bool,

    /// Count only blocks that are at least this old at the end
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    min_age: Option<Duration>,

    /// Record only allocations of at least this size (512, 4KiB, 1MiB)
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    min_size: Option<u64>,

    /// Record only allocations of at most this size
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    max_size: Option<u64>,

    /// Record only allocations that this function makes itself, by its symbol or by its name: `Cache::insert`; `*` stands
    /// for anything (may be given several times; see docs/narrowing.md)
    #[arg(long, value_name = "FUNCTION")]
    only_caller: Vec<WantedFunction>,

    /// Record what the program tells by USDT probes of its own (otel_memory), instead of probing its allocator
    #[arg(long, value_enum, default_value_t = values::Usdt::Auto, value_name = "WHEN")]
    usdt: values::Usdt,

    /// Watch an allocator of the program's own too: `alloc=my_malloc(size=0);free=my_free(ptr=0)` says which functions
    /// and at which place their arguments are; `@libpool.so` at the end names the file (may be given several times; see
    /// docs/allocators.md)
    #[arg(long, value_name = "FUNCTIONS")]
    allocator: Vec<CustomAllocator>,

    /// Keep an account of mapped memory too: mmap, munmap and mremap by stack, and the growth of the heap by brk
    #[arg(long)]
    mmap: bool,

    /// Show the memory that was live at this moment
    #[arg(long, value_enum, default_value_t = Moment::End, value_name = "MOMENT")]
    at: Moment,

    /// Print the table of sites again and again while watching; snapshots of all sites are taken as often
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    interval: Option<Duration>,

    /// Sites in the table
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    top: usize,

    /// Show the allocator's own frames too
    #[arg(long)]
    full_stacks: bool,

    /// Leave C++ and Rust names as the linker has them
    #[arg(long)]
    no_demangle: bool,

    /// Look for separate debug files here too (may be given several times)
    #[arg(long, value_name = "DIR")]
    debug_dir: Vec<PathBuf>,

    /// Most kernel memory for the account
    #[arg(long, value_name = "SIZE", value_parser = values::size, default_value = "256MiB")]
    max_memory: u64,

    /// How to attach
    #[arg(long, value_enum, default_value_t = Probes::Auto)]
    probes: Probes,

    /// No status line
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// Process id, or the name of a process if only one has it
    #[arg(value_name = "PID | NAME")]
    target: String,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// Have CPython ask malloc for small objects too, so that all are seen: sets PYTHONMALLOC=malloc
    #[arg(long)]
    python_all: bool,

    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct MarkArgs {
    /// Process id, or the name of a process if only one has it
    #[arg(value_name = "PID | NAME")]
    target: String,

    /// What to call the moment
    #[arg(value_name = "MARK")]
    name: Option<String>,
}

impl MarkArgs {
    pub(super) fn options(self) -> MarkOptions {
        MarkOptions { target: self.target, name: self.name }
    }
}

impl AttachArgs {
    pub(super) fn options(self) -> anyhow::Result<AttachOptions> {
        Ok(AttachOptions { target: self.target, common: self.common.options(Watching::Running)? })
    }
}

impl RunArgs {
    pub(super) fn options(self) -> anyhow::Result<RunOptions> {
        // Who wants every small object to be seen wants every block.
        let watching = Watching::Started { whole: self.python_all };
        Ok(RunOptions {
            command: self.command,
            python_all: self.python_all,
            common: self.common.options(watching)?,
        })
    }
}

impl CommonArgs {
    pub(super) fn options(self, watching: Watching) -> anyhow::Result<CommonOptions> {
        if let (Some(min), Some(max)) = (self.min_size, self.max_size)
            && min > max
        {
            bail!("--min-size {min} is above --max-size {max}: nothing would be recorded. Exchange the two");
        }
        if matches!(self.usdt, values::Usdt::Always)
            && (!self.only_caller.is_empty() || !self.allocator.is_empty())
        {
            bail!(
                "with --usdt always no allocator is probed: it does not go with --only-caller or --allocator"
            );
        }
        if self.min_age.is_some() && !matches!(self.at, Moment::End) {
            bail!("--min-age is about the end: it does not go with --at {}", self.at.at().label());
        }
        let fallback = self
            .format
            .map(|name| Format::from_name(&name).with_context(|| format!("--format {name}")))
            .transpose()?;
        let outputs = self
            .output
            .into_iter()
            .map(|path| OutputSpec::new(path, fallback))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if outputs.iter().filter(|output| output.is_stdout()).count() > 1 {
            bail!("two reports cannot share standard output: give one of them a file name");
        }
        if outputs.iter().filter(|output| output.format == Format::Hscope).count() > 1 {
            bail!("one recording is enough: copy it where you want another");
        }
        if self.children && outputs.iter().any(OutputSpec::is_stdout) {
            bail!(
                "with --children there are several reports, which cannot share standard output: name a file"
            );
        }
        let of_blocks = [
            ("--exact or --sample", self.budget.says_which_blocks()),
            ("--min-age", self.min_age.is_some()),
            ("--min-size", self.min_size.is_some()),
            ("--max-size", self.max_size.is_some()),
            ("--allocator", !self.allocator.is_empty()),
            ("--at", !matches!(self.at, Moment::End)),
        ];
        let growth = self.mode.growth(&of_blocks, &outputs, fallback)?;
        let watching =
            watching.for_reports(self.at.at(), outputs.iter().map(|output| output.format).chain(fallback));
        Ok(CommonOptions {
            duration: self.duration,
            outputs,
            fallback_format: fallback,
            children: self.children,
            min_age: self.min_age,
            min_size: self.min_size,
            max_size: self.max_size,
            only_callers: self.only_caller,
            usdt: self.usdt.of(),
            budget: if growth { self.budget.of_growth() } else { self.budget.options(watching) },
            allocators: self.allocator,
            mmap: self.mmap,
            growth,
            at: self.at.at(),
            interval: self.interval,
            top: self.top,
            full_stacks: self.full_stacks,
            demangle: !self.no_demangle,
            debug_dirs: self.debug_dir,
            max_memory: self.max_memory,
            method: self.probes.method(),
            quiet: self.quiet,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Examples:"), "{} has no examples", command.get_name());
        }
    }
}
