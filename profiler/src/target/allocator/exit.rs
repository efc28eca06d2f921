//! The C library's `exit`: when it is called, the program has done its work, and the handlers that free what nobody needs
//! any more have not run yet.

use std::sync::Arc;

use profiler_common::records::Call;

use super::{AllocatorFunction, UNKNOWN_SIZE, symbols::Symbols};
use crate::target::{
    address::Svma,
    error::TargetError,
    module::{Content, Module},
};

/// What a C library defines beside `exit`, and no other library does (glibc, musl): what `_start` calls.
const C_LIBRARY: &str = "__libc_start_main";

/// The `exit` of a file that is or contains a C library.
///
/// # Errors
/// Where the file cannot be read, or is damaged.
pub fn find_exit(module: &Arc<Module>) -> Result<Option<AllocatorFunction>, TargetError> {
    if matches!(module.content, Content::Memory(_)) {
        return Ok(None);
    }
    let data = module.data()?;
    let damaged = |reason| TargetError::DamagedElf { path: module.path.clone(), reason };
    let symbols = Symbols::parse(&data).map_err(damaged)?;
    let (mut exit, mut is_c_library) = (None, false);
    for symbol in symbols.defined().filter(|symbol| symbol.is_function) {
        is_c_library |= symbol.name == C_LIBRARY;
        if symbol.name == "exit" && symbol.is_global && super::is_code(module, symbol.address) {
            exit = Some(AllocatorFunction {
                name: symbol.name.to_owned(),
                aliases: Vec::new(),
                call: Call::exit(),
                entry: Svma(symbol.address),
                size: if symbol.size == 0 { UNKNOWN_SIZE } else { symbol.size },
            });
        }
    }
    Ok(exit.filter(|_| is_c_library))
}
