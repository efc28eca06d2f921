//! Where functions lie that decide on calls: the allocators' own, whose calls are part of others, and those of
//! `--only-caller`; and where the target's own probes have their arguments.

use profiler_common::{limits::MAX_ALLOCATOR_FUNCTIONS, sampling::AllocatorCode, told::Place};

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

    /// Says where the arguments of the target's own probes are, from number `first` on; more than [`MAX_PLACES`] in all have
    /// no room.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    ///
    /// [`MAX_PLACES`]: profiler_common::told::MAX_PLACES
    pub fn publish_places(&self, first: u16, places: &[Place]) -> Result<(), ProbeError> {
        let written =
            (u32::from(first)..).zip(places).try_for_each(|(at, place)| self.told_places.update(&at, place));
        written.map_err(|source| ProbeError::Map { name: "TOLD_PLACES", source })
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
