//! One run: a workload under a tool, and how long its work took.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    program::{Program, TIMED_OUT},
    tools::{self, How, Places, Tool},
    workloads::Workload,
};

/// How long the work took, and all that the tool and the program said.
pub(super) fn measure(places: &Places, workload: &Workload, tool: &Tool) -> Result<(Duration, String)> {
    tools::empty(&places.folder)?;
    let launch = match (tool.how, workload.waits()) {
        (How::Launch(launch), _) => Some(launch),
        (How::Attach(..), false) => tool.launched,
        (How::Attach(..), true) => None,
    };
    let measured = match launch {
        Some(launch) => launched(places, workload, launch),
        None if workload.waits() => attached(places, workload, tool),
        None => attached_before_exec(places, workload, tool),
    };
    workload.stop();
    measured
}

fn launched(places: &Places, workload: &Workload, launch: tools::Wrap) -> Result<(Duration, String)> {
    let mut program = workload.start(launch(places, workload.command())?)?;
    let time = workload.work(&mut program)?;
    // A server ends by a signal; the tool around it may have a process of its own.
    workload.stop();
    Ok((time, program.end(None)?))
}

fn attached(places: &Places, workload: &Workload, tool: &Tool) -> Result<(Duration, String)> {
    let How::Attach(attach, ready, signal) = tool.how else { bail!("cannot attach") };
    let mut program = workload.start(tools::plain(workload.command()))?;
    let holder = tools::attach(tool, attach(places, program.pid())?, ready)?;
    let time = workload.work(&mut program)?;
    if tool.name == "bcc memleak" {
        // It prints every two seconds, and not at its end.
        std::thread::sleep(Duration::from_millis(2500));
    }
    if tool.name.starts_with("heaptrack") {
        // What was injected ends with the program, and the tool with that.
        program.end(Some("-TERM"))?;
        return Ok((time, holder.end(None)?));
    }
    // The work is measured by then: a tool that does not come to its end is ended, and shows no stacks.
    let said = holder.end(signal).unwrap_or_else(|error| {
        eprintln!("{}, {}: {error:#}", workload.name, tool.name);
        String::new()
    });
    let _ = program.end(Some("-TERM"));
    Ok((time, said))
}

/// For a program that works from its start to its end: a shell stops itself, is attached to, and becomes the program. The
/// probes are in files, and for this process: they are in the program's code when that is mapped.
fn attached_before_exec(places: &Places, workload: &Workload, tool: &Tool) -> Result<(Duration, String)> {
    let How::Attach(attach, ready, signal) = tool.how else { bail!("cannot attach") };
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).args(workload.command());
    let mut program = workload.start(shell)?;
    let pid = program.pid();
    let began = Instant::now();
    while !stat(pid).context("the shell has ended")?.starts_with('T') {
        if began.elapsed() > Duration::from_secs(5) {
            bail!("{TIMED_OUT}: the shell does not stop");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let holder = tools::attach(tool, attach(places, pid)?, ready)?;
    let continued = Command::new("kill").args(["-CONT", &pid.to_string()]).status()?;
    if !continued.success() {
        bail!("the shell cannot be continued");
    }
    let time = workload.work(&mut program)?;
    let _: Result<String> = Program::end(program, None);
    Ok((time, holder.end(signal)?))
}

/// What `/proc/PID/stat` has behind the name.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit(") ").next()?.to_owned())
}
