//! The unwind tables and the mappings on their way to the walkers.

use bytemuck::Zeroable;
use profiler_common::{
    records::STATE_GENERATION,
    tables::{MappingRange, MappingTable, PageRows, RowChunk, Rule},
};

use super::EbpfProbe;
use crate::{probe::error::ProbeError, sys::bpf::map::TypedMap};

impl EbpfProbe {
    /// Writes chunks of unwind rows, from number `first` on.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn write_rows(&self, first: u32, chunks: &[RowChunk]) -> Result<(), ProbeError> {
        write_all(&self.rows, "ROWS", first, chunks)
    }

    /// Writes pages of the unwind tables, from number `first` on.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn write_pages(&self, first: u32, pages: &[PageRows]) -> Result<(), ProbeError> {
        write_all(&self.pages, "PAGES", first, pages)
    }

    /// Writes unwind rules, from number `first` on.
    ///
    /// # Errors
    /// [`ProbeError::Map`].
    pub fn write_rules(&self, first: u32, rules: &[Rule]) -> Result<(), ProbeError> {
        write_all(&self.rules, "RULES", first, rules)
    }

    /// Has the walkers use these mappings (sorted, not overlapping) from now on. Walks under way finish with the table
    /// that they began with.
    ///
    /// # Errors
    /// [`ProbeError::Map`]. Mappings beyond the table's size are not written; the answer says how many.
    pub fn publish_mappings(&mut self, ranges: &[MappingRange]) -> Result<usize, ProbeError> {
        let mut table = MappingTable::zeroed();
        for (to, from) in table.ranges.iter_mut().zip(ranges) {
            *to = *from;
            table.count += 1;
        }
        let generation = self.generation.wrapping_add(1);
        let failed = |name| move |source| ProbeError::Map { name, source };
        self.mappings.update(&(generation & 1), &table).map_err(failed("MAPPINGS"))?;
        self.state.update(&STATE_GENERATION, &generation).map_err(failed("STATE"))?;
        self.generation = generation;
        Ok(ranges.len().saturating_sub(table.ranges.len()))
    }
}

fn write_all<V>(
    map: &TypedMap<u32, V>,
    name: &'static str,
    first: u32,
    values: &[V],
) -> Result<(), ProbeError>
where
    V: bytemuck::NoUninit + bytemuck::AnyBitPattern,
{
    for (index, value) in (first..).zip(values) {
        map.update(&index, value).map_err(|source| ProbeError::Map { name, source })?;
    }
    Ok(())
}
