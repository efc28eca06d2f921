//! One target under observation: its code, the probes in it, and the stacks met so far.

use std::{
    collections::HashMap,
    os::fd::BorrowedFd,
    thread,
    time::{Duration, Instant, SystemTime},
};

use profiler_common::{
    counters::Counter, limits::MAX_FRAMES, mappings::MAPPING_SITE, python::python_end, records::walk_end,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    code::CodeMap,
    dangers::refuse_dangerous,
    governor::Governor,
    growth::Growth,
    history::History,
    lookout::Lookout,
    mapped::{self, Mapped},
    named_allocator::NamedAllocator,
    only_caller::Callers,
    options::{BudgetOptions, CommonOptions},
    overhead::OverheadMeter,
    pools::Pools,
    python::{Groups, Python},
    recorder::Recorder,
    sampled_code::SampledCode,
    told::{self, Told},
};
use crate::{
    ledger::estimate::Unseen,
    probe::{
        AttachMethod, Counters, ProbeSettings, StackRecord,
        ebpf::{EbpfProbe, Preparation},
        error::ProbeError,
    },
    report::{
        budget::{BudgetReport, Recorded},
        units,
    },
    symbolize::label,
    sys::priority::GivingWay,
    target::process::Process,
    unwind::rows::Pruning,
};

/// The stack of one site.
#[derive(Debug)]
pub(super) struct SiteStack {
    /// Index in [`Observation::allocators`].
    pub(super) allocator: u8,
    /// How the walk ended: `profiler_common::records::walk_end`.
    pub(super) end: u8,
    /// Indices of code locations, leaf first.
    pub(super) frames: Box<[u32]>,
    /// Its Python frames.
    pub(super) python: Groups,
    pub(super) python_is_whole: bool,
}

/// What the status line shows.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) counters: Counters,
    pub(super) sites: usize,
    /// Whether growth is watched and not allocators.
    pub(super) is_of_growth: bool,
    pub(super) overhead_percent: Option<f64>,
    pub(super) budget: BudgetReport,
    pub(super) recorded: Recorded,
    /// Whether the budget cannot be kept, which ends the observation.
    pub(super) let_go: bool,
    /// What the user is to be told.
    pub(super) said: Vec<String>,
    /// Whether the target has replaced its program, which ends the observation.
    pub(super) replaced: bool,
}

/// The target under observation.
pub(super) struct Observation {
    pub(super) process: Process,
    pub(super) code: CodeMap,
    pub(super) stacks: HashMap<u64, SiteStack>,
    /// Names of the allocators, by the index that the probes know them by.
    pub(super) allocators: Vec<String>,
    pub(super) started: SystemTime,
    /// Sentences about what is not seen, or not seen well.
    pub(super) warnings: Vec<String>,
    pub(super) python: Python,
    /// Python's small objects, once there is an interpreter.
    pub(super) pools: Option<Pools>,
    /// Mapped memory, if it is watched.
    pub(super) mapped: Option<Mapped>,
    /// Growth, if that is watched and not allocators.
    pub(super) growth: Option<Growth>,
    pub(super) custom: Vec<NamedAllocator>,
    /// The functions whose allocations are recorded, where not all are.
    pub(super) callers: Option<Callers>,
    /// What the target tells itself, where that is recorded.
    pub(super) told: Option<Told>,
    pub(super) governor: Governor,
    pub(super) sampled_code: SampledCode,
    /// Stacks that were cut where their walk had used the table of a file that was gone.
    pub(super) outdated: u64,
    /// The most executable mappings at a time that the walkers had no room for.
    pub(super) left_out: usize,
    pub(super) probe: EbpfProbe,
    began: Instant,
    lasted: Option<Duration>,
    pub(super) meter: OverheadMeter,
    pub(super) lookout: Lookout,
    pub(super) history: History,
    /// The recording that is written meanwhile, if there is one.
    pub(super) recorder: Option<Recorder>,
    /// Until the first probe comes.
    pub(super) giving_way: Option<GivingWay>,
}

impl Observation {
    /// Reads the target, loads the programs and places the probes for every allocator that is mapped; none at all is
    /// not an error yet.
    pub(super) fn begin(process: Process, options: &CommonOptions) -> anyhow::Result<Self> {
        // Not beside a process that is watched already.
        let giving_way = (!options.children).then(GivingWay::begin);
        refuse_dangerous(&process)?;
        // What is mapped from here on is told; what was mapped before is read.
        let lookout = Lookout::new(process.pid, options.children);
        let pruning = if options.growth { Pruning::None } else { Pruning::CallSites };
        let (read, preparation) = thread::scope(|scope| {
            let preparation = scope.spawn(Preparation::begin);
            let read = CodeMap::read(&process, pruning);
            (read, preparation.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let (code, change) = read?;
        let capacity = code.capacity();
        let (told, not_told) = Told::decide(options, &change.modules);
        let of_blocks = if options.growth { BudgetOptions::default() } else { options.budget };
        let (sampling, control) = told::first_control(told.as_ref(), &of_blocks);
        let settings = ProbeSettings {
            pid: process.pid,
            identity: process.own_identity()?,
            min_size: options.min_size.unwrap_or(0),
            max_size: options.max_size.unwrap_or(u64::MAX),
            only_callers: !options.only_callers.is_empty(),
            told: told.is_some(),
            sampling,
            control,
            custom_allocators: !options.allocators.is_empty(),
            mappings: options.mmap || options.growth,
            growth: options.growth,
            python: true,
            max_memory: options.max_memory,
            method: options.method,
            row_chunks: capacity.chunks,
            pages: capacity.pages,
            rules: capacity.rules,
        };
        let probe = EbpfProbe::load_prepared(preparation, &settings)?;
        let meter = OverheadMeter::new(&probe);
        let meter = if options.growth { meter.of_faults() } else { meter };
        let mut observation = Self {
            callers: Callers::of(options, process.pid),
            told,
            process,
            code,
            stacks: HashMap::new(),
            allocators: Vec::new(),
            started: SystemTime::now(),
            warnings: Vec::new(),
            python: Python::default(),
            pools: None,
            mapped: None,
            growth: None,
            custom: options.allocators.iter().cloned().map(NamedAllocator::new).collect(),
            governor: Governor::new(&of_blocks, &control),
            sampled_code: SampledCode::default(),
            outdated: 0,
            left_out: 0,
            probe,
            began: Instant::now(),
            lasted: None,
            meter,
            lookout,
            history: History::begin(options.interval),
            recorder: None,
            giving_way,
        };
        if !observation.probe.exec_watched() {
            observation.warnings.push(
                "The kernel did not let us watch for exec: if the process replaces its program, the numbers mix both."
                    .into(),
            );
        }
        observation.warnings.extend(not_told.map(told::not_told));
        observation.governor.told = observation.told.is_some();
        observation.mapped = (options.mmap || options.growth).then(|| Mapped::begin(&observation.process));
        observation.growth = options.growth.then(|| Growth::begin(&observation.process, &options.budget));
        observation.start_clock(options);
        observation.take_up(&change)?;
        observation.begin_growth()?;
        observation.decide_first(options)?;
        Ok(observation)
    }

    /// The observation begins now.
    pub(super) fn start_clock(&mut self, options: &CommonOptions) {
        self.started = SystemTime::now();
        self.began = Instant::now();
        self.history = History::begin(options.interval);
    }

    /// How the probes are attached.
    pub(super) fn method(&self) -> AttachMethod {
        self.probe.method()
    }

    /// What may have been allocated though no sample was drawn of it.
    pub(super) fn unseen(&self) -> Result<Unseen, ProbeError> {
        let space = self.counters()?.get(Counter::UnsampledSpace);
        Ok(Unseen { interval: self.governor.largest_interval(), space })
    }

    /// How long the probes have been, or were, in the target.
    pub(super) fn duration(&self) -> Duration {
        self.lasted.unwrap_or_else(|| self.began.elapsed())
    }

    /// Looks at the target's mappings again, and takes up what is new.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let looked = self.code.refresh(&self.process).map_err(Into::into).and_then(|c| self.take_up(&c));
        self.lookout.looked(began, Instant::now());
        looked
    }

    /// Waits until the other descriptor is readable, the target has mapped code, or a new stack has Python frames, at most
    /// for `timeout`; a signal ends the wait early.
    pub(super) fn wait(&self, other: BorrowedFd<'_>, timeout: Duration) {
        let code = self.lookout.descriptor().unwrap_or(other);
        let stacks = if self.python.is_running() { self.probe.stacks_descriptor() } else { other };
        let mut descriptors = [other, code, stacks].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        // An error other than a signal leaves us to the caller's clock.
        let _ = poll(&mut descriptors, Timespec::try_from(timeout).ok().as_ref());
    }

    /// Takes in new stacks, and looks at the mappings if it is time.
    pub(super) fn keep_up(&mut self) {
        // In this order: of what was mapped before a stack was taken, the kernel has told when the stack is here.
        let stacks = self.new_stacks();
        self.hear_mappings();
        let mapped = self.lookout.listen();
        self.code.note_mapped(mapped);
        if self.lookout.is_due(Instant::now()) {
            if let Err(error) = self.look()
                && self.process.is_alive()
            {
                self.warn(format!("{error:#}"));
            }
            // What was mapped while we looked may be what we saw.
            let mapped = self.lookout.listen();
            self.code.note_mapped(mapped);
        }
        self.take_in(stacks);
    }

    /// Does what has to be done every now and then: takes in new stacks, looks for new libraries, reads the counters.
    pub(super) fn tick(&mut self) -> anyhow::Result<Reading> {
        let counters = self.probe.counters()?;
        self.lookout.walks_unmapped(counters.get(Counter::StackNoMapping));
        self.keep_up();
        self.look_at_pages_in_time();
        self.python_begins()?;
        self.history.snapshot(&self.probe, &self.process, self.duration(), false)?;
        if self.growth.is_some() {
            self.govern_growth(&counters)?
        } else {
            self.govern(&counters)?
        }
        Ok(Reading {
            sites: self.stacks.len(),
            is_of_growth: self.growth.is_some(),
            overhead_percent: self.meter.percent(),
            budget: self.budget_report(),
            recorded: self.governor.recorded(self.probe.control()),
            let_go: self.governor.let_go,
            said: self.governor.said(),
            replaced: self.probe.closed()?,
            counters,
        })
    }

    /// Takes the probes out and takes in what is left.
    pub(super) fn end(&mut self) {
        self.lasted.get_or_insert_with(|| self.began.elapsed());
        self.end_windows();
        self.probe.detach();
        self.keep_up();
        // Without the last snapshot the others are as true as before.
        let _ = self.history.snapshot(&self.probe, &self.process, self.duration(), true);
    }

    /// The last counters.
    pub(super) fn counters(&self) -> Result<Counters, ProbeError> {
        self.probe.counters()
    }

    /// Our share of the target's CPU time over the whole observation, in percent.
    pub(super) fn overhead_percent(&self) -> Option<f64> {
        self.meter.total_percent()
    }

    /// What the probes took of one processor, in percent.
    pub(super) fn processor_percent(&self) -> Option<f64> {
        self.meter.processor_percent()
    }

    /// Sets a mark, and says what is live by now.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn mark(&mut self, name: Option<String>) -> Result<String, String> {
        let counters = self.probe.counters().map_err(|error| error.to_string())?;
        let mark = self.history.mark(name)?;
        let (name, time) = (label::clean(&mark.name), mark.time);
        let (space, objects) =
            (units::bytes(counters.inuse_space()), units::blocks(counters.inuse_objects()));
        Ok(format!("{name}, after {}: {space} live in {objects}", units::span(self.history.after(time))))
    }

    fn new_stacks(&mut self) -> Vec<StackRecord> {
        let mut stacks = Vec::new();
        self.probe.new_stacks(|record| stacks.push(record));
        // After the stacks: of the code on a stack that is here, it has been told.
        self.probe.python_codes(|record| self.python.hear(record));
        stacks
    }

    fn take_in(&mut self, stacks: Vec<StackRecord>) {
        for record in stacks {
            let head = record.head;
            let located = self.code.locate(&record);
            let mut end = if located.cut { walk_end::NO_MAPPING } else { head.end };
            let mut frames = located.frames;
            if head.allocator == MAPPING_SITE
                && end == walk_end::NO_MAPPING
                && mapped::ends_at_a_return_probe(&record.frames)
            {
                end = mapped::INSIDE_AN_ALLOCATOR;
                frames = frames.iter().copied().take(frames.len().saturating_sub(1)).collect();
            }
            self.outdated += u64::from(located.cut && head.end != end);
            let python_is_whole = head.python_end == python_end::COMPLETE;
            let python = self.python.take_in(&record.python, |code| self.probe.last_death_at(code));
            let stack = SiteStack { allocator: head.allocator, end, frames, python, python_is_whole };
            self.stacks.insert(head.site, stack);
        }
    }

    pub(super) fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

/// A stack is cut at this many frames.
pub(super) const FRAME_LIMIT: usize = MAX_FRAMES;
