//! `--only-caller`: allocations by certain functions alone, seen with as few probes as that takes.
//!
//! Where every call of an allocator in these functions is known, it is these calls that are probed, and whoever else
//! allocates does not trap. Else the allocators' functions are probed, and a call out of another function is left at its
//! entry. Functions that free or resize a block are probed in either case: anyone may free or resize a block that is ours.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, bail};
use profiler_common::records::CallKind;

use super::{observation::Observation, options::CommonOptions};
use crate::{
    probe::{Position, ProbePoint},
    report::profile::OnlyCaller,
    symbolize::{
        label::clean,
        symbolizer::{SymbolizeOptions, Symbolizer},
        wanted::WantedFunction,
    },
    target::{
        address::{FileOffset, Svma},
        allocator::{
            Allocator,
            callers::{Callee, CallsOf, NamedCode, calls_of},
            operators::find_operators,
        },
        module::Module,
        module_cache::read_memory,
    },
};

/// Functions with probes on calls have numbers from here on, so that they are told from those with probes of their own.
const FIRST_NUMBER: u8 = 128;
/// Functions and files that are named in a sentence.
const NAMED: usize = 5;

/// What is known of the functions and of who allocates.
#[derive(Debug)]
pub(super) struct Callers {
    wanted: Vec<WantedFunction>,
    symbolizer: Symbolizer,
    /// Files that were not searched yet, and those that were.
    unsearched: Vec<Arc<Module>>,
    searched: Vec<Arc<Module>>,
    found: Vec<Caller>,
    /// Which of the names have been found.
    met: Vec<bool>,
    /// Allocators with their functions that give a block, by the index that the probes know them by.
    giving: Vec<(u8, Allocator)>,
    /// How many of these are probed, once they are.
    probed: usize,
    /// Files whose operators `new` were looked at for that.
    with_operators: Vec<Arc<Module>>,
    /// Why the allocators' functions are probed.
    why: Option<String>,
    callees: BTreeMap<String, usize>,
    stepped: usize,
}

/// One function that was asked for.
#[derive(Debug)]
struct Caller {
    module: Arc<Module>,
    code: NamedCode,
    calls: CallsOf,
    placed: bool,
}

fn gives_a_block(kind: CallKind) -> bool {
    matches!(kind, CallKind::Allocate | CallKind::AllocateInto)
}

impl Callers {
    /// Those that the options ask for, if they do.
    pub(super) fn of(options: &CommonOptions, pid: u32) -> Option<Self> {
        if options.only_callers.is_empty() {
            return None;
        }
        let mut symbolizer = Symbolizer::new(SymbolizeOptions {
            debug_dirs: options.debug_dirs.clone(),
            ..SymbolizeOptions::default()
        });
        // Without the target's debug files there are still its own symbols.
        let _ = symbolizer.set_target_root(pid);
        Some(Self {
            wanted: options.only_callers.clone(),
            met: vec![false; options.only_callers.len()],
            symbolizer,
            unsearched: Vec::new(),
            searched: Vec::new(),
            found: Vec::new(),
            giving: Vec::new(),
            probed: 0,
            with_operators: Vec::new(),
            why: None,
            callees: BTreeMap::new(),
            stepped: 0,
        })
    }

    /// Keeps what gives a block from being probed until it is known whether that is needed.
    pub(super) fn hold_back(&mut self, index: u8, allocator: &mut Allocator) {
        let (giving, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut allocator.functions).into_iter().partition(|f| gives_a_block(f.call.kind));
        allocator.functions = others;
        let wrapping =
            allocator.wrapping.iter().filter(|function| gives_a_block(function.call.kind)).cloned();
        let functions = giving.into_iter().chain(wrapping).collect();
        self.giving.push((index, Allocator { functions, ..allocator.clone() }));
    }

    /// Takes note of a file with code.
    pub(super) fn add(&mut self, module: &Arc<Module>) {
        self.unsearched.push(Arc::clone(module));
    }

    fn search(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        for module in std::mem::take(&mut self.unsearched) {
            let mut functions: BTreeMap<Svma, NamedCode> = BTreeMap::new();
            for (wanted, met) in self.wanted.iter().zip(&mut self.met) {
                let found = self.symbolizer.functions_named(&module, wanted);
                *met |= !found.is_empty();
                functions.extend(found.into_iter().map(|function| (function.entry, function)));
            }
            let functions: Vec<_> = functions.into_values().collect();
            if !functions.is_empty() {
                match calls_of(&module, &functions) {
                    Ok(calls) => {
                        complaints.extend(functions.iter().zip(&calls).filter_map(moved_away));
                        self.found.extend(functions.into_iter().zip(calls).map(|(code, calls)| Caller {
                            module: Arc::clone(&module),
                            code,
                            calls,
                            placed: false,
                        }));
                    }
                    Err(error) => {
                        complaints.push(format!("{} was not searched: {error}", module.path.display()))
                    }
                }
            }
            self.searched.push(module);
        }
        complaints
    }

    /// Why single calls will not do, if one of the functions that have no probes yet says so.
    fn obstacle(&self) -> Option<String> {
        let mut new = self.found.iter().filter(|caller| !caller.placed);
        new.find_map(|caller| {
            Some(format!("{}: {}", clean(&caller.code.name), caller.calls.obstacle.as_ref()?))
        })
    }

    /// What the report says.
    pub(super) fn report(&self) -> OnlyCaller {
        let asked: Vec<_> = self.wanted.iter().map(WantedFunction::text).collect();
        let functions = |callers: &mut dyn Iterator<Item = &Caller>| {
            let names: Vec<_> = callers
                .map(|caller| format!("{} ({})", clean(&caller.code.name), caller.module.name()))
                .collect();
            let more = names.len().saturating_sub(NAMED);
            let shown = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
            if more > 0 { format!("{shown} and {more} more") } else { shown }
        };
        let mut how = if self.found.is_empty() {
            "no function of that name has been found".to_owned()
        } else {
            format!("in {}", functions(&mut self.found.iter()))
        };
        if let Some(why) = &self.why {
            how.push_str(&format!(", told by the return address: every call of an allocator traps ({why})"));
        } else if !self.callees.is_empty() {
            let called: Vec<_> =
                self.callees.iter().map(|(name, calls)| format!("{calls} × {}", clean(name))).collect();
            how.push_str(&format!(
                ", whose calls are probed where they are made ({}): no other allocation traps, each free and realloc does",
                called.join(", ")
            ));
        }
        if self.stepped > 0 {
            how.push_str(&format!(
                "; at {} of these places the kernel has to single-step, which costs some ten times more",
                self.stepped
            ));
        }
        OnlyCaller { asked: asked.join(", "), how, by_calls: self.why.is_none() && !self.callees.is_empty() }
    }
}

impl Observation {
    /// Looks for the functions in files that are new, and places the probes that see their calls.
    pub(super) fn place_callers(&mut self) -> anyhow::Result<()> {
        let Some(mut callers) = self.callers.take() else { return Ok(()) };
        let placed = self.place(&mut callers);
        self.callers = Some(callers);
        placed
    }

    fn place(&mut self, callers: &mut Callers) -> anyhow::Result<()> {
        for complaint in callers.search() {
            self.warn(complaint);
        }
        // The ranges come first: a probe must not see a call of ours and take it for another's.
        let mut ranges: Vec<[u64; 2]> = Vec::new();
        for caller in &callers.found {
            let Some(bias) = self.code.bias_of(&caller.module) else { continue };
            let begin = caller.code.entry.0.wrapping_add(bias);
            ranges.push([begin, begin.saturating_add(caller.code.size)]);
        }
        let left_out = self.probe.publish_callers(&merged(ranges))?;
        if left_out > 0 {
            self.warn(format!(
                "{left_out} of the functions asked for are more than can be told apart: their allocations may be missing."
            ));
        }
        if self.allocators.is_empty() {
            return Ok(());
        }
        if callers.why.is_none() {
            callers.why = callers.obstacle();
        }
        if callers.why.is_some() {
            self.probe_giving(callers)?;
        }
        self.probe_calls(callers)
    }

    /// Probes the functions that give a block of all allocators, and the operators that call them.
    fn probe_giving(&mut self, callers: &mut Callers) -> anyhow::Result<()> {
        while let Some((index, allocator)) = callers.giving.get(callers.probed) {
            let points = self.points(allocator, *index, false)?;
            let attached = self.probe.attach(&points);
            attached.with_context(|| format!("cannot probe {}", allocator.name))?;
            callers.probed += 1;
        }
        // Of a process with several allocators, the operators call the first: it only names their blocks.
        let Some(index) = callers.giving.first().map(|(index, _)| *index) else { return Ok(()) };
        for module in callers.searched.clone() {
            let is_allocator = callers.giving.iter().any(|(_, known)| Arc::ptr_eq(&known.module, &module));
            if is_allocator || callers.with_operators.iter().any(|known| Arc::ptr_eq(known, &module)) {
                continue;
            }
            callers.with_operators.push(Arc::clone(&module));
            let functions = find_operators(&module).unwrap_or_default();
            if functions.is_empty() {
                continue;
            }
            let operators = Allocator {
                name: String::new(),
                module: Arc::clone(&module),
                functions,
                wrappers: Vec::new(),
                wrapping: Vec::new(),
            };
            // What one of them costs more, only those pay who call it.
            let warned = self.warnings.len();
            let points = self.points(&operators, index, false)?;
            self.warnings.truncate(warned);
            self.probe.attach(&points).with_context(|| format!("cannot probe {}", module.path.display()))?;
        }
        Ok(())
    }

    /// Probes single calls, and jumps, which return to the caller's caller and so are told by nothing else.
    fn probe_calls(&mut self, callers: &mut Callers) -> anyhow::Result<()> {
        let mut points = Vec::new();
        let mut names: Vec<String> = callers.callees.keys().cloned().collect();
        for caller in callers.found.iter().filter(|caller| !caller.placed) {
            let path = caller.module.attach_path().context("a function outside every file")?;
            let mut point = |callee: &Callee, offset: FileOffset, position: Position| {
                let number = names.iter().position(|name| *name == callee.name).unwrap_or_else(|| {
                    names.push(callee.name.clone());
                    names.len() - 1
                });
                points.push(ProbePoint {
                    path: path.clone(),
                    offset,
                    call: callee.call,
                    allocator: self.allocator_of(callers, &caller.module, callee),
                    function: FIRST_NUMBER.saturating_add(u8::try_from(number).unwrap_or(u8::MAX)),
                    custom: false,
                    position,
                });
            };
            if callers.why.is_none() {
                for site in &caller.calls.sites {
                    point(&site.callee, site.at, Position::AtCall);
                    point(&site.callee, site.after, Position::BehindCall(site.behind));
                }
            }
            for jump in &caller.calls.jumps {
                point(&jump.callee, jump.at, Position::AtJump);
            }
        }
        self.probe.attach(&points).context("cannot probe the calls of the functions asked for")?;
        let by_calls = callers.why.is_none();
        for caller in callers.found.iter_mut().filter(|caller| !caller.placed) {
            caller.placed = true;
            let sites =
                caller.calls.sites.iter().filter(|_| by_calls).map(|site| (&site.callee, site.emulated));
            let jumps = caller.calls.jumps.iter().map(|jump| (&jump.callee, jump.emulated));
            for (callee, emulated) in sites.chain(jumps) {
                *callers.callees.entry(callee.name.clone()).or_default() += 1;
                callers.stepped += usize::from(!emulated);
            }
        }
        Ok(())
    }

    /// The allocator that a callee belongs to: its own file's; the one whose function's address stands in the slot; the only
    /// one that has a function of this name; else the first.
    fn allocator_of(&self, callers: &Callers, module: &Arc<Module>, callee: &Callee) -> u8 {
        let has = |allocator: &Allocator, address: u64| {
            let Some(bias) = self.code.bias_of(&allocator.module) else { return false };
            allocator.functions.iter().any(|function| function.entry.0.wrapping_add(bias) == address)
        };
        let bias = self.code.bias_of(module).unwrap_or(0);
        let own = callee.entry.map(|entry| entry.0.wrapping_add(bias));
        let address = own.or_else(|| {
            let bytes = read_memory(&self.process, callee.slot?.0.wrapping_add(bias), 8).ok()?;
            bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
        });
        let by_address = callers.giving.iter().find(|(_, known)| address.is_some_and(|at| has(known, at)));
        let by_name =
            || callers.giving.iter().find(|(_, known)| known.functions.iter().any(|f| f.name == callee.name));
        by_address.or_else(by_name).or_else(|| callers.giving.first()).map_or(0, |(index, _)| *index)
    }

    /// Fails where a function asked for is not there, or none of them calls an allocator.
    pub(super) fn require_callers(&self) -> anyhow::Result<()> {
        let Some(callers) = &self.callers else { return Ok(()) };
        let absent = callers.wanted.iter().zip(&callers.met).find(|(_, met)| !**met);
        if let Some((wanted, _)) = absent {
            let of = |module: &Arc<Module>| callers.symbolizer.names_near(module, wanted);
            let mut near: Vec<(f64, String)> = callers.searched.iter().flat_map(of).collect();
            near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            near.dedup_by(|a, b| a.1 == b.1);
            let near: Vec<_> =
                near.iter().take(NAMED).map(|(_, name)| format!("`{}`", clean(name))).collect();
            let hint = if near.is_empty() {
                "It is spelled otherwise, inlined everywhere, or stripped.".to_owned()
            } else {
                format!("There are: {}. A function that was inlined everywhere has no name.", near.join(", "))
            };
            bail!("no function of process {} is called `{}`. {hint}", self.process.pid, wanted.text());
        }
        if self.custom.is_empty() && callers.found.iter().all(|caller| caller.calls.is_empty()) {
            let name = callers.found.first().map_or_else(String::new, |caller| clean(&caller.code.name));
            bail!(
                "`{name}` calls no allocator itself: what it allocates is allocated by functions that it calls, or that were \
                 inlined elsewhere. Name those; the first frame of a stack in a report is such a function"
            );
        }
        Ok(())
    }
}

/// What to say where parts of a function may lie elsewhere.
fn moved_away((function, calls): (&NamedCode, &CallsOf)) -> Option<String> {
    (!calls.leads_to.is_empty()).then(|| {
        format!(
            "`{}` goes on a condition to code that has no such name, perhaps a part of it that was moved away: allocations \
             there are not recorded.",
            clean(&function.name)
        )
    })
}

/// Ranges in their order, those that touch as one.
fn merged(mut ranges: Vec<[u64; 2]>) -> Vec<[u64; 2]> {
    ranges.sort_unstable();
    let mut merged: Vec<[u64; 2]> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range[0] <= last[1] => last[1] = last[1].max(range[1]),
            _ => merged.push(range),
        }
    }
    merged
}
