//! The table of live blocks: several hash maps, its parts, so that there are about as many buckets as there is room for
//! blocks. One map would have as many as the next power of two, up to twice as many.

use std::os::fd::{AsFd, AsRawFd};

use aya::Ebpf;
use profiler_common::records::LiveBlock;

use super::{map_error, typed};
use crate::{
    probe::error::ProbeError,
    sys::bpf::map::{TypedMap, new_hash_map},
};

/// What one live block takes in the kernel, in bytes: its element, rounded to a slab object, and one bucket (measured; see
/// docs/limits.md).
const BYTES_PER_BLOCK: u64 = 112;
/// Blocks that the table has room for at least, and at most.
const FEWEST: u64 = 1 << 12;
const MOST: u64 = 1 << 30;
/// log2 of the blocks in the smallest part of a table that has several. In smaller ones chance would fill one long before
/// the others.
const SMALLEST_PART: u32 = 16;

/// How large the table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    pub(super) parts: u32,
    /// Blocks in one part: a power of two.
    entries: u32,
}

impl Room {
    /// The largest table in so many bytes of kernel memory, but for an eighth: it has 8 to 15 parts, or one if it is small.
    pub(super) fn in_memory(bytes: u64) -> Self {
        let blocks = (bytes / BYTES_PER_BLOCK).clamp(FEWEST, MOST);
        let bits = blocks.ilog2();
        let bits = bits.saturating_sub(3).max(SMALLEST_PART).min(bits);
        Self { parts: u32::try_from(blocks >> bits).unwrap_or(1), entries: 1 << bits }
    }
}

/// The parts of the table.
pub(super) type Parts = Vec<TypedMap<u64, LiveBlock>>;

/// The part that has the block with this key, if it is there: as `part_of` of profiler-ebpf/src/live.rs finds it.
pub(super) fn part_of(parts: &Parts, key: u64) -> Option<&TypedMap<u64, LiveBlock>> {
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    parts.get(usize::try_from((hash * parts.len() as u64) >> 32).ok()?)
}

/// Makes the parts, and puts them where the probes look for them.
pub(super) fn make(ebpf: &Ebpf, room: Room) -> Result<Parts, ProbeError> {
    let table: TypedMap<u32, u32> = typed(ebpf, "LIVE")?;
    let make = |_| TypedMap::new(new_hash_map::<u64, LiveBlock>(c"LIVE", room.entries)?.as_fd());
    let parts = (0..room.parts).map(make).collect::<std::io::Result<Parts>>().map_err(map_error("LIVE"))?;
    let places: Vec<u32> = (0..room.parts).collect();
    let maps: Vec<u32> = parts.iter().map(|part| part.as_fd().as_raw_fd().cast_unsigned()).collect();
    table.update_all(&places, &maps).map_err(map_error("LIVE"))?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_the_memory_is_used_and_never_more() {
        for bytes in (19..47).flat_map(|bits| [3, 4, 5, 7].map(|quarters| quarters << bits)) {
            let room = Room::in_memory(bytes);
            let blocks = u64::from(room.parts) * u64::from(room.entries);
            assert!(room.entries.is_power_of_two() && (1..16).contains(&room.parts), "{bytes}: {room:?}");
            assert!(blocks * BYTES_PER_BLOCK <= bytes, "{bytes}: {room:?}");
            // A small table has few parts.
            let wasted = if room.parts < 8 { bytes / 2 } else { bytes / 8 };
            let largest = MOST * BYTES_PER_BLOCK;
            assert!(blocks * BYTES_PER_BLOCK >= (bytes - wasted).min(largest), "{bytes}: {room:?}");
        }
        assert_eq!(Room::in_memory(0), Room { parts: 1, entries: 1 << 12 });
        assert_eq!(Room::in_memory(u64::MAX), Room { parts: 8, entries: 1 << 27 });
        assert_eq!(Room::in_memory(1120 << 20), Room { parts: 10, entries: 1 << 20 });
    }
}
