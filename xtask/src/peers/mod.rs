//! `cargo xtask bench peers`: what heapscope and its peers cost the same programs, in one table, in one run or in pieces.

mod install;
mod measure;
mod program;
mod results;
mod stacks;
mod table;
mod tools;
mod workloads;

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

pub(crate) use self::install::install;
use self::{
    results::{Key, Results},
    tools::{NOTHING, Places, Tool},
    workloads::Workload,
};
use crate::{
    ebpf,
    process::{output, run as run_command},
    workspace::{Workspace, cargo},
};

/// What to measure, and what to add it to.
#[derive(Debug, clap::Args)]
#[group(id = "peers")]
pub(crate) struct Options {
    /// `peers`: install what is measured beside heapscope, and measure nothing
    #[arg(long)]
    pub(crate) install: bool,
    /// `peers`: one round of two workloads
    #[arg(long)]
    quick: bool,
    /// `peers`: only workloads whose names contain this; may be given several times
    #[arg(long, value_name = "WORKLOAD")]
    only: Vec<String>,
    /// `peers`: only tools whose names contain this, and the same programs without any tool; may be given several times
    #[arg(long, value_name = "TOOL")]
    tool: Vec<String>,
    /// `peers`: rounds, of which the median counts; 0 prints what is in the file of `--append`. What is slow is measured in
    /// the first alone
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// `peers`: adds the times to this file, and prints the table of all that is in it
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
}

/// Measures, and prints the table.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let folder = workspace.target.join("peers");
    fs::create_dir_all(&folder)?;
    let places = places(workspace, &folder)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut tools = tools::all();
    tools.retain(|tool| tool.is_known_to(&places));
    let by_length: BTreeMap<u64, Vec<Workload>> = tools
        .iter()
        .map(|tool| {
            let workloads = workloads::all(&folder, &places.python, port, tool.shortened)?;
            Ok((tool.shortened, workloads))
        })
        .collect::<Result<_>>()?;
    let at_full_length = by_length.get(&1).context("no tool is measured at full length")?;
    let wanted =
        |name: &str, parts: &[String]| parts.is_empty() || parts.iter().any(|part| name.contains(part));
    let columns: Vec<usize> = (0..at_full_length.len())
        .filter(|column| {
            let name = at_full_length[*column].name;
            wanted(name, &options.only)
                && (!options.quick || ["loop, 32 frames, 256 B", "python json"].contains(&name))
        })
        .collect();
    if columns.is_empty() {
        bail!("no workload is called {}", options.only.join(" or "));
    }
    let mut results = match &options.append {
        Some(file) => Results::read(file)?,
        None => Results::default(),
    };
    // What has failed once is not waited for again.
    let mut failed = HashSet::new();
    let rounds = if options.quick { options.rounds.min(1) } else { options.rounds };
    for round in 0..rounds {
        for &column in &columns {
            // Without any tool first, at each length that the others need.
            for tool in tools.iter().filter(|tool| wanted(tool.name, &options.tool)) {
                if tool.is_slow && round > 0 {
                    continue;
                }
                let workload = &by_length[&tool.shortened][column];
                let nothing = (NOTHING.to_owned(), workload.name.to_owned(), tool.shortened);
                if results.cells.get(&nothing).is_none_or(|cell| cell.times.len() <= round) {
                    attempt(&places, workload, &tools[0], tool.shortened, &mut results, &mut failed);
                }
                if tool.name != NOTHING && tool.declines(workload).is_none() {
                    attempt(&places, workload, tool, tool.shortened, &mut results, &mut failed);
                }
                if let Some(file) = &options.append {
                    results.write(file)?;
                }
            }
        }
    }
    println!("{}", table::table(&places.python, at_full_length, &tools, &results));
    Ok(ExitCode::SUCCESS)
}

/// One run of a tool, into the results.
fn attempt(
    places: &Places,
    workload: &Workload,
    tool: &Tool,
    shortened: u64,
    results: &mut Results,
    failed: &mut HashSet<Key>,
) {
    let key = (tool.name.to_owned(), workload.name.to_owned(), shortened);
    if failed.contains(&key) {
        return;
    }
    let measured = measure::measure(places, workload, tool);
    match &measured {
        Ok((time, _)) => eprintln!("{}, {}: {:.4} s", workload.name, tool.name, time.as_secs_f64()),
        Err(error) => {
            eprintln!("{}, {}: {error:#}", workload.name, tool.name);
            failed.insert(key.clone());
        }
    }
    if let Ok((_, said)) = &measured
        && workload.name == tool.judged_by()
        && let Some(share) = tool.stacks.and_then(|of| of(&places.folder, said))
    {
        results.stacks.insert(tool.name.to_owned(), share);
    }
    results.add(key, measured.map(|(time, _)| time.as_secs_f64()).map_err(|error| format!("{error:#}")));
}

/// Builds what is measured.
fn places(workspace: &Workspace, folder: &Path) -> Result<Places> {
    run_command(cargo().current_dir(&workspace.root).args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "heapscope",
    ]))?;
    let venv = folder.join("venv/bin/python");
    Ok(Places {
        heapscope: workspace.target.join("release/heapscope"),
        holder: holder(workspace)?,
        object: ebpf::build_measuring_object(workspace)?,
        folder: folder.join("left"),
        headers: folder.join("headers"),
        python: if venv.exists() { venv } else { PathBuf::from("python3") },
    })
}

/// The benchmark `cost`, which can hold probes that do nothing.
fn holder(workspace: &Workspace) -> Result<PathBuf> {
    let built = output(cargo().current_dir(&workspace.root).args([
        "bench",
        "--quiet",
        "--no-run",
        "-p",
        "heapscope",
        "--bench",
        "cost",
        "--message-format",
        "json",
    ]))?;
    let messages = built.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut executables = messages.filter_map(|message| {
        let is_it = message["target"]["name"] == "cost";
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    executables.next_back().context("cargo names no executable of the benchmark `cost`")
}

/// Whether heapscope's help has this word.
fn helps_with(heapscope: &Path, word: &str) -> bool {
    let help = Command::new(heapscope).args(["attach", "--help"]).output();
    help.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(word))
}
