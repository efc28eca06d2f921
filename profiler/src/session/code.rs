//! The target's code as it changes: what is mapped where, how to unwind it, and what an address meant when it was met.
//!
//! Files are opened once and stay open, so that everything can be named when the target is gone. Tables only grow; a
//! library that goes away leaves its rows behind unused.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use profiler_common::tables::MappingRange;

use crate::{
    probe::StackRecord,
    symbolize::symbolizer::CodeLocation,
    target::{
        address::Svma,
        error::TargetError,
        maps::{Mapping, MappingKind, Maps},
        module::Module,
        module_cache::ModuleCache,
        process::Process,
    },
    unwind::{
        rows::{ModuleRows, RowStatistics, rows},
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
/// The walkers compare addresses as signed numbers; user space ends well below.
const END_OF_USER_SPACE: u64 = 1 << 63;

/// An executable mapping and what is known of it.
#[derive(Clone, Debug)]
struct Placed {
    range: MappingRange,
    /// The file, and what the loader added to its addresses.
    module: Option<(Arc<Module>, u64)>,
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
    tables: HashMap<*const Module, Option<ModuleTable>>,
    builder: TableBuilder,
    capacity: Capacity,
    seen: Vec<Mapping>,
    /// The current state last.
    states: Vec<Vec<Placed>>,
    locations: Vec<CodeLocation>,
    known: HashMap<(u64, bool), u32>,
    skipped: BTreeMap<String, String>,
}

impl CodeMap {
    /// Looks at the target for the first time. The files found are in the answer, to be searched for allocators.
    pub(super) fn read(process: &Process) -> Result<(Self, Change), TargetError> {
        let mut code = Self {
            cache: ModuleCache::default(),
            tables: HashMap::new(),
            builder: TableBuilder::new(SPARE),
            capacity: SPARE,
            seen: Vec::new(),
            states: Vec::new(),
            locations: Vec::new(),
            known: HashMap::new(),
            skipped: BTreeMap::new(),
        };
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
        code.place(mappings, opened);
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
        let mappings = executable(Maps::read(process)?);
        if mappings == self.seen {
            return Ok(Change::default());
        }
        let opened = self.open(process, &mappings);
        let modules = self.new_modules(&opened);
        for module in &modules {
            if let Some(rows) = self.rows(module) {
                self.add_table(module, &rows);
            }
        }
        self.place(mappings, opened);
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

    /// The mappings as the walkers take them.
    pub(super) fn ranges(&self) -> Vec<MappingRange> {
        self.states.last().map(|state| state.iter().map(|placed| placed.range).collect()).unwrap_or_default()
    }

    /// The locations of a stack's frames, as indices for [`Self::location`].
    pub(super) fn locate(&mut self, stack: &StackRecord) -> Box<[u32]> {
        let frames = stack.frames.iter().enumerate();
        frames.map(|(index, address)| self.location_of(*address, stack.guessed(index))).collect()
    }

    /// A location by its index.
    pub(super) fn location(&self, index: u32) -> Option<&CodeLocation> {
        self.locations.get(index as usize)
    }

    fn location_of(&mut self, address: u64, guessed: bool) -> u32 {
        if let Some(index) = self.known.get(&(address, guessed)) {
            return *index;
        }
        let call = address.wrapping_sub(1);
        let module = self.states.iter().rev().find_map(|state| {
            let after = state.partition_point(|placed| placed.range.begin <= call);
            let placed = state.get(after.checked_sub(1)?).filter(|placed| call < placed.range.end)?;
            let (module, bias) = placed.module.as_ref()?;
            Some((Arc::clone(module), Svma(address.wrapping_sub(*bias))))
        });
        let index = u32::try_from(self.locations.len()).unwrap_or(u32::MAX);
        self.locations.push(CodeLocation { address, module, guessed });
        self.known.insert((address, guessed), index);
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
            .and_then(|data| rows(&data).map_err(|error| error.to_string()));
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
    fn place(&mut self, mappings: Vec<Mapping>, opened: Vec<Option<Arc<Module>>>) {
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
            Placed { range: table.unwrap_or(MappingRange { begin, end, ..MappingRange::default() }), module }
        });
        let state = placed.collect();
        if self.states.len() == REMEMBERED {
            self.states.remove(0);
        }
        self.states.push(state);
        self.seen = mappings;
        // The same address may mean something else from now on.
        self.known.clear();
    }
}

/// The executable mappings in which a frame can lie. The kernel's page of return probes is left out: an address there
/// stands for another, which cannot be known.
fn executable(maps: Maps) -> Vec<Mapping> {
    let code = |mapping: &Mapping| {
        mapping.executable
            && mapping.range.end.0 < END_OF_USER_SPACE
            && !matches!(&mapping.kind, MappingKind::Special(name) if name == "[uprobes]")
    };
    let mut mappings: Vec<Mapping> = maps.mappings.into_iter().filter(code).collect();
    mappings.sort_by_key(|mapping| mapping.range.start);
    mappings.dedup_by(|next, previous| {
        // A JIT's regions lie side by side by the hundred; nothing distinguishes them.
        let joins = next.kind == MappingKind::Anonymous
            && previous.kind == MappingKind::Anonymous
            && next.range.start == previous.range.end;
        if joins {
            previous.range.end = next.range.end;
        }
        joins || next.range.start < previous.range.end
    });
    mappings
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
