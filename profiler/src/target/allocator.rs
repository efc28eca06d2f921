//! Which mapped files allocate memory, and by which functions.
//!
//! A file is an allocator when it defines both `malloc` and `free`, with or without one of the known prefixes. A process
//! can have several: jemalloc linked into a Rust program beside glibc's malloc. They are kept apart, since a block must
//! be freed by the one that gave it.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use profiler_common::records::{Call, CallKind};

use self::{
    names::{Family, GLIBC_MALLOC, Known, LOADER_MARKER, MARKERS, Vocabulary},
    symbols::{Symbol, Symbols},
    wrapper::{Callees, is_wrapper},
};
use super::{
    address::Svma,
    error::TargetError,
    maps::{Mapping, Maps},
    module::{Content, Module},
    module_cache::ModuleCache,
    placement::MAX_FUNCTION,
    process::Process,
};

pub mod c_library;
pub mod callers;
pub mod custom;
mod names;
pub mod operators;
mod symbols;
mod wrapper;

/// Functions of one family and other names of one function that we keep. An allocator has some forty; a damaged file may
/// claim a million.
const MAX_FUNCTIONS: usize = 128;
/// Bytes taken for the length of a function whose symbol has none and no successor.
const UNKNOWN_SIZE: u64 = 64;

/// One allocator of the process.
#[derive(Clone, Debug)]
pub struct Allocator {
    /// What people call it: `glibc`, `jemalloc`, `tcmalloc`, `mimalloc`, `musl`, or the file's name.
    pub name: String,
    /// The file that defines it.
    pub module: Arc<Module>,
    /// The functions to probe, `malloc` first; one for each address.
    pub functions: Vec<AllocatorFunction>,
    /// Functions that need no probe, because all they do is to call one of `functions`.
    pub wrappers: Vec<String>,
    /// The same as functions, for those who want to know who calls.
    pub wrapping: Vec<AllocatorFunction>,
}

impl Allocator {
    /// Whether another one of its functions begins inside the code of this one.
    #[must_use]
    pub fn has_entry_inside(&self, function: &AllocatorFunction) -> bool {
        let (begin, end) = (function.entry.0, function.entry.0.saturating_add(function.size));
        self.functions.iter().any(|other| begin < other.entry.0 && other.entry.0 < end)
    }
}

/// One function of an allocator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllocatorFunction {
    /// Its usual name.
    pub name: String,
    /// The other names of the same address.
    pub aliases: Vec<String>,
    /// What it does with its arguments.
    pub call: Call,
    /// Its first instruction.
    pub entry: Svma,
    /// Bytes of its code.
    pub size: u64,
}

/// What was found in a process.
#[derive(Debug)]
pub struct Allocators {
    /// The allocators, in the order of their files' addresses. Never empty.
    pub found: Vec<Allocator>,
    /// The files that could not be searched: an allocator may hide there.
    pub unsearched: Vec<TargetError>,
}

/// Finds the allocators in all executable mappings of a process.
///
/// # Errors
/// Where there is none; if a file could not be searched, that file's error.
pub fn find(process: &Process, maps: &Maps, modules: &mut ModuleCache) -> Result<Allocators, TargetError> {
    let (mut found, mut unsearched, mut searched) = (Vec::new(), Vec::new(), HashSet::new());
    for mapping in maps.executable().filter(|mapping| is_new_file(mapping, &mut searched)) {
        match modules.open(process, mapping).and_then(|module| module.map_or(Ok(Vec::new()), |m| find_in(&m)))
        {
            Ok(allocators) => found.extend(allocators),
            Err(gone @ TargetError::Exited { .. }) => return Err(gone),
            Err(error) => unsearched.push(error),
        }
    }
    if !found.is_empty() {
        return Ok(Allocators { found, unsearched });
    }
    Err(unsearched.into_iter().next().unwrap_or_else(|| explain_absence(process, maps, modules)))
}

/// Finds the allocators that one file defines: more than one where one of them has a prefix.
///
/// # Errors
/// Where the file cannot be read, or is damaged.
pub fn find_in(module: &Arc<Module>) -> Result<Vec<Allocator>, TargetError> {
    if matches!(module.content, Content::Memory(_)) {
        return Ok(Vec::new());
    }
    let data = module.data()?;
    let damaged = |reason| TargetError::DamagedElf { path: module.path.clone(), reason };
    let symbols = Symbols::parse(&data).map_err(damaged)?;
    let vocabulary = Vocabulary::new();
    let survey = Survey::of(&symbols, &vocabulary, module);
    let groups = survey.groups();
    if groups.is_empty() || survey.is_loader {
        return Ok(Vec::new());
    }
    let code_at = |address: u64, length: usize| {
        let start = module.file_offset_of(Svma(address)).and_then(|offset| usize::try_from(offset.0).ok());
        let code = start.and_then(|start| data.get(start..)).unwrap_or_default();
        code.get(..length.min(code.len())).unwrap_or_default().to_vec()
    };
    let all = groups.iter().flat_map(|group| &group.functions);
    let callees = Callees {
        entries: all.map(|(&address, function)| (address, function.known.call)).collect(),
        slots: symbols
            .function_slots()
            .filter_map(|(slot, name)| Some((slot, vocabulary.get(name)?.call)))
            .collect(),
        code_at: &|address| code_at(address, 16),
    };
    let finish = |group: Group| {
        let (mut functions, mut wrappers) = (Vec::new(), Vec::new());
        for (&entry, function) in &group.functions {
            let size = usize::try_from(function.size).unwrap_or(MAX_FUNCTION).min(MAX_FUNCTION);
            // musl describes no frames: a stack that leads through a function of its own would end there.
            let hands_on = survey.marker != Some("musl")
                && is_wrapper(&code_at(entry, size), entry, function.known.call, &callees);
            if hands_on { &mut wrappers } else { &mut functions }.push((entry, function));
        }
        functions.sort_by_key(|(_, function)| function.known.order);
        wrappers.sort_by_key(|(_, function)| function.known.order);
        Allocator {
            name: survey.name_of(group.family, module),
            module: Arc::clone(module),
            functions: functions.into_iter().map(|(entry, function)| function.finish(entry)).collect(),
            wrappers: wrappers.iter().map(|(_, function)| function.name.to_owned()).collect(),
            wrapping: wrappers.into_iter().map(|(entry, function)| function.finish(entry)).collect(),
        }
    };
    Ok(groups.into_iter().map(finish).collect())
}

fn is_new_file(mapping: &Mapping, searched: &mut HashSet<(u64, (u32, u32))>) -> bool {
    mapping.path().is_some() && searched.insert((mapping.inode, mapping.device))
}

/// Why a process without unsearched files has no allocator.
fn explain_absence(process: &Process, maps: &Maps, modules: &mut ModuleCache) -> TargetError {
    let program = maps.executable().find(|mapping| mapping.path() == Some(&process.exe));
    let module = program.and_then(|mapping| modules.open(process, mapping).ok()?);
    let data = module.and_then(|module| module.data().ok());
    let is_static_and_stripped = data.is_some_and(|data| {
        Symbols::parse(&data)
            .is_ok_and(|symbols| !symbols.has_interpreter() && !symbols.defined().any(|s| s.is_function))
    });
    if is_static_and_stripped {
        TargetError::StaticWithoutSymbols { pid: process.pid, exe: process.exe.clone() }
    } else {
        TargetError::NoAllocator { pid: process.pid, command: process.command.clone() }
    }
}

/// A function while it is being found.
#[derive(Clone, Debug)]
struct Candidate<'data> {
    name: &'data str,
    known: Known,
    size: u64,
    aliases: Vec<&'data str>,
}

impl Candidate<'_> {
    fn finish(&self, entry: u64) -> AllocatorFunction {
        AllocatorFunction {
            name: self.name.to_owned(),
            aliases: self.aliases.iter().map(|&alias| alias.to_owned()).collect(),
            call: self.known.call,
            entry: Svma(entry),
            size: self.size,
        }
    }
}

/// The functions of one allocator, by stated address.
struct Group<'data> {
    family: Family,
    functions: BTreeMap<u64, Candidate<'data>>,
}

/// What the symbols of a file say, before it is decided which of them form an allocator.
struct Survey<'data> {
    families: BTreeMap<Family, BTreeMap<u64, Candidate<'data>>>,
    /// Families that can give and take blocks.
    complete: Vec<Family>,
    marker: Option<&'static str>,
    is_loader: bool,
}

impl<'data> Survey<'data> {
    fn of(symbols: &Symbols<'data>, vocabulary: &Vocabulary, module: &Module) -> Self {
        let mut families: BTreeMap<Family, BTreeMap<u64, Candidate<'data>>> = BTreeMap::new();
        let (mut names, mut markers, mut is_loader) = (HashSet::new(), HashSet::new(), false);
        let glibc_malloc = LazyCell::new(|| {
            let is_it = |symbol: &Symbol<'_>| symbol.is_function && symbol.name == GLIBC_MALLOC;
            symbols.defined().find(is_it).map(|symbol| symbol.address)
        });
        for symbol in symbols.defined() {
            is_loader |= symbol.name == LOADER_MARKER;
            markers
                .extend(MARKERS.iter().position(|(marker, _)| symbol.is_function && *marker == symbol.name));
            let Some(known) = vocabulary.get(symbol.name).filter(|_| symbol.is_function) else { continue };
            // Without a prefix, a local `malloc` is no allocator: any source file may have a function of that name. But
            // glibc's is hidden where it is linked statically, and the linker makes it local in a static-pie program.
            let visible =
                symbol.is_global || known.family != Family::Plain || *glibc_malloc == Some(symbol.address);
            if !visible || !is_code(module, symbol.address) {
                continue;
            }
            names.insert(symbol.name);
            let functions = families.entry(known.family).or_default();
            if let Some(other) = functions.get_mut(&symbol.address) {
                other.size = other.size.max(symbol.size);
                if known.order < other.known.order {
                    (other.name, other.known) = (symbol.name, known);
                }
            } else if functions.len() < MAX_FUNCTIONS {
                let candidate =
                    Candidate { name: symbol.name, known, size: symbol.size, aliases: Vec::new() };
                functions.insert(symbol.address, candidate);
            }
        }
        let marker = markers.into_iter().min().and_then(|first| MARKERS.get(first)).map(|(_, name)| *name);
        if matches!(marker, Some("glibc" | "musl"))
            && let Some(plain) = families.get_mut(&Family::Plain)
        {
            // A C library's own operators are those of the C++ library linked into the same static program.
            plain.retain(|_, function| !function.known.is_operator);
        }
        let is_complete = |family: &Family| match family {
            Family::Plain => ["malloc", "free"].iter().all(|name| names.contains(name)),
            // The linker leaves out what a program does not call, in Rust `mi_malloc` or `_rjem_free`: one that gives
            // and one that takes will do.
            _ => families.get(family).is_some_and(|functions| {
                let kinds = || functions.values().map(|function| function.known.call.kind);
                kinds().any(|kind| !matches!(kind, CallKind::Free | CallKind::Resize))
                    && kinds().any(|kind| kind == CallKind::Free)
            }),
        };
        let complete: Vec<_> = Family::ALL.into_iter().filter(is_complete).collect();
        if !complete.is_empty() {
            add_aliases_and_sizes(&mut families, symbols);
        }
        Self { families, complete, marker, is_loader }
    }

    /// The complete families, those merged that share a `malloc`.
    fn groups(&self) -> Vec<Group<'data>> {
        let mut groups: Vec<Group<'data>> = Vec::new();
        for family in &self.complete {
            let functions = self.families.get(family).cloned().unwrap_or_default();
            let shares_malloc = |group: &&mut Group<'_>| {
                functions
                    .iter()
                    .any(|(entry, f)| f.name.ends_with("malloc") && group.functions.contains_key(entry))
            };
            match groups.iter_mut().find(shares_malloc) {
                Some(group) => {
                    for (entry, function) in functions {
                        group.functions.entry(entry).or_insert(function);
                    }
                }
                None => groups.push(Group { family: *family, functions }),
            }
        }
        groups
    }

    fn name_of(&self, family: Family, module: &Module) -> String {
        let name = family.allocator().or(self.marker);
        name.map_or_else(|| module.name(), str::to_owned)
    }
}

/// A second look at the symbols: for the other names of the functions found, and for the ends of those without size.
fn add_aliases_and_sizes<'data>(
    families: &mut BTreeMap<Family, BTreeMap<u64, Candidate<'data>>>,
    symbols: &Symbols<'data>,
) {
    let unsized_entries: Vec<u64> = families
        .values()
        .flatten()
        .filter_map(|(&entry, function)| (function.size == 0).then_some(entry))
        .collect();
    let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
    for symbol in symbols.defined().filter(|symbol| symbol.is_function) {
        for function in families.values_mut().filter_map(|functions| functions.get_mut(&symbol.address)) {
            let is_new = function.name != symbol.name && !function.aliases.contains(&symbol.name);
            if is_new && function.aliases.len() < MAX_FUNCTIONS {
                function.aliases.push(symbol.name);
            }
        }
        for &entry in unsized_entries.iter().filter(|&&entry| entry < symbol.address) {
            let end = ends.entry(entry).or_insert(symbol.address);
            *end = symbol.address.min(*end);
        }
    }
    for (&entry, function) in families.values_mut().flatten().filter(|(_, function)| function.size == 0) {
        function.size = ends.get(&entry).map_or(UNKNOWN_SIZE, |end| end - entry);
    }
}

fn is_code(module: &Module, address: u64) -> bool {
    let holds = |start: u64, size: u64| address.checked_sub(start).is_some_and(|offset| offset < size);
    module.segments.iter().any(|segment| segment.executable && holds(segment.svma.0, segment.file_size))
}

#[cfg(test)]
mod tests;
