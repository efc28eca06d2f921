//! The loop while a target is watched, and what is printed and written at its end.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use super::{
    children::Children,
    marks::MarkInbox,
    naming::{Namer, Taken},
    observation::Observation,
    only_caller::Callers,
    options::CommonOptions,
    output::Outputs,
    signals::StopFlag,
    status::StatusLine,
};
use crate::{
    report::{options::ReportOptions, profile::Profile, table, units},
    sys::priority::GivingWay,
};

/// How often new stacks are taken in.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// So many sites are named in a moment.
const AT_ONCE: usize = 10_000;

/// Why the watching ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// The time asked for is over.
    Duration,
    /// Ctrl-C or SIGTERM.
    Stopped,
    /// The target ended.
    TargetGone,
    /// The target replaced its program by exec.
    TargetReplaced,
    /// The budget could not be kept.
    OverBudget,
}

/// Watches until something ends it. `ended` waits for the target's end at most for the time given.
pub(super) fn watch(
    observation: &mut Observation,
    namer: &mut Namer,
    options: &CommonOptions,
    stop: &StopFlag,
    printer: &Printer,
    mut children: Option<&mut Children>,
    mut ended: impl FnMut(&mut Observation, &mut Namer, Duration) -> Option<Ended>,
) -> anyhow::Result<Ended> {
    namer.watch(observation);
    let mut status = StatusLine::new(options.quiet);
    let marks = MarkInbox::open(observation.process.pid)?;
    announce(observation, options);
    let mut printed = Instant::now();
    let mut next_tick = Instant::now();
    let reason = loop {
        let left = options.duration.map(|duration| duration.saturating_sub(observation.duration()));
        let wait = next_tick.saturating_duration_since(Instant::now());
        if let Some(reason) = ended(observation, namer, left.map_or(wait, |left| left.min(wait))) {
            break reason;
        }
        if Instant::now() < next_tick && !stop.is_set() && left.is_none_or(|left| left > wait) {
            // The target has mapped code, or somebody has forked.
            observation.keep_up();
            if let Some(children) = children.as_deref_mut() {
                children.heard(observation.lookout.births());
            }
            continue;
        }
        let reading = observation.tick()?;
        next_tick = Instant::now() + observation.governor.rest().map_or(TICK, |rest| rest.min(TICK));
        if let Some(children) = children.as_deref_mut() {
            children.heard(observation.lookout.births());
        }
        status.show(&reading);
        for said in &reading.said {
            status.suspend(|| eprintln!("{said}"));
        }
        marks.take(|name| {
            let said = observation.mark(name)?;
            status.suspend(|| eprintln!("marked {said}"));
            Ok(said)
        });
        namer.record(observation, options);
        if reading.replaced {
            break Ended::TargetReplaced;
        }
        if reading.let_go {
            break Ended::OverBudget;
        }
        if stop.is_set() {
            break Ended::Stopped;
        }
        if left.is_some_and(|left| left.is_zero()) {
            break Ended::Duration;
        }
        if options.interval.is_some_and(|interval| printed.elapsed() >= interval) {
            printed = Instant::now();
            observation.read_pools();
            let profile = namer.profile(observation, options, options.top)?;
            status.suspend(|| printer.table(&profile, options))?;
        }
    };
    status.clear();
    if reason == Ended::TargetReplaced {
        observation.warnings.push(
            "The process replaced its program (exec): what it had allocated is gone, and the account ends there. Attach \
             again to watch the new program."
                .into(),
        );
    }
    Ok(reason)
}

/// Takes the probes out, names what is left, writes the reports and prints the table.
pub(super) fn conclude(
    mut observation: Observation,
    mut namer: Namer,
    options: &CommonOptions,
    outputs: Outputs,
    printer: &Printer,
) -> anyhow::Result<()> {
    namer.ask_living(&mut observation);
    observation.end();
    let _giving_way = GivingWay::begin();
    let taken = Taken::of(&observation, options)?;
    // Whoever waits for the table does not wait for the names of a hundred thousand other sites.
    let is_large = taken.sites() > AT_ONCE;
    let named = if is_large { options.top } else { usize::MAX };
    let mut profile = namer.name(&observation, options, &taken, named);
    printer.table(&profile, options)?;
    if is_large {
        let told = profile.quality.warnings;
        profile = namer.name(&observation, options, &taken, usize::MAX);
        for warning in profile.quality.warnings.iter().filter(|warning| !told.contains(warning)) {
            printer.line(warning)?;
        }
    }
    let recorded = namer.close_recording(&mut observation, options, &profile);
    let written = outputs.write(&profile, &report_options(options))?;
    let recorded = recorded?.map(|path| path.display().to_string());
    for name in recorded.into_iter().chain(written) {
        printer.line(&format!("wrote {name}"))?;
    }
    Ok(())
}

/// Says on standard error that the probes are live and marks may come. Scripts wait for a line that begins with `attached`.
fn announce(observation: &Observation, options: &CommonOptions) {
    let until = match options.duration {
        Some(duration) => format!("for {}", units::span(duration)),
        None => "until Ctrl-C".to_owned(),
    };
    let (process, method) = (&observation.process, observation.method().label());
    let allocators = match observation.allocators.as_slice() {
        _ if options.growth => "page faults, brk and mmap".to_owned(),
        [] => "no allocator found yet".to_owned(),
        found => format!("{} by {method} probes", found.join(", ")),
    };
    if let Some(told) = observation.told.as_ref().filter(|_| !observation.allocators.is_empty()) {
        eprintln!("{}", told.words());
    }
    if let Some(only) = observation.callers.as_ref().map(Callers::report) {
        eprintln!("only allocations by `{}`: {}", only.asked, only.how);
    }
    eprintln!("attached to {} (pid {}): {allocators}, {until}", process.comm, process.pid);
}

/// Prints where the user looks: on standard output, unless that is taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Printer {
    Stdout,
    Stderr,
}

impl Printer {
    /// Prints a profile's table.
    pub(super) fn table(&self, profile: &Profile, options: &CommonOptions) -> anyhow::Result<()> {
        let mut text = Vec::new();
        table::write(profile, &report_options(options), &mut text)?;
        self.write(&text)
    }

    /// Prints a line.
    pub(super) fn line(&self, line: &str) -> anyhow::Result<()> {
        self.write(format!("{line}\n").as_bytes())
    }

    fn write(&self, text: &[u8]) -> anyhow::Result<()> {
        let written = match self {
            Self::Stdout => io::stdout().write_all(text),
            Self::Stderr => io::stderr().write_all(text),
        };
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// How the user wants reports.
pub(super) fn report_options(options: &CommonOptions) -> ReportOptions {
    ReportOptions {
        full_stacks: options.full_stacks,
        width: width(),
        sites: options.top,
        ..ReportOptions::default()
    }
}

/// Width of the terminal in columns.
pub(super) fn width() -> usize {
    let default = ReportOptions::default().width;
    if !io::stdout().is_terminal() {
        return default;
    }
    rustix::termios::tcgetwinsize(io::stdout()).map_or(default, |size| usize::from(size.ws_col))
}
