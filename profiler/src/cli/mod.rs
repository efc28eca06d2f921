//! The command line: flags become plain options, and nothing below knows clap.

mod args;
mod budget_args;
mod doctor_args;
mod mode_args;
mod report_args;
mod top_args;
mod values;

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};
use crate::session;

/// Runs the program: reads the arguments, does what they say, and turns an error into a message and a status.
///
/// Exit status: 0 done; 1 an error while working; 2 wrong usage (clap's); for `run`, the program's own status.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Attach(args) => args.options().and_then(|options| session::attach(&options)),
        Command::Run(args) => args.options().and_then(|options| session::run(&options)),
        Command::Top(args) => args.options().and_then(|options| session::top(&options)),
        Command::Mark(args) => session::mark(&args.options()),
        Command::Doctor(args) => {
            let options = args.options();
            to_stdout(|out| session::doctor(&options, out))
        }
        Command::Report(args) => {
            args.options().and_then(|options| to_stdout(|out| session::report(&options, out)))
        }
        Command::Diff(args) => {
            args.options().and_then(|options| to_stdout(|out| session::diff(&options, out)))
        }
        Command::Completions { shell } => print(|out| {
            clap_complete::generate(shell, &mut Cli::command(), "heapscope", out);
            Ok(())
        }),
        Command::Man { command } => {
            manual(command.as_deref()).and_then(|page| print(|out| clap_mangen::Man::new(page).render(out)))
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("heapscope: {}", message(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes, each said once: many of ours name theirs already.
fn message(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
        .unwrap_or_default()
}

/// What the manual page of a command is made from.
fn manual(command: Option<&str>) -> anyhow::Result<clap::Command> {
    let mut whole = Cli::command();
    whole.build();
    let Some(name) = command else { return Ok(whole) };
    let found = whole.find_subcommand(name).cloned();
    let page = found.with_context(|| format!("there is no command `{name}`. See heapscope --help"))?;
    Ok(page.display_name(format!("heapscope-{name}")))
}

/// Prints a whole document.
fn print(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> anyhow::Result<ExitCode> {
    let mut document = Vec::new();
    render(&mut document)?;
    enough(io::stdout().write_all(&document).map(|()| ExitCode::SUCCESS).map_err(Into::into))
}

/// Runs a command that prints.
fn to_stdout(command: impl FnOnce(&mut dyn Write) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout());
    let done = command(&mut out);
    enough(done.and_then(|code| Ok(out.flush().map(|()| code)?)))
}

/// A reader who has seen enough is not an error.
fn enough(printed: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match printed {
        Err(error) if error.downcast_ref().is_some_and(is_broken_pipe) => Ok(ExitCode::SUCCESS),
        printed => printed,
    }
}
