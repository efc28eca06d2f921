//! The operators `new` of a C++ library: no allocators themselves, but it is out of them that malloc is called.

use std::{collections::HashMap, sync::Arc};

use profiler_common::records::CallKind;

use super::{AllocatorFunction, UNKNOWN_SIZE, is_code, names::Vocabulary, symbols::Symbols};
use crate::target::{
    address::Svma,
    error::TargetError,
    module::{Content, Module},
};

/// The operators `new` that a file defines for others without being an allocator, as the C++ library does: they call one.
///
/// # Errors
/// Where the file cannot be read, or is damaged.
pub fn find_operators(module: &Arc<Module>) -> Result<Vec<AllocatorFunction>, TargetError> {
    if matches!(module.content, Content::Memory(_)) {
        return Ok(Vec::new());
    }
    let data = module.data()?;
    let symbols = Symbols::parse(&data)
        .map_err(|reason| TargetError::DamagedElf { path: module.path.clone(), reason })?;
    let vocabulary = Vocabulary::new();
    let mut found: HashMap<u64, AllocatorFunction> = HashMap::new();
    for symbol in symbols.defined().filter(|symbol| symbol.is_function && symbol.is_global) {
        let Some(known) = vocabulary.get(symbol.name) else { continue };
        if !known.is_operator || known.call.kind != CallKind::Allocate || !is_code(module, symbol.address) {
            continue;
        }
        let size = if symbol.size == 0 { UNKNOWN_SIZE } else { symbol.size };
        found.entry(symbol.address).or_insert_with(|| AllocatorFunction {
            name: symbol.name.to_owned(),
            aliases: Vec::new(),
            call: known.call,
            entry: Svma(symbol.address),
            size,
        });
    }
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_by_key(|function| function.entry);
    Ok(found)
}
