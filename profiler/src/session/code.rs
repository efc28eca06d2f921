//! The target's code as it changes: what is mapped where, how to unwind it, and what an address meant when it was met.
//!
//! Files are opened once and stay open, so that everything can be named when the target is gone. Tables only grow; a
//! library that goes away leaves its rows behind unused.

mod state;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use profiler_common::tables::MappingRange;

use self::state::{Placed, State, executable};
use crate::{
    probe::StackRecord,
    report::profile::CodeMapping,
    symbolize::symbolizer::CodeLocation,
    sys::{clock::monotonic_nanoseconds, perf::Mapped},
    target::{
        address::Svma,
        error::TargetError,
        maps::{Mapping, MappingKind, Maps},
        module::Module,
        module_cache::ModuleCache,
        process::Process,
    },
    unwind::{
        rows::{ModuleRows, Pruning, RowStatistics, rows_with},
        table::{Capacity, ModuleTable, Pending, TableBuilder},
    },
};

/// Room for tables beyond what the target needs now: for libraries that it loads later.
/// 4 MiB of rows and 1 GiB of text hold a compiler with all its libraries four times over.
const SPARE: Capacity = Capacity { chunks: 256, pages: 1 << 16, rules: 16384 };
/// The most room that a target gets, whatever it maps: 64 MiB of rows, 8 GiB of text.
const MOST: Capacity = Capacity { chunks: 4096, pages: 1 << 19, rules: 16384 };
/// Mapping states kept for addresses that were met before the last change.
const REMEMBERED: usize = 16;
/// Notices of mapped code kept one by one; more than that are taken for one of everything.
const NOTICES: usize = 1024;
/// The frames of a stack, as indices for [`CodeMap::location`].
#[derive(Debug)]
pub(super) struct Located {
    pub(super) frames: Box<[u32]>,
    /// Whether what lies beyond the last frame was left out: the walk took the table of a file that was no longer there.
    pub(super) cut: bool,
}

/// What a look at the target's mappings brought.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Whether any executable mapping came, went or moved.
    pub(super) mappings: bool,
    /// Files that were not mapped before.
    pub(super) modules: Vec<Arc<Module>>,
}

/// The target's code.
#[derive(Debug)]
pub(super) struct CodeMap {
    cache: ModuleCache,
    pruning: Pruning,
    tables: HashMap<*const Module, Option<ModuleTable>>,
    builder: TableBuilder,
    capacity: Capacity,
    seen: Vec<Mapping>,
    /// The current state last.
    states: Vec<State>,
    /// Code that was mapped since the oldest of `looks`.
    mapped: Vec<Mapped>,
    /// When the last looks began. Stacks that are still on their way may have been walked by the tables of the one before
    /// the last, or of an earlier one, if the walk was preempted.
    looks: [u64; 8],
    locations: Vec<CodeLocation>,
    known: HashMap<(u32, u64, bool), u32>,
    skipped: BTreeMap<String, String>,
}

impl CodeMap {
    /// Looks at the target for the first time. The files found are in the answer, to be searched for allocators.
    pub(super) fn read(process: &Process, pruning: Pruning) -> Result<(Self, Change), TargetError> {
        let mut code = Self {
            cache: ModuleCache::default(),
            pruning,
            tables: HashMap::new(),
            builder: TableBuilder::new(SPARE),
            capacity: SPARE,
            seen: Vec::new(),
            states: Vec::new(),
            mapped: Vec::new(),
            looks: [0; 8],
            locations: Vec::new(),
            known: HashMap::new(),
            skipped: BTreeMap::new(),
        };
        let read = monotonic_nanoseconds();
        let mappings = executable(Maps::read(process)?);
        let opened = code.open(process, &mappings);
        let modules = code.new_modules(&opened);
        let unwound: Vec<_> =
            modules.iter().filter_map(|module| Some((module, code.rows(module)?))).collect();
        let rows: u64 = unwound.iter().map(|(_, rows)| rows.statistics.kept_rows).sum();
        let text: u64 = modules.iter().map(|module| text_span(module)).sum();
        // A page's rows do not cross the end of a chunk, which wastes little; twice the need is ample.
        code.capacity = Capacity {
            chunks: bounded(rows / 2048, SPARE.chunks, MOST.chunks),
            pages: bounded(text >> 13, SPARE.pages, MOST.pages),
            rules: SPARE.rules,
        };
        code.builder = TableBuilder::new(code.capacity);
        for (module, rows) in unwound {
            code.add_table(module, &rows);
        }
        code.place(read, mappings, opened);
        Ok((code, Change { mappings: true, modules }))
    }

    /// How much room the BPF maps must have.
    pub(super) fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Files without unwind tables, with the reason.
    pub(super) fn skipped(&self) -> &BTreeMap<String, String> {
        &self.skipped
    }

    /// Looks again.
    pub(super) fn refresh(&mut self, process: &Process) -> Result<Change, TargetError> {
        let read = monotonic_nanoseconds();
        let mappings = executable(Maps::read(process)?);
        let overwritten: Vec<_> =
            self.cache.overwritten().map(|module| module.path.display().to_string()).collect();
        if mappings == self.seen && overwritten.is_empty() {
            if let Some(state) = self.states.last_mut() {
                state.confirmed = read;
            }
            self.looked(read);
            return Ok(Change::default());
        }
        for path in overwritten {
            let reason = "somebody has written into this file since it was mapped. Names in what ran before may be wrong";
            self.skipped.insert(path, reason.to_owned());
        }
        let opened = self.open(process, &mappings);
        let modules = self.new_modules(&opened);
        for module in &modules {
            if let Some(rows) = self.rows(module) {
                self.add_table(module, &rows);
            }
        }
        self.place(read, mappings, opened);
        Ok(Change { mappings: true, modules })
    }

    /// What the BPF maps do not have yet.
    pub(super) fn pending(&self) -> Pending {
        self.builder.pending()
    }

    /// The tables.
    pub(super) fn tables(&self) -> &TableBuilder {
        &self.builder
    }

    /// Notes that the BPF maps have it now.
    pub(super) fn mark_uploaded(&mut self, pending: Pending) {
        self.builder.mark_uploaded(pending);
    }

    /// The mappings as the walkers take them, and how many they have no room for. Those without tables are left out
    /// first: in them the walk could only guess.
    pub(super) fn ranges(&self) -> (Vec<MappingRange>, usize) {
        self.states.last().map(State::ranges).unwrap_or_default()
    }

    /// Notes that the walkers know the current state by this number from now on.
    pub(super) fn published(&mut self, generation: u32) {
        if let Some(state) = self.states.last_mut() {
            state.generation = Some(generation);
        }
    }

    /// Takes note of code that the kernel says was mapped.
    pub(super) fn note_mapped(&mut self, mapped: Vec<Mapped>) {
        self.mapped.extend(mapped);
        if self.mapped.len() > NOTICES {
            // What a JIT does to the same range again and again: the first and the last time tell as much.
            let mut times: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
            for Mapped { range, at } in &self.mapped {
                let known = times.entry((range.start, range.end)).or_insert((*at, *at));
                *known = (known.0.min(*at), known.1.max(*at));
            }
            let both =
                |((start, end), (first, last))| [first, last].map(|at| Mapped { range: start..end, at });
            self.mapped = times.into_iter().flat_map(both).collect();
        }
        if self.mapped.len() > NOTICES {
            let at = self.mapped.iter().map(|mapped| mapped.at).max().unwrap_or(0);
            let first = self.mapped.iter().map(|mapped| mapped.at).min().unwrap_or(0);
            self.mapped = [first, at].map(|at| Mapped { range: 0..u64::MAX, at }).into();
        }
    }

    /// Where a stack's frames lie, in the mappings that its walk used.
    pub(super) fn locate(&mut self, stack: &StackRecord) -> Located {
        let used = self.states.iter().rposition(|state| state.generation == Some(stack.head.generation));
        let used = used.unwrap_or(self.states.len().saturating_sub(1));
        let mut frames = Vec::with_capacity(stack.frames.len());
        for (index, address) in stack.frames.iter().enumerate() {
            let outdated = self.is_outdated(used, address.wrapping_sub(1), stack.head.time);
            let state = if outdated { self.states.len() - 1 } else { used };
            frames.push(self.location_of(*address, stack.guessed(index), state));
            if outdated {
                return Located { frames: frames.into(), cut: true };
            }
        }
        Located { frames: frames.into(), cut: false }
    }

    /// Whether, at this time, something else was mapped at an address than the state says, or may have been.
    fn is_outdated(&self, used: usize, call: u64, time: u64) -> bool {
        let (Some(state), Some(latest)) = (self.states.get(used), self.states.last()) else { return false };
        let Some(placed) = state.at(call) else { return false };
        let mapped_within = |times: std::ops::RangeInclusive<u64>| {
            let there = self.mapped.iter().filter(move |mapped| mapped.range.contains(&call));
            there.map(|mapped| mapped.at).filter(move |at| times.contains(at)).max()
        };
        let Some(last) = mapped_within(state.read..=time) else { return false };
        let is_the_same =
            latest.confirmed > last && latest.at(call).is_some_and(|now| now.shows_the_same(placed));
        // What was mapped in between may have come and gone unseen, and a look takes its time. Without a file there are no
        // rows to lead astray.
        let since = last.saturating_add(1)..=u64::MAX;
        let is_another_since = placed.module.is_some() && mapped_within(since).is_some();
        !is_the_same || is_another_since
    }

    /// What the loader added to the addresses of a file that is mapped now.
    pub(super) fn bias_of(&self, module: &Arc<Module>) -> Option<u64> {
        let placed = self.states.last()?.placed.iter().filter_map(|placed| placed.module.as_ref());
        placed.clone().find_map(|(there, bias)| Arc::ptr_eq(there, module).then_some(*bias))
    }

    /// The files of the states that are remembered, for reports.
    pub(super) fn mapped_files(&self) -> Vec<CodeMapping> {
        state::mapped_files(&self.states)
    }

    /// A location by its index.
    pub(super) fn location(&self, index: u32) -> Option<&CodeLocation> {
        self.locations.get(index as usize)
    }

    /// An address that the state does not know, as the last one of an incomplete stack, is what it was in another.
    fn location_of(&mut self, address: u64, guessed: bool, used: usize) -> u32 {
        let generation = self.states.get(used).and_then(|state| state.generation).unwrap_or(0);
        if let Some(index) = self.known.get(&(generation, address, guessed)) {
            return *index;
        }
        let call = address.wrapping_sub(1);
        let placed = self.states.get(used).and_then(|state| state.at(call));
        let placed = placed.or_else(|| self.states.iter().rev().find_map(|state| state.at(call)));
        let module = placed.and_then(|placed| placed.module.as_ref());
        let module = module.map(|(module, bias)| (Arc::clone(module), Svma(address.wrapping_sub(*bias))));
        let index = u32::try_from(self.locations.len()).unwrap_or(u32::MAX);
        self.locations.push(CodeLocation { address, module, guessed });
        self.known.insert((generation, address, guessed), index);
        index
    }

    fn open(&mut self, process: &Process, mappings: &[Mapping]) -> Vec<Option<Arc<Module>>> {
        let mut opened = Vec::with_capacity(mappings.len());
        for mapping in mappings {
            opened.push(match self.cache.open(process, mapping) {
                Ok(module) => module,
                Err(error) => {
                    let name = match &mapping.kind {
                        MappingKind::File(path) => path.display().to_string(),
                        MappingKind::Special(name) => name.clone(),
                        MappingKind::Anonymous => "memory without a name".to_owned(),
                    };
                    self.skipped.insert(name, error.to_string());
                    None
                }
            });
        }
        opened
    }

    fn new_modules(&self, opened: &[Option<Arc<Module>>]) -> Vec<Arc<Module>> {
        let mut met = HashSet::new();
        let modules = opened.iter().flatten();
        modules
            .filter(|module| {
                !self.tables.contains_key(&Arc::as_ptr(module)) && met.insert(Arc::as_ptr(module))
            })
            .cloned()
            .collect()
    }

    fn rows(&mut self, module: &Arc<Module>) -> Option<ModuleRows> {
        self.tables.insert(Arc::as_ptr(module), None);
        let read = module
            .data()
            .map_err(|error| error.to_string())
            .and_then(|data| rows_with(&data, self.pruning).map_err(|error| error.to_string()));
        match read {
            Ok(rows) => {
                if let Some(damage) = damage(&rows) {
                    self.skipped.insert(module.path.display().to_string(), damage);
                }
                Some(rows)
            }
            Err(reason) => {
                self.skipped.insert(module.path.display().to_string(), reason);
                None
            }
        }
    }

    fn add_table(&mut self, module: &Arc<Module>, rows: &ModuleRows) {
        match self.builder.add_module(rows) {
            Ok(table) => {
                self.tables.insert(Arc::as_ptr(module), Some(table));
            }
            Err(full) => {
                self.skipped.insert(module.path.display().to_string(), full.to_string());
            }
        }
    }

    /// Makes `mappings` the current state.
    /// Forgets what no stack can be about any more.
    fn looked(&mut self, began: u64) {
        self.looks.rotate_left(1);
        if let Some(last) = self.looks.last_mut() {
            *last = began;
        }
        let [oldest, ..] = self.looks;
        self.mapped.retain(|mapped| mapped.at >= oldest);
    }

    fn place(&mut self, read: u64, mappings: Vec<Mapping>, opened: Vec<Option<Arc<Module>>>) {
        let placed = mappings.iter().zip(opened).map(|(mapping, module)| {
            let module = module.and_then(|module| {
                let bias = module.bias(mapping)?;
                Some((module, bias))
            });
            let table = module.as_ref().and_then(|(module, bias)| {
                let table = (*self.tables.get(&Arc::as_ptr(module))?)?;
                Some(table.mapping(mapping.range.start, mapping.range.end, *bias))
            });
            // Without a table the walkers take frame-pointer steps there.
            let (begin, end) = (mapping.range.start.0, mapping.range.end.0);
            let range = table.unwrap_or(MappingRange { begin, end, ..MappingRange::default() });
            Placed { range, offset: mapping.offset, module }
        });
        let state = State { generation: None, read, confirmed: read, placed: placed.collect() };
        if self.states.len() == REMEMBERED {
            self.states.remove(0);
        }
        self.states.push(state);
        self.looked(read);
        self.seen = mappings;
        // The same address may mean something else from now on.
        self.known.clear();
    }
}

/// What a reader should know of a file whose call frame information was used in part. An assembler's single slip, of
/// which distributions have some, is not worth a warning.
fn damage(rows: &ModuleRows) -> Option<String> {
    let RowStatistics { fdes, damaged_fdes, beyond_budget, .. } = rows.statistics;
    let unusable = match (fdes, damaged_fdes) {
        _ if beyond_budget => "makes more work than any real one and was not read to its end".to_owned(),
        (0, _) if rows.coverage.undescribed > 0 => "describes no function".to_owned(),
        _ if damaged_fdes > fdes / 20 => {
            format!("is damaged: {damaged_fdes} of {fdes} entries cannot be read")
        }
        _ => return None,
    };
    Some(format!("its call frame information {unusable}; frames in it may be guessed by frame pointers"))
}

/// Bytes from the first executable byte of a module to the last.
fn text_span(module: &Module) -> u64 {
    let code = || module.segments.iter().filter(|segment| segment.executable);
    let first = code().map(|segment| segment.svma.0).min().unwrap_or(0);
    let end = code().map(|segment| segment.svma.0.saturating_add(segment.file_size)).max().unwrap_or(0);
    end.saturating_sub(first)
}

fn bounded(needed: u64, spare: u32, most: u32) -> u32 {
    u32::try_from(needed).unwrap_or(most).saturating_add(spare).min(most)
}
