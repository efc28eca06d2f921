//! What is watched in the C library beside its allocator: `exit`, and the functions that map memory.
//!
//! When `exit` is called, the program has done its work, and the handlers that free what nobody needs any more have not
//! run yet.

use std::{collections::BTreeMap, sync::Arc};

use profiler_common::records::{Call, CallKind};

use super::{
    AllocatorFunction, UNKNOWN_SIZE,
    symbols::{Symbol, Symbols},
};
use crate::target::{
    address::Svma,
    error::TargetError,
    module::{Content, Module},
};

/// What a C library defines, and no other library does (glibc, musl): what `_start` calls.
const C_LIBRARY: &str = "__libc_start_main";

/// The functions that map memory (mmap(2), munmap(2), mremap(2)). `mmap64` is `mmap` on this machine.
const MAPPING_FUNCTIONS: [(&str, CallKind); 4] = [
    ("mmap", CallKind::Map),
    ("mmap64", CallKind::Map),
    ("munmap", CallKind::Unmap),
    ("mremap", CallKind::Remap),
];

/// The `exit` of a file that is or contains a C library.
///
/// # Errors
/// Where the file cannot be read, or is damaged.
pub fn find_exit(module: &Arc<Module>) -> Result<Option<AllocatorFunction>, TargetError> {
    find(module, |name| (name == "exit").then(Call::exit)).map(|found| found.into_iter().next())
}

/// The function that sets the end of the heap (brk(2)); `sbrk` calls it.
const BREAK_FUNCTION: (&str, CallKind) = ("brk", CallKind::Break);

/// The functions that map and unmap memory of a file that is or contains a C library, one for each address; if wanted, with the
/// one that moves the end of the heap.
///
/// # Errors
/// Where the file cannot be read, or is damaged.
pub fn find_mapping_functions(
    module: &Arc<Module>,
    with_break: bool,
) -> Result<Vec<AllocatorFunction>, TargetError> {
    find(module, |name| {
        let mut functions = MAPPING_FUNCTIONS.iter().chain(with_break.then_some(&BREAK_FUNCTION));
        let known = functions.find(|(known, _)| *known == name);
        known.map(|(_, kind)| Call::of_mappings(*kind))
    })
}

/// The functions of a C library that `wanted` has a call for; none where the file has no C library.
fn find(
    module: &Arc<Module>,
    wanted: impl Fn(&str) -> Option<Call>,
) -> Result<Vec<AllocatorFunction>, TargetError> {
    if matches!(module.content, Content::Memory(_)) {
        return Ok(Vec::new());
    }
    let data = module.data()?;
    let damaged = |reason| TargetError::DamagedElf { path: module.path.clone(), reason };
    let symbols = Symbols::parse(&data).map_err(damaged)?;
    let (mut found, mut is_c_library) = (BTreeMap::new(), false);
    for symbol in symbols.defined().filter(|symbol| symbol.is_function) {
        is_c_library |= symbol.name == C_LIBRARY;
        if symbol.is_global
            && super::is_code(module, symbol.address)
            && let Some(call) = wanted(symbol.name)
        {
            found.entry(symbol.address).or_insert_with(|| function(&symbol, call));
        }
    }
    Ok(if is_c_library { found.into_values().collect() } else { Vec::new() })
}

fn function(symbol: &Symbol<'_>, call: Call) -> AllocatorFunction {
    AllocatorFunction {
        name: symbol.name.to_owned(),
        aliases: Vec::new(),
        call,
        entry: Svma(symbol.address),
        size: if symbol.size == 0 { UNKNOWN_SIZE } else { symbol.size },
    }
}
