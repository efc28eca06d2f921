//! `cargo xtask bench story`: requests a second of the story's service, untouched and under `heapscope attach` as it is without
//! options, in turns.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};

use super::{build_heapscope, client::Clients, story::Story, watching::Watching};
use crate::workspace::Workspace;

/// Of the requests a second, what may be lost, in percent.
const DEMANDED: f64 = 10.0;
const CONNECTIONS: usize = 2;
const WARM_UP: Duration = Duration::from_secs(3);

/// Measures so many turns of each kind.
pub(crate) fn measure(workspace: &Workspace, turns: u32, time: Duration, asked: Option<&Path>) -> Result<()> {
    let folder = workspace.target.join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let heapscope = build_heapscope(workspace)?;
    let story = Story::prepare(workspace, &folder, asked)?;
    let service = story.leaking.start()?;
    let svg = folder.join("story.svg").to_string_lossy().into_owned();
    let mut clients = Clients::connect(service.port(), CONNECTIONS)?;
    clients.send(WARM_UP)?;
    println!(
        "{}: {turns} turns of {} s each, untouched and with a new `heapscope attach PID` in turns; {CONNECTIONS} connections",
        story.leaking.name,
        time.as_secs()
    );
    println!(
        "| turn | untouched, requests a second | watched | fewer | CPU time of the service a request, untouched | watched | \
         more |\n|---|---|---|---|---|---|---|"
    );
    let mut turn_of = |watched: bool| -> Result<Rate> {
        // The turn begins as heapscope does: what it does before its first probe is part of it.
        let arguments = ["--quiet", "-o", &svg];
        let watching = watched.then(|| Watching::start(&heapscope, service.pid(), time, &arguments));
        let before = processor_seconds(service.pid())?;
        let (answered, seconds) = clients.send(time)?;
        let rate = Rate::of(answered, seconds, processor_seconds(service.pid())? - before);
        watching.transpose()?.map_or(Ok(()), Watching::end)?;
        Ok(rate)
    };
    let (mut alone, mut watched) = (Rate::default(), Rate::default());
    for turn in 1..=turns {
        let pair = [turn_of(false)?, turn_of(true)?];
        println!("| {turn} | {} |", row(pair));
        alone.add(pair[0], turns);
        watched.add(pair[1], turns);
    }
    println!("| mean | {} |", row([alone, watched]));
    let lost = 100.0 * (1.0 - watched.requests / alone.requests);
    let verdict = if lost < DEMANDED { "met" } else { "missed" };
    println!("less than {DEMANDED:.0}% fewer requests a second were demanded: {verdict}");
    Ok(())
}

/// How a service fares.
#[derive(Clone, Copy, Default)]
struct Rate {
    /// Answered in a second.
    requests: f64,
    /// Microseconds of CPU time of the service for each.
    cost: f64,
}

impl Rate {
    fn of(answered: u64, seconds: f64, processor: f64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
        let answered = answered as f64;
        Self { requests: answered / seconds, cost: processor / answered * 1e6 }
    }

    /// Adds its share to a mean of so many.
    fn add(&mut self, other: Self, of: u32) {
        self.requests += other.requests / f64::from(of);
        self.cost += other.cost / f64::from(of);
    }
}

fn row([alone, watched]: [Rate; 2]) -> String {
    let fewer = 100.0 * (1.0 - watched.requests / alone.requests);
    let more = 100.0 * (watched.cost / alone.cost - 1.0);
    format!(
        "{:.0} | {:.0} | {fewer:.1}% | {:.0} µs | {:.0} µs | {more:.1}%",
        alone.requests, watched.requests, alone.cost, watched.cost
    )
}

/// CPU time of a process in seconds: `utime` and `stime` of proc_pid_stat(5), the twelfth and thirteenth words behind its
/// name, in hundredths.
fn processor_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind = stat.rsplit_once(')').context("no name in /proc/PID/stat")?.1;
    let ticks = behind.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}
