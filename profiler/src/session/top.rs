//! `heapscope top`: the live view of a running process.
//!
//! The loop feeds the view (`tui`), which knows neither probes nor clock, and does what it asks for. What runs once a second
//! is bounded for any target: the sites' counters are read, and of the live blocks a part at a time; names are looked up
//! of the sites in sight.

mod keyboard;
mod naming;
mod readings;
mod sweep;

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::{keyboard::Keyboard, naming::Names, readings::Readings, sweep::Sweep};
use super::{
    attach::{begin, raise_file_limit},
    marks::MarkInbox,
    naming::Namer,
    observation::Observation,
    options::{AttachOptions, CommonOptions, OutputSpec},
    output::Outputs,
    signals::StopFlag,
    watch::{TICK, report_options},
};
use crate::{
    target::process::Process,
    tui::{
        model::Target,
        state::{Action, State},
        terminal::{Happened, Screen},
        theme::Theme,
    },
};

/// Shows a running process until the user has seen enough.
///
/// # Errors
/// As [`super::attach`], and where there is no terminal.
pub fn top(options: &AttachOptions) -> anyhow::Result<ExitCode> {
    let common = &options.common;
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!(
            "heapscope top needs a terminal for its input and output. Without one, use: heapscope attach {} --interval 5s",
            options.target
        );
    }
    let process = Process::find(&options.target)?;
    raise_file_limit();
    let stop = StopFlag::catch_every()?;
    eprintln!("attaching to {} (pid {}) …", process.comm, process.pid);
    let mut namer = Namer::new(common, "attach");
    let mut observation = begin(process, common)?;
    namer.watch(&mut observation);
    let marks = MarkInbox::open(observation.process.pid)?;
    let state = State::new(target_of(&observation), theme(), common.full_stacks);
    let mut top = Top {
        readings: Readings::begin(),
        names: Names::default(),
        namer,
        options: common,
        sweep: Sweep::default(),
        state,
        written: Vec::new(),
        ended: None,
    };
    let shown = Screen::take_over()
        .context("the terminal cannot be taken over")
        .and_then(|screen| top.run(&mut observation, screen, &stop, &marks));
    // By now the terminal is as it was.
    if top.ended.is_none() {
        observation.end();
    }
    let told = top.written.iter().map(|name| format!("wrote {name}")).chain(top.ended);
    for line in told {
        // A terminal that has hung up reads nothing more.
        let _ = writeln!(io::stdout(), "{line}");
    }
    shown.map(|()| ExitCode::SUCCESS)
}

fn target_of(observation: &Observation) -> Target {
    let process = &observation.process;
    Target {
        name: process.comm.clone(),
        pid: process.pid,
        command: process.command.clone(),
        probes: observation.method().label().into(),
        sample_interval: Some(observation.governor.largest_interval()).filter(|interval| *interval > 0),
        told: observation.told.is_some(),
        allocators: observation.allocators.clone(),
    }
}

/// Colours, unless the user wants none (<https://no-color.org>).
fn theme() -> Theme {
    Theme::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
}

/// The view with what feeds it.
struct Top<'a> {
    readings: Readings,
    names: Names,
    sweep: Sweep,
    namer: Namer,
    options: &'a CommonOptions,
    state: State,
    /// Reports written.
    written: Vec<String>,
    /// Why the probes are out, if they are.
    ended: Option<String>,
}

impl Top<'_> {
    fn run(
        &mut self,
        observation: &mut Observation,
        mut screen: Screen,
        stop: &StopFlag,
        marks: &MarkInbox,
    ) -> anyhow::Result<()> {
        let keyboard = Keyboard::listen()?;
        let mut next_tick = Instant::now();
        let mut is_new = true;
        loop {
            if is_new {
                screen.draw(&mut self.state)?;
            }
            self.wait(observation, &keyboard, next_tick.saturating_duration_since(Instant::now()));
            if stop.is_set() || Keyboard::has_hung_up() {
                return Ok(());
            }
            is_new = false;
            while let Some(happened) = keyboard.next() {
                is_new = true;
                let Happened::Key(key) = happened else { continue };
                match self.state.key(key) {
                    None => {}
                    Some(Action::Quit) => return Ok(()),
                    Some(Action::Redraw) => screen.clear()?,
                    Some(Action::Mark) => self.mark(observation)?,
                    Some(Action::Write { path, overwrite }) => {
                        self.state.say(format!("writing {} …", path.display()));
                        screen.draw(&mut self.state)?;
                        self.write(observation, &path, overwrite);
                    }
                }
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                is_new |= self.tick(observation, marks)?;
            } else if self.ended.is_none() {
                observation.keep_up();
            }
            is_new |= self.names.look_up(observation, &mut self.namer, &mut self.state, is_new);
        }
    }

    /// Waits for a key, or for whatever else there is to do.
    fn wait(&self, observation: &Observation, keyboard: &Keyboard, timeout: Duration) {
        if self.ended.is_none() {
            return observation.wait(keyboard.as_fd(), timeout);
        }
        // An error other than a signal leaves us to the clock.
        let timeout = Timespec::try_from(timeout).ok();
        let _ = poll(&mut [PollFd::new(keyboard, PollFlags::IN)], timeout.as_ref());
    }

    /// Does what is to be done every now and then; whether there is something new to see.
    fn tick(&mut self, observation: &mut Observation, marks: &MarkInbox) -> anyhow::Result<bool> {
        let mut is_new = false;
        if self.ended.is_none() {
            if !observation.process.is_alive() {
                let reason = format!("process {} has ended", observation.process.pid);
                self.end(observation, reason)?;
                return Ok(true);
            }
            let reading = observation.tick()?;
            if reading.replaced {
                let reason = "the process has replaced its program (exec): what it had allocated is gone";
                self.end(observation, reason.to_owned())?;
                return Ok(true);
            }
            if self.options.duration.is_some_and(|duration| observation.duration() >= duration) {
                self.end(observation, "the time is over".to_owned())?;
                return Ok(true);
            }
            let mut is_marked = false;
            let state = &mut self.state;
            marks.take(|name| {
                let said = observation.mark(name)?;
                is_marked = true;
                state.say(format!("marked {said}"));
                Ok(said)
            });
            if is_marked {
                self.take_note_of_mark(observation)?;
            }
            if self.readings.are_due(observation) {
                self.read(observation)?;
                is_new = true;
            }
            is_new |= is_marked;
        }
        if let Some(swept) = self.sweep.step(observation, self.state.wants_detail())? {
            self.readings.oldest = swept.oldest;
            if let Some(detail) = swept.detail {
                self.state.detail(detail);
                is_new = true;
            }
        }
        Ok(is_new)
    }

    fn read(&mut self, observation: &mut Observation) -> anyhow::Result<()> {
        let update = self.readings.read(observation, &self.namer)?;
        self.state.allocators(&observation.allocators);
        self.state.update(update);
        Ok(())
    }

    fn mark(&mut self, observation: &mut Observation) -> anyhow::Result<()> {
        match observation.mark(None) {
            Ok(said) => {
                self.state.say(format!("marked {said}"));
                self.take_note_of_mark(observation)
            }
            Err(refused) => {
                self.state.say(refused);
                Ok(())
            }
        }
    }

    fn take_note_of_mark(&mut self, observation: &mut Observation) -> anyhow::Result<()> {
        // Of a shorter time than that, rates say nothing.
        if self.readings.age(observation) > TICK * 4 {
            self.read(observation)?;
        }
        self.readings.mark(observation);
        self.state.marked();
        Ok(())
    }

    /// Takes the probes out. What is shown stays.
    fn end(&mut self, observation: &mut Observation, reason: String) -> anyhow::Result<()> {
        if observation.process.is_alive() {
            self.namer.ask_living(observation);
        }
        observation.end();
        self.read(observation)?;
        self.state.end(reason.clone());
        self.ended = Some(reason);
        Ok(())
    }

    /// Writes a report of all that was seen so far. What goes wrong is told in the view.
    fn write(&mut self, observation: &mut Observation, path: &Path, overwrite: bool) {
        if path.exists() && !overwrite {
            return self.state.ask_to_overwrite(path.to_owned());
        }
        let written = OutputSpec::new(path.to_owned(), None).and_then(|spec| {
            if spec.is_stdout() {
                bail!("standard output is the screen: name a file");
            }
            let options = CommonOptions { outputs: vec![spec], ..self.options.clone() };
            let outputs = Outputs::open(&options, "heapscope")?;
            if self.ended.is_none() {
                self.namer.ask_living(observation);
            }
            let profile = self.namer.profile(observation, &options, usize::MAX)?;
            outputs.write(&profile, &report_options(&options))
        });
        match written {
            Ok(names) => {
                self.state.say(format!("wrote {}", names.join(", ")));
                self.written.extend(names);
            }
            Err(error) => self.state.say(format!("nothing written: {error:#}")),
        }
    }
}
