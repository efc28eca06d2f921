//! The table of live blocks: buckets in an array, whose memory is taken at once, and hash maps for what finds no place there,
//! whose memory is taken as blocks come.
//!
//! Of hash maps there are several, so that together they have about as many buckets as there is room for blocks. One map would
//! have as many as the next power of two, up to twice as many.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd},
};

use aya::Ebpf;
use bytemuck::Zeroable;
use profiler_common::{
    blocks::{Bucket, Packed, SLOTS, buckets_of, part_of, short_key},
    records::LiveBlock,
};

use super::{map_error, typed};
use crate::{
    probe::error::ProbeError,
    sys::bpf::map::{TypedMap, new_hash_map},
};

/// What a live block takes in a hash map of the kernel, in bytes: its element, rounded to a slab object, and one bucket
/// (measured; see docs/limits.md).
const BYTES_IN_HASH_MAP: u64 = 112;
/// What the default of `--max-memory` leaves for blocks. Up to there, most of it is for hash maps, which take nothing before it is
/// needed; whoever asks for more has that many blocks, and wants them fast.
const MODEST: u64 = (256 << 20) / 8 * 5;
/// The eighths of that which are for buckets, and for hash maps. The rest is left, because other tables are not reckoned to the byte.
const EIGHTHS_OF_BUCKETS: u64 = 1;
const EIGHTHS_OF_MAPS: u64 = 6;
/// Buckets, and blocks in hash maps, that there is room for at least and at most.
const BUCKETS: Range<u64> = 1 << 8..1 << 30;
const IN_MAPS: Range<u64> = 1 << 12..1 << 30;
/// log2 of the blocks in the smallest hash map where there are several. In smaller ones chance would fill one long before the
/// others.
const SMALLEST_PART: u32 = 16;
/// Buckets that are read at once.
const AT_ONCE: usize = 1 << 12;
/// Buckets that are read as one part of the table.
const BUCKETS_OF_A_PART: usize = 1 << 16;

/// How large the table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    pub(super) buckets: u32,
    /// Hash maps.
    pub(super) parts: u32,
    /// Blocks in one of them: a power of two.
    entries: u32,
}

impl Room {
    /// The largest table in so many bytes of kernel memory, but for a quarter: it has 8 to 15 hash maps, or one if it is small.
    pub(super) fn in_memory(bytes: u64) -> Self {
        let modest = bytes.min(MODEST);
        let for_buckets = modest / 8 * EIGHTHS_OF_BUCKETS + (bytes - modest);
        let buckets = (for_buckets / size_of::<Bucket>() as u64).clamp(BUCKETS.start, BUCKETS.end);
        let for_maps = modest / 8 * EIGHTHS_OF_MAPS;
        let blocks = (for_maps / BYTES_IN_HASH_MAP).clamp(IN_MAPS.start, IN_MAPS.end);
        let bits = blocks.ilog2();
        let bits = bits.saturating_sub(3).max(SMALLEST_PART).min(bits);
        Self {
            buckets: u32::try_from(buckets).unwrap_or(1 << 30),
            parts: u32::try_from(blocks >> bits).unwrap_or(1),
            entries: 1 << bits,
        }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    buckets: TypedMap<u32, Bucket>,
    count: usize,
    hash_maps: Vec<TypedMap<u64, LiveBlock>>,
    /// When the maps were made: `CLOCK_MONOTONIC` in nanoseconds.
    began: u64,
}

impl Table {
    /// Takes up the array, makes the hash maps, and puts them where the probes look for them.
    pub(super) fn make(ebpf: &Ebpf, room: Room, began: u64) -> Result<Self, ProbeError> {
        let places: TypedMap<u32, u32> = typed(ebpf, "OVERFLOW")?;
        let make = |_| TypedMap::new(new_hash_map::<u64, LiveBlock>(c"OVERFLOW", room.entries)?.as_fd());
        let hash_maps: Vec<_> =
            (0..room.parts).map(make).collect::<io::Result<_>>().map_err(map_error("OVERFLOW"))?;
        let indices: Vec<u32> = (0..room.parts).collect();
        let maps: Vec<u32> = hash_maps.iter().map(|map| map.as_fd().as_raw_fd().cast_unsigned()).collect();
        places.update_all(&indices, &maps).map_err(map_error("OVERFLOW"))?;
        Ok(Self {
            buckets: typed(ebpf, "BLOCKS")?,
            count: usize::try_from(room.buckets).unwrap_or(usize::MAX),
            hash_maps,
            began,
        })
    }

    /// How many parts the table has for those who read it.
    pub(super) fn parts(&self) -> usize {
        self.count.div_ceil(BUCKETS_OF_A_PART) + self.hash_maps.len()
    }

    /// Hands out the blocks of one part; none where there is no such part.
    ///
    /// # Errors
    /// What bpf(2) answers.
    pub(super) fn read(&self, part: usize, mut each: impl FnMut(&[LiveBlock])) -> io::Result<()> {
        let begin = part.saturating_mul(BUCKETS_OF_A_PART);
        if begin < self.count {
            return self.read_buckets(begin..(begin + BUCKETS_OF_A_PART).min(self.count), each);
        }
        match self.hash_maps.get(part - self.count.div_ceil(BUCKETS_OF_A_PART)) {
            Some(map) => map.for_each_batch(|_, blocks| each(blocks)),
            None => Ok(()),
        }
    }

    fn read_buckets(&self, range: Range<usize>, mut each: impl FnMut(&[LiveBlock])) -> io::Result<()> {
        let mut buckets = vec![Bucket::zeroed(); range.len().min(AT_ONCE)];
        let mut blocks = Vec::with_capacity(buckets.len() * SLOTS);
        for begin in range.clone().step_by(AT_ONCE) {
            let length = AT_ONCE.min(range.end - begin);
            let Some(buckets) = buckets.get_mut(..length) else { return Ok(()) };
            self.buckets.read_range(u32::try_from(begin).unwrap_or(u32::MAX), buckets)?;
            let slots = buckets.iter().flat_map(|bucket| &bucket.slots);
            blocks.extend(slots.filter(|slot| slot.is_in_use()).map(|slot| slot.unpack(self.began)));
            each(&blocks);
            blocks.clear();
        }
        Ok(())
    }

    /// Whether a block with this key is in the table.
    ///
    /// # Errors
    /// What bpf(2) answers.
    pub(super) fn holds(&self, key: u64) -> io::Result<bool> {
        if let Some(short) = short_key(key) {
            for bucket in buckets_of(short, u32::try_from(self.count).unwrap_or(u32::MAX)) {
                let bucket = self.buckets.look_up(&bucket)?.unwrap_or_default();
                if bucket.slots.iter().any(|slot| Packed::has_key(slot.words[0], short)) {
                    return Ok(true);
                }
            }
        }
        Ok(self.part_of(key).map(|map| map.look_up(&key)).transpose()?.flatten().is_some())
    }

    /// Puts a block back that [`Self::holds`] does not know. No probe runs meanwhile.
    ///
    /// # Errors
    /// What bpf(2) answers.
    pub(super) fn put_back(&self, key: u64, block: &LiveBlock) -> io::Result<()> {
        let Some(map) = self.part_of(key) else { return Ok(()) };
        map.update(&key, block)?;
        let Some(short) = short_key(key) else { return Ok(()) };
        let [first, _] = buckets_of(short, u32::try_from(self.count).unwrap_or(u32::MAX));
        let bucket = self.buckets.look_up(&first)?.unwrap_or_default();
        self.buckets.update(&first, &bucket.with_one_elsewhere())
    }

    /// The hash map for a block with this key.
    fn part_of(&self, key: u64) -> Option<&TypedMap<u64, LiveBlock>> {
        let part = part_of(key, u32::try_from(self.hash_maps.len()).ok()?);
        self.hash_maps.get(usize::try_from(part).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::{
        blocks::{BUSY, ONE_ELSEWHERE},
        records::CUSTOM_BLOCK,
    };
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn most_of_the_memory_is_used_and_never_more() {
        for bytes in (20..46).flat_map(|bits| [3, 4, 5, 7].map(|quarters| quarters << bits)) {
            let room = Room::in_memory(bytes);
            let [in_buckets, in_maps] = [
                u64::from(room.buckets) * size_of::<Bucket>() as u64,
                u64::from(room.parts) * u64::from(room.entries) * BYTES_IN_HASH_MAP,
            ];
            assert!(room.entries.is_power_of_two() && (1..16).contains(&room.parts), "{bytes}: {room:?}");
            assert!(in_buckets + in_maps <= bytes, "{bytes}: {room:?}");
            // A small table has few hash maps, and few buckets.
            let wasted = if room.parts < 8 { bytes / 8 * 5 } else { bytes / 4 + 128 };
            let largest = u64::from(1u32 << 30) * size_of::<Bucket>() as u64;
            assert!(in_buckets + in_maps >= (bytes - wasted).min(largest), "{bytes}: {room:?}");
            if bytes <= MODEST {
                assert!(in_buckets <= bytes / 8, "{bytes}: {room:?}");
            }
        }
        assert_eq!(Room::in_memory(0), Room { buckets: 1 << 8, parts: 1, entries: 1 << 12 });
        assert_eq!(Room::in_memory(u64::MAX).buckets, 1 << 30);
        assert_eq!(Room::in_memory(MODEST), Room { buckets: 163_840, parts: 8, entries: 1 << 17 });
    }

    proptest! {
        #[test]
        fn what_is_packed_is_the_same_again(
            address in 1u64..1 << 47,
            custom: bool,
            size in 0u64..1 << 48,
            site in 0u64..1 << 56,
            name in 0u64..1 << 13,
            high: u32,
            began in 0u64..1 << 62,
            age in 0u64..1 << 56,
        ) {
            let key = address | if custom { CUSTOM_BLOCK } else { 0 };
            let Some(short) = short_key(key) else { return Err(TestCaseError::fail("a key of 47 bits")) };
            let block = LiveBlock { size, site, born: began + age, thread: name | u64::from(high) << 32 };
            let Some(packed) = Packed::pack(short, &block, began) else { return Err(TestCaseError::fail("all fits")) };
            prop_assert_eq!(packed.unpack(began), block);
            // What is counted beside it changes nothing.
            let mut bucket = Bucket::zeroed();
            bucket.slots[0] = packed;
            for elsewhere in 1..10 {
                bucket = bucket.with_one_elsewhere();
                prop_assert_eq!(bucket.slots[0].unpack(began), block);
                prop_assert_eq!(bucket.slots[0].words[0] / ONE_ELSEWHERE, elsewhere.min(7));
            }
            prop_assert!(Packed::has_key(packed.words[0], short) && (packed.is_in_use() || short == BUSY));
            prop_assert_eq!(Packed::born(packed.words[3], began), block.born);
            prop_assert_ne!(short_key(key ^ CUSTOM_BLOCK), Some(short));
            for buckets in [1, 7, 163_840, u32::MAX] {
                prop_assert!(buckets_of(short, buckets).iter().all(|bucket| *bucket < buckets));
            }
        }
    }

    #[test]
    fn what_has_more_bits_is_not_packed() {
        let block = LiveBlock { size: 1, site: 1, born: 9, thread: 1 };
        assert!(Packed::pack(1, &block, 9).is_some());
        for too_much in [
            LiveBlock { size: 1 << 48, ..block },
            LiveBlock { site: 1 << 56, ..block },
            LiveBlock { born: 9 + (1 << 56), ..block },
            LiveBlock { born: 8, ..block },
            LiveBlock { thread: 1 << 13, ..block },
        ] {
            assert_eq!(Packed::pack(1, &too_much, 9), None, "{too_much:?}");
        }
        // With five levels of page tables.
        assert_eq!(short_key(1 << 47), None);
        assert_eq!(short_key(CUSTOM_BLOCK | 1 << 56), None);
    }
}
