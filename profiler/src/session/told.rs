//! Targets that tell of their allocations themselves, by the USDT probes `otel_memory:alloc` and `otel_memory:free`: those
//! are recorded then, and the allocators' functions have no probes.
//!
//! The program samples itself, and says of each block how many bytes it stands for. How far the estimates may be off is
//! not known, because it does not tell how it samples.

use std::sync::Arc;

use anyhow::{Context, bail};
use profiler_common::{
    control::{Control, EXACT},
    records::Call,
    told::{Argument, MAX_PLACES, Place},
};

use super::{
    governor,
    observation::Observation,
    options::{BudgetOptions, CommonOptions, UsdtUse},
};
use crate::{
    probe::{Position, ProbePoint},
    symbolize::label::clean,
    target::{
        module::Module,
        usdt::{self, MEMORY_PROVIDER, UsdtProbe},
    },
};

/// What reports call the allocator of such blocks.
const ALLOCATOR: &str = MEMORY_PROVIDER;
/// The probes' names.
const ALLOC: &str = "alloc";
const FREE: &str = "free";

/// What the target tells.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Places in use.
    places: u16,
    /// Files that have such probes.
    files: Vec<String>,
    /// Whether there are probes of each kind.
    tells: [bool; 2],
    /// Number of the allocator, once there is one.
    index: Option<u8>,
}

/// A probe with its arguments, or the reason why they are not known.
type Read = Result<(UsdtProbe, Place), String>;

fn read_probes(module: &Module) -> Vec<Read> {
    let read = |probe: UsdtProbe| {
        let arguments = if probe.name == FREE {
            usdt::arguments::<1>(&probe.arguments)
                .map(|[block]| [block, Argument::default(), Argument::default()])
        } else {
            usdt::arguments::<3>(&probe.arguments)
        };
        match arguments {
            Ok(arguments) => Ok((probe, Place { arguments })),
            Err(argument) if argument.is_empty() => {
                Err(format!("`{MEMORY_PROVIDER}:{}` has fewer arguments than it should", probe.name))
            }
            Err(argument) => Err(format!(
                "`{MEMORY_PROVIDER}:{}` has an argument in a place that is not known (`{}`)",
                probe.name,
                clean(&argument)
            )),
        }
    };
    let probes = usdt::find_in(module, MEMORY_PROVIDER).into_iter();
    probes.filter(|probe| [ALLOC, FREE].contains(&probe.name.as_str())).map(read).collect()
}

/// What the probes are told first, and whether sums are those of weights.
pub(super) fn first_control(told: Option<&Told>, options: &BudgetOptions) -> (bool, Control) {
    let (sampling, control) = governor::first_control(options);
    match told {
        Some(_) => (true, Control { current: EXACT, ..control }),
        None => (sampling, control),
    }
}

/// What is said where the target's probes cannot be used.
pub(super) fn not_told(reason: String) -> String {
    format!(
        "The program tells of its allocations itself ({ALLOCATOR}), but {reason}: its allocator is probed instead."
    )
}

impl Told {
    /// Whether the target's own probes are to be used, by what was asked for and by the files that it has mapped; the
    /// sentence says why not, where it has such probes and they cannot be.
    pub(super) fn decide(options: &CommonOptions, modules: &[Arc<Module>]) -> (Option<Self>, Option<String>) {
        let budget = &options.budget;
        let whole = budget.exact || budget.sample.is_some() || budget.percent.is_none();
        match options.usdt {
            UsdtUse::Always => (Some(Self::default()), None),
            UsdtUse::Never => (None, None),
            UsdtUse::Auto if whole || !options.only_callers.is_empty() || !options.allocators.is_empty() => {
                (None, None)
            }
            UsdtUse::Auto => {
                let mut probes = modules.iter().flat_map(|module| read_probes(module)).peekable();
                if probes.peek().is_none() {
                    return (None, None);
                }
                let mut tells = [false; 2];
                for probe in probes {
                    match probe {
                        Ok((probe, _)) => tells[usize::from(probe.name == FREE)] = true,
                        Err(reason) => return (None, Some(reason)),
                    }
                }
                match tells {
                    [true, true] => (Some(Self::default()), None),
                    [true, false] => (None, Some("it does not tell what it frees".to_owned())),
                    _ => (None, Some("it tells only what it frees".to_owned())),
                }
            }
        }
    }

    /// What is said when it begins.
    pub(super) fn words(&self) -> String {
        format!(
            "the program tells of its allocations itself ({MEMORY_PROVIDER}, in {}): that is recorded, and its allocator has no \
             probes (--usdt never: the other way round)",
            self.files.join(", ")
        )
    }
}

impl Observation {
    /// Places probes on those that a file has itself.
    pub(super) fn probe_told(&mut self, module: &Arc<Module>) -> anyhow::Result<()> {
        let Some(mut told) = self.told.take() else { return Ok(()) };
        let placed = self.place_told(&mut told, module);
        self.told = Some(told);
        placed
    }

    fn place_told(&mut self, told: &mut Told, module: &Arc<Module>) -> anyhow::Result<()> {
        let (mut places, mut points) = (Vec::new(), Vec::new());
        let first = told.places;
        for probe in read_probes(module) {
            let (probe, place) = match probe {
                Ok(read) => read,
                Err(reason) => {
                    self.warn(format!("{}: {reason}: what it tells is not recorded.", module.name()));
                    continue;
                }
            };
            let Some(offset) = module.file_offset_of(probe.address) else { continue };
            if usize::from(told.places) >= MAX_PLACES {
                self.warn(format!(
                    "{}: there are more than {MAX_PLACES} places that tell of allocations: some are not recorded.",
                    module.name()
                ));
                break;
            }
            let semaphore = probe.semaphore.and_then(|address| module.file_offset_of(address));
            if told.index.is_none() {
                told.index = Some(u8::try_from(self.allocators.len()).unwrap_or(0));
                self.allocators.push(ALLOCATOR.to_owned());
            }
            let is_free = probe.name == FREE;
            told.tells[usize::from(is_free)] = true;
            points.push(ProbePoint {
                path: module.attach_path().context("a probe outside every file")?,
                offset,
                call: if is_free { Call::free(0) } else { Call::allocate(1) },
                allocator: told.index.unwrap_or(0),
                function: 0,
                custom: false,
                position: Position::Told { place: told.places, semaphore },
            });
            places.push(place);
            told.places += 1;
        }
        if points.is_empty() {
            return Ok(());
        }
        told.files.push(module.name());
        self.probe.publish_places(first, &places)?;
        let attached = self.probe.attach(&points);
        attached.with_context(|| format!("cannot listen to the probes of {}", module.path.display()))
    }

    /// Fails where the target was to tell, and has no probes.
    pub(super) fn require_told(&mut self) -> anyhow::Result<()> {
        let Some(told) = &self.told else { return Ok(()) };
        match told.tells {
            [false, _] => bail!(
                "no file of process {} has the USDT probe {MEMORY_PROVIDER}:{ALLOC}. Without --usdt always, its allocator is \
                 probed",
                self.process.pid
            ),
            [true, false] => {
                self.warn(
                    "The program does not tell what it frees: what is live is all that it has allocated."
                        .into(),
                );
                Ok(())
            }
            [true, true] => Ok(()),
        }
    }
}
