//! The table: a row for each tool, a column for each workload, and below it the reasons of what is missing.

use std::{fmt::Write, fs, path::Path};

use super::{
    program::TIMED_OUT,
    results::{Key, Results},
    tools::{self, NOTHING, Tool},
    workloads::Workload,
};

/// The table of these tools and workloads. `workloads` are those of full length.
pub(super) fn table(python: &Path, workloads: &[Workload], tools: &[Tool], results: &Results) -> String {
    let mut text = format!("{}\n\n", machine());
    let names: Vec<&str> = workloads.iter().map(|workload| workload.name).collect();
    let _ = writeln!(text, "| tool | version | stacks to `main` | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|---|---|{}", "---|".repeat(workloads.len()));
    let mut notes = Vec::new();
    for tool in tools {
        let version = tool.package.map_or_else(String::new, |package| tools::version(package, python));
        let reach =
            results.stacks.get(tool.name).map_or_else(String::new, |share| format!("{:.0}%", share * 100.0));
        let name = match tool.shortened {
            1 => tool.name.to_owned(),
            times => format!("{} (1/{times} of the work)", tool.name),
        };
        let _ = write!(text, "| {name} | {version} | {reach} |");
        for workload in workloads {
            let _ = write!(text, " {} |", cell(tool, workload, results, &mut notes));
        }
        text.push('\n');
    }
    if !notes.is_empty() {
        let _ = write!(text, "\n{}\n", notes.join("\n"));
    }
    text
}

fn cell(tool: &Tool, workload: &Workload, results: &Results, notes: &mut Vec<String>) -> String {
    if let Some(reason) = tool.declines(workload) {
        return reason.to_owned();
    }
    let key = |tool_name: &str| -> Key { (tool_name.to_owned(), workload.name.to_owned(), tool.shortened) };
    let own = key(tool.name);
    if let Some(failed) = results.cells.get(&own).and_then(|cell| cell.failed.as_ref()) {
        notes.push(format!("- {}, {}: {}", tool.name, workload.name, failed.trim()));
        if results.median(&own).is_none() {
            return if failed.contains(TIMED_OUT) { "timed out" } else { "failed" }.to_owned();
        }
    }
    match (results.median(&own), results.median(&key(NOTHING))) {
        (Some(times), _) if tool.name == NOTHING => alone(workload, times.0),
        (Some(times), Some((alone, ..))) => slowdown(workload, tool.shortened, times, alone),
        (Some(_), None) => "not measured without it".to_owned(),
        (None, _) => "not measured".to_owned(),
    }
}

/// Of a loop, nanoseconds a pair; of the others, seconds.
fn alone(workload: &Workload, time: f64) -> String {
    match workload.pairs {
        Some(pairs) => format!("{:.0} ns", time * 1e9 / pairs as f64),
        None => format!("{time:.2} s"),
    }
}

/// Of a loop, nanoseconds added to a pair; of the others, how many times as long they take.
fn slowdown(workload: &Workload, shortened: u64, (time, least, most): (f64, f64, f64), alone: f64) -> String {
    let spread = |of: &dyn Fn(f64) -> String| {
        if least == most {
            format!("{} (one run)", of(time))
        } else {
            format!("{} ({} to {})", of(time), of(least), of(most))
        }
    };
    match workload.pairs {
        Some(pairs) => {
            let pairs = (pairs / shortened) as f64;
            spread(&|time| format!("{:+.0}", (time - alone) * 1e9 / pairs))
        }
        None => spread(&|time| format!("{:.2}", time / alone)),
    }
}

/// The machine, in a line.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let virtual_machine = if cpus.contains(" hypervisor") { ", in a virtual machine" } else { "" };
    let processors = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let (model, kernel) = (model.map_or("unknown", |(_, model)| model), kernel.trim());
    format!(
        "{processors} processors of {model}{virtual_machine}, kernel {kernel}, glibc {}.",
        tools::version("libc6", Path::new(""))
    )
}
