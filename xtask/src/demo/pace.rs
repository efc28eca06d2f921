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
    let mut clients = Clients::connect(service.port(), CONNECTIONS)?;
    clients.send(WARM_UP)?;
    println!(
        "{}: {turns} turns of {} s each, untouched and with a new `heapscope attach PID` in turns; {CONNECTIONS} connections",
        story.leaking.name,
        time.as_secs()
    );
    println!("| turn | untouched, requests a second | watched | slower |\n|---|---|---|---|");
    let rate = |(answered, seconds): (u64, f64)| {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
        let answered = answered as f64;
        answered / seconds
    };
    let slower = |alone: f64, watched: f64| 100.0 * (1.0 - watched / alone);
    let (mut alone, mut watched) = (Vec::new(), Vec::new());
    for turn in 1..=turns {
        let untouched = rate(clients.send(time)?);
        // The turn begins as heapscope does: what it does before its first probe is part of it.
        let watching = Watching::start(&heapscope, service.pid(), time, &["--quiet"])?;
        let under_heapscope = rate(clients.send(time)?);
        watching.end()?;
        let lost = slower(untouched, under_heapscope);
        println!("| {turn} | {untouched:.0} | {under_heapscope:.0} | {lost:.1}% |");
        alone.push(untouched);
        watched.push(under_heapscope);
    }
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / f64::from(turns);
    let (alone, watched) = (mean(&alone), mean(&watched));
    let lost = slower(alone, watched);
    let verdict = if lost < DEMANDED { "met" } else { "missed" };
    println!(
        "| mean | {alone:.0} | {watched:.0} | {lost:.1}%: less than {DEMANDED:.0}% demanded: {verdict} |"
    );
    Ok(())
}
