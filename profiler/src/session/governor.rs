//! Keeps what the probes cost within the budget: looks each second, records less or more, goes to windows, or lets go.

use std::time::{Duration, Instant};

use profiler_common::{
    control::{Control, EXACT, MEASURE_ONLY, intervals_from},
    records::SiteCounters,
};

use super::{
    advance::Advance,
    budget::{Limits, Mode},
    observation::Observation,
    options::{BudgetOptions, CommonOptions},
    overhead::Load,
    windows::{Pacer, Turn, Windowed},
};
use crate::{
    probe::{Counters, error::ProbeError},
    report::{
        budget::{BudgetReport, Recorded},
        units,
    },
    sys::clock::monotonic_nanoseconds,
};

/// The smallest interval that a budget chooses, in bytes.
const SMALLEST: u64 = 1024;
/// How long the target is measured at most before anything is recorded, and how many hits are enough.
const MEASURED: Duration = Duration::from_millis(200);
const ENOUGH_HITS: f64 = 5_000.0;
/// Seconds above the budget after which a user who wants every block or nothing gets nothing.
const STRIKES: u32 = 2;
/// Changes that are kept for the report.
const MOST_STEPS: usize = 100;

/// What has been decided.
#[derive(Debug)]
pub(super) struct Governor {
    limits: Option<Limits>,
    advance: Advance,
    mode: Mode,
    /// What was recorded since when.
    steps: Vec<(Duration, Recorded)>,
    pacer: Option<Pacer>,
    pub(super) windowed: Windowed,
    strikes: u32,
    /// Something to tell the user.
    said: Vec<String>,
    pub(super) let_go: bool,
    /// Whether it is recorded what the target tells itself: it decides how much that is.
    pub(super) told: bool,
    worked: f64,
}

/// What the probes are to be told first, and whether blocks may be sampled some time.
pub(super) fn first_control(options: &BudgetOptions) -> (bool, Control) {
    let intervals = intervals_from(options.sample.unwrap_or(SMALLEST));
    let may_sample = options.sample.is_some() || options.percent.is_some() && !options.exact;
    let first = u64::from(options.sample.is_some());
    let current = if measures_first(options) { MEASURE_ONLY } else { first };
    (may_sample, Control { current, intervals, ..Control::EXACT })
}

fn measures_first(options: &BudgetOptions) -> bool {
    options.measure_first && options.percent.is_some() && !options.exact
}

impl Governor {
    pub(super) fn new(options: &BudgetOptions, control: &Control) -> Self {
        let limits = options.percent.map(|percent| Limits {
            budget: percent / 100.0,
            at_least: options.at_least,
            exact_only: options.exact,
            least: u64::from(options.sample.is_some()),
            intervals: control.intervals,
        });
        Self {
            limits,
            advance: Advance::new(limits.map_or(0.0, |limits| limits.budget), options.advance),
            mode: Mode::Recording(u64::from(options.sample.is_some())),
            steps: Vec::new(),
            pacer: None,
            windowed: Windowed::default(),
            strikes: 0,
            said: Vec::new(),
            let_go: false,
            told: false,
            worked: 0.0,
        }
    }

    /// The budget in percent, if there is one.
    pub(super) fn percent(&self) -> Option<f64> {
        self.limits.map(|limits| 100.0 * limits.budget)
    }

    /// What the report says of it.
    pub(super) fn report(&self, processor_percent: Option<f64>) -> BudgetReport {
        BudgetReport {
            percent: self.percent(),
            at_least_percent: self
                .limits
                .map(|limits| 100.0 * limits.at_least)
                .filter(|percent| *percent > 0.0),
            advance: Duration::try_from_secs_f64(self.advance.most() / 1e9)
                .ok()
                .filter(|advance| !advance.is_zero()),
            processor_percent,
            steps: self.steps.clone(),
        }
    }

    /// What is recorded now.
    pub(super) fn recorded(&self, control: &Control) -> Recorded {
        match self.mode {
            _ if self.told => Recorded::Told,
            Mode::Recording(EXACT) => Recorded::Every,
            Mode::Recording(number) => Recorded::Sampled(control.interval(number)),
            Mode::Windows => Recorded::Windows(control.interval(control.current)),
        }
    }

    /// Whether there were windows at any time.
    pub(super) fn had_windows(&self) -> bool {
        self.windowed.any()
    }

    /// The largest interval that blocks were drawn at so far; 0 where every block was recorded.
    pub(super) fn largest_interval(&self) -> u64 {
        self.steps.iter().filter_map(|(_, recorded)| recorded.interval()).max().unwrap_or(0)
    }

    /// Since when not every block is recorded, if that is so.
    pub(super) fn sampled_since(&self) -> Option<Duration> {
        self.steps.iter().find(|(_, recorded)| recorded.interval().is_some()).map(|(after, _)| *after)
    }

    /// Time until something is to be decided, at most.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.pacer.as_ref().map(|pacer| pacer.rest(Instant::now()))
    }

    /// Has the user told something.
    pub(super) fn say(&mut self, said: String) {
        self.said.push(said);
    }

    /// What the user is to be told.
    pub(super) fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    fn note(&mut self, after: Duration, recorded: Recorded) {
        if self.steps.len() < MOST_STEPS {
            self.steps.push((after, recorded));
        }
    }
}

impl Observation {
    /// Measures the target with probes that record nothing, and decides what to begin with.
    pub(super) fn decide_first(&mut self, common: &CommonOptions) -> anyhow::Result<()> {
        if self.growth.is_some() {
            return Ok(());
        }
        if measures_first(&common.budget) && !self.governor.told {
            self.measure_first()?;
            self.start_clock(common);
        }
        self.governor.note(Duration::ZERO, self.governor.recorded(self.probe.control()));
        if self.governor.percent().is_some() && self.meter.trap().is_none() {
            self.warn(
                "What a probe costs could not be measured here, so that no budget is kept. Probes of kernel 6.6 and later are \
                 measured; where they are not, --sample bounds the cost."
                    .into(),
            );
        }
        Ok(())
    }

    fn measure_first(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut load = Load::default();
        if let (Some(limits), Some(trap)) = (self.governor.limits, self.meter.trap()) {
            while begin.elapsed() < MEASURED && load.hits < ENOUGH_HITS && !self.allocators.is_empty() {
                load.add(&self.meter.measure(&self.probe, &self.process, &self.probe.counters()?));
                std::thread::sleep(Duration::from_millis(2));
            }
            self.governor.mode = limits.first(&load, trap);
        }
        self.begin_mode(&load)
    }

    /// Follows the cost, and does something about it if it is too high, or lower than need be.
    pub(super) fn govern(&mut self, counters: &Counters) -> anyhow::Result<()> {
        let load = self.meter.measure(&self.probe, &self.process, counters);
        let second = self.meter.second();
        let (Some(limits), Some(trap)) = (self.governor.limits, self.meter.trap()) else { return Ok(()) };
        if self.governor.pacer.is_some() {
            return self.pace(limits, &load);
        }
        // Where the credit was used up, nobody waits for the second to be over.
        let used_up = self.governor.advance.pay(&load);
        let (Some(second), Mode::Recording(number)) = (used_up.or(second), self.governor.mode) else {
            return Ok(());
        };
        if limits.exact_only || self.governor.told {
            let over = second.share() > limits.budget && !self.governor.advance.is_left();
            self.governor.strikes = if over { self.governor.strikes + 1 } else { 0 };
            if self.governor.strikes >= STRIKES {
                self.let_go(if self.governor.told {
                    "what the process tells of its allocations costs more"
                } else {
                    "every block was asked for, which costs more"
                });
            }
        } else if let Some(mode) = limits.next(number, &second, trap)
            && !(self.governor.advance.is_left() && mode.is_less_than(number))
        {
            self.governor.mode = mode;
            self.begin_mode(&second)?;
            self.tell_mode(&second);
        }
        Ok(())
    }

    /// Has the mode that was decided on begin, at this load.
    fn begin_mode(&mut self, load: &Load) -> anyhow::Result<()> {
        match self.governor.mode {
            Mode::Recording(number) => self.probe.record_at(number)?,
            Mode::Windows => {
                let Some(limits) = self.governor.limits else { return Ok(()) };
                // What has been taken already is paid off first, unless it was given in advance.
                let taken = if self.governor.advance.most() > 0.0 {
                    self.governor.advance.debt()
                } else {
                    limits.budget * load.used - load.caused
                };
                let pacer = Pacer::new(limits.budget, load, taken, Instant::now());
                self.governor.pacer = Some(pacer);
                self.probe.close_window()?;
                self.probe.record_at(limits.in_windows(load))?;
                let (sites, worked) = (self.sites()?, self.worked());
                self.governor.windowed.begin(monotonic_nanoseconds(), worked, sites);
            }
        }
        self.meter.begin_second();
        if self.governor.steps.is_empty() {
            return Ok(());
        }
        self.governor.note(self.duration(), self.governor.recorded(self.probe.control()));
        Ok(())
    }

    fn tell_mode(&mut self, load: &Load) {
        let recorded = self.governor.recorded(self.probe.control());
        let at_least = self.governor.limits.map_or(0.0, |limits| limits.at_least);
        let of_processor = if at_least > 0.0 && load.elapsed > 0.0 {
            format!(" ({:.1}% of a processor)", 100.0 * load.caused / load.elapsed)
        } else {
            String::new()
        };
        let budget = self.governor.percent().unwrap_or(0.0);
        let or_at_least =
            if at_least > 0.0 { format!(" or {}% of a processor", 100.0 * at_least) } else { String::new() };
        self.governor.said.push(format!(
            "overhead {}{of_processor}, budget {budget}%{or_at_least}: from now on {}",
            units::overhead(100.0 * load.share()),
            recorded.words()
        ));
    }

    fn pace(&mut self, limits: Limits, load: &Load) -> anyhow::Result<()> {
        let Some(pacer) = &mut self.governor.pacer else { return Ok(()) };
        match pacer.pace(load, Instant::now()) {
            None => Ok(()),
            Some(Turn::Open) => match self.probe.open_window(monotonic_nanoseconds) {
                Ok(()) => {
                    pacer.opened(Instant::now());
                    let worked = self.worked();
                    self.governor.windowed.open(worked);
                    Ok(())
                }
                Err(error) => {
                    pacer.closed(&Load::default(), Instant::now());
                    if self.process.is_alive() {
                        self.warn(format!("A window could not be opened: {error}"));
                    }
                    Ok(())
                }
            },
            Some(Turn::Close) => {
                self.close_window()?;
                let counters = self.probe.counters()?;
                let load = self.meter.measure(&self.probe, &self.process, &counters);
                let Some(pacer) = &mut self.governor.pacer else { return Ok(()) };
                pacer.closed(&load, Instant::now());
                let recent = pacer.recent;
                if limits.may_stay(&recent) { self.leave_windows(&recent) } else { Ok(()) }
            }
            Some(Turn::LetGo) => {
                self.let_go("even windows of 20 ms each minute cost more");
                Ok(())
            }
        }
    }

    /// What the probes were told, as the account is to take it: between windows, nothing is known to live.
    pub(super) fn known(&self) -> Control {
        let control = *self.probe.control();
        Control {
            unbroken_since: if control.paused == 0 { control.unbroken_since } else { u64::MAX },
            ..control
        }
    }

    /// Takes the probes out, and notes what was seen while they were there.
    fn close_window(&mut self) -> Result<(), ProbeError> {
        let (opened, closed) = (self.probe.control().unbroken_since, monotonic_nanoseconds());
        let worked = self.worked();
        self.probe.close_window()?;
        let sites = self.sites()?;
        self.governor.windowed.add(opened, closed, worked, sites);
        Ok(())
    }

    /// The load has fallen: the probes may stay.
    fn leave_windows(&mut self, recent: &Load) -> anyhow::Result<()> {
        if let Err(error) = self.probe.open_window(monotonic_nanoseconds) {
            self.warn(format!("The probes could not be placed again: {error}"));
            return Ok(());
        }
        self.governor.pacer = None;
        let worked = self.worked();
        self.governor.windowed.end(monotonic_nanoseconds(), worked);
        self.governor.mode = Mode::Recording(self.probe.control().current);
        self.meter.begin_second();
        self.governor.note(self.duration(), self.governor.recorded(self.probe.control()));
        self.tell_mode(recent);
        Ok(())
    }

    /// The observation is over: a window that is open ends, or has ended already and nothing of it is known live.
    pub(super) fn end_windows(&mut self) {
        if self.governor.pacer.take().is_none() {
            return;
        }
        let (now, worked) = (monotonic_nanoseconds(), self.worked());
        if self.probe.control().paused == 0 {
            let opened = self.probe.control().unbroken_since;
            if let Ok(sites) = self.sites() {
                self.governor.windowed.add(opened, now, worked, sites);
            }
        }
        self.governor.windowed.end(now, worked);
    }

    /// How long the process has spent in its own code, in seconds; when it has ended, as long as at the last look.
    fn worked(&mut self) -> f64 {
        if let Ok(time) = self.process.user_time() {
            self.governor.worked = time.as_secs_f64();
        }
        self.governor.worked
    }

    fn let_go(&mut self, why: &str) {
        self.governor.let_go = true;
        let percent = self.governor.percent().unwrap_or(0.0);
        self.warn(format!(
            "The budget of {percent}% could not be kept ({why}): heapscope let go of the process after {}.",
            units::span(self.duration())
        ));
    }

    fn sites(&self) -> Result<Vec<(u64, SiteCounters)>, ProbeError> {
        let mut sites = Vec::new();
        self.probe.sites(|site, counters| sites.push((site, counters)))?;
        Ok(sites)
    }
}
