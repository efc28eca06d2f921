//! Where functions lie that decide on calls: the allocators' own, whose calls are part of others, and those of
//! `--only-caller`.

use profiler_common::{limits::MAX_ALLOCATOR_FUNCTIONS, sampling::AllocatorCode};

use super::EbpfProbe;
use crate::{probe::error::ProbeError, sys::bpf::map::TypedMap};

impl EbpfProbe {
    /// Tells a sampler where the functions of the allocators lie, first address and one past the last each (AVMA); how many
    /// there was no room for.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn publish_allocator_code(&self, functions: &[[u64; 2]]) -> Result<usize, ProbeError> {
        publish(&self.allocator_code, "ALLOCATOR_CODE", functions)
    }

    /// Tells probes in the allocators' functions out of which functions calls are recorded, as above; how many there was no
    /// room for.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn publish_callers(&self, functions: &[[u64; 2]]) -> Result<usize, ProbeError> {
        publish(&self.caller_code, "CALLER_CODE", functions)
    }
}

fn publish(
    map: &TypedMap<u32, AllocatorCode>,
    name: &'static str,
    functions: &[[u64; 2]],
) -> Result<usize, ProbeError> {
    let used = functions.len().min(MAX_ALLOCATOR_FUNCTIONS);
    let mut code = AllocatorCode { count: used as u64, functions: [[0; 2]; MAX_ALLOCATOR_FUNCTIONS] };
    code.functions.iter_mut().zip(functions).for_each(|(place, function)| *place = *function);
    map.update(&0, &code).map_err(|source| ProbeError::Map { name, source })?;
    Ok(functions.len() - used)
}
