//! pymalloc's pools, read out of the target's memory.
//!
//! A pool begins with a header of 48 bytes (`struct pool_header`: `Objects/obmalloc.c`, from 3.12 on
//! `Include/internal/pycore_obmalloc.h`), the same from 3.6 to 3.13. It is read while the target runs, and what lies at an
//! address may be no pool any more: only a header whose fields agree with one another is one.

use std::{fs::File, os::unix::fs::FileExt};

use super::code::Memory;
use crate::target::{
    address::Avma,
    maps::{MappingKind, Maps},
    process::Process,
};

/// Bytes of the header; the first object follows.
const HEADER: usize = 48;
/// Size classes: 512 bytes in steps of 16, or of 8.
const MOST_CLASSES: u64 = 64;
/// `arenaindex` above this is none: 1 << 24 arenas would be 4 TB.
const MOST_ARENAS: u32 = 1 << 24;
/// Headers that a census reads, at most. At 16 KiB a pool it is 16 GiB of memory.
const MOST_HEADERS: u64 = 1 << 20;
/// Bytes of a page of memory, as `/proc/PID/pagemap` counts.
const PAGE: u64 = 4096;

/// A pool with objects in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pool {
    /// Objects in use.
    pub objects: u64,
    /// Bytes of each.
    pub object_size: u64,
}

/// The pool at this address; `None` where there is none, or one without objects.
#[must_use]
pub fn pool_at(memory: &Memory, address: u64, pool_size: u64) -> Option<Pool> {
    pool_of(&memory.array(address)?, address, pool_size)
}

fn pool_of(header: &[u8; HEADER], address: u64, pool_size: u64) -> Option<Pool> {
    let word = |at: usize| {
        header.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()))
    };
    let half = |at: usize| {
        header.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap_or_default()))
    };
    let (objects, arena, class) = (u64::from(half(0)), half(32), u64::from(half(36)));
    let (next_offset, last_offset) = (u64::from(half(40)), u64::from(half(44)));
    let (free, next, previous) = (word(8), word(16), word(24));
    let object_size = pool_size.checked_sub(last_offset)?;
    // Objects are aligned to 16 bytes; to 8 in early releases of 3.6 and 3.7.
    let is_class = class < MOST_CLASSES
        && [16, 8].iter().any(|step| (class + 1) * step == object_size && object_size <= 512);
    if !is_class || arena >= MOST_ARENAS || !address.is_multiple_of(pool_size) {
        return None;
    }
    let capacity = (pool_size - HEADER as u64) / object_size;
    let inside =
        |at: u64| at.checked_sub(address).is_some_and(|offset| (HEADER as u64..pool_size).contains(&offset));
    let agrees = objects <= capacity
        && (free == 0 || inside(free))
        && next_offset >= HEADER as u64 + object_size
        && next_offset <= pool_size
        && next_offset % 8 == 0
        && [next, previous].iter().all(|link| *link != 0 && link % 8 == 0 && link >> 47 == 0);
    (agrees && objects > 0).then_some(Pool { objects, object_size })
}

/// All pools of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Pools with objects in them.
    pub pools: u64,
    /// Objects in them.
    pub objects: u64,
    /// Bytes of the objects, as pymalloc rounds them.
    pub object_space: u64,
    /// Places that were not looked at, because they were more than can be or lay in swapped memory.
    pub unseen: u64,
}

/// Counts the pools of a process; `None` where its memory cannot be looked at. It runs meanwhile.
#[must_use]
pub fn census(process: &Process, memory: &Memory, pool_size: u64) -> Option<Census> {
    let maps = Maps::read(process).ok()?;
    let presence = Presence(File::open(process.memory_path("pagemap")).ok()?);
    let mut census = Census::default();
    let mut looked_at = 0u64;
    let may_hold = maps.mappings.iter().filter(|mapping| {
        let named = |name: &str| name.starts_with("[anon:");
        let nameless = match &mapping.kind {
            MappingKind::Anonymous => true,
            MappingKind::Special(name) => named(name),
            MappingKind::File(_) => false,
        };
        nameless && mapping.readable && mapping.writable && !mapping.shared
    });
    for mapping in may_hold {
        let Avma(end) = mapping.range.end;
        let mut at = mapping.range.start.0.next_multiple_of(pool_size);
        while at < end {
            let until = end.min(at.saturating_add(Presence::SPAN));
            let pages = presence.of(at, until)?;
            for address in (at..until).step_by(usize::try_from(pool_size).ok()?) {
                let page = usize::try_from((address - at) / PAGE).unwrap_or(usize::MAX);
                match pages.get(page).copied().unwrap_or_default() {
                    // What was never written is no pool, and reading it would be a change.
                    Page::Absent => continue,
                    Page::Swapped => {
                        census.unseen += 1;
                        continue;
                    }
                    Page::Present => looked_at += 1,
                }
                if looked_at > MOST_HEADERS {
                    census.unseen += 1;
                } else if let Some(pool) = pool_at(memory, address, pool_size) {
                    census.pools += 1;
                    census.objects += pool.objects;
                    census.object_space += pool.objects * pool.object_size;
                }
            }
            at = until;
        }
    }
    Some(census)
}

/// Which pages are there (`/proc/PID/pagemap`, Documentation/admin-guide/mm/pagemap.rst).
struct Presence(File);

#[derive(Clone, Copy, Default)]
enum Page {
    #[default]
    Absent,
    Present,
    Swapped,
}

impl Presence {
    /// Bytes of memory that are asked about at once.
    const SPAN: u64 = 16 << 20;

    fn of(&self, from: u64, to: u64) -> Option<Vec<Page>> {
        let pages = usize::try_from(to.saturating_sub(from).div_ceil(PAGE)).ok()?;
        let mut entries = vec![0u8; pages.checked_mul(8)?];
        self.0.read_exact_at(&mut entries, from / PAGE * 8).ok()?;
        let page = |entry: &[u8]| match entry.last().copied().unwrap_or_default() >> 6 {
            0 => Page::Absent,
            1 => Page::Swapped,
            _ => Page::Present,
        };
        Some(entries.chunks_exact(8).map(page).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x7f00_0010_4000;

    /// A pool of 16 KiB with objects of 48 bytes.
    fn header(change: impl Fn(&mut [u32; 12])) -> [u8; 48] {
        let low = |address: u64| u32::try_from(address & 0xffff_ffff).unwrap_or_default();
        let high = |address: u64| u32::try_from(address >> 32).unwrap_or_default();
        let free = AT + 48 + 48 * 7;
        let mut words =
            [7, 0, low(free), high(free), low(AT), high(AT), low(AT), high(AT), 3, 2, 48 * 9, 16384 - 48];
        change(&mut words);
        let mut bytes = [0; 48];
        for (to, from) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_header_whose_fields_agree() {
        let pool = |change: &dyn Fn(&mut [u32; 12])| pool_of(&header(change), AT, 16384);
        assert_eq!(pool(&|_| {}), Some(Pool { objects: 7, object_size: 48 }));
        for (field, value) in
            [(0, 0), (0, 1000), (2, 5), (4, 3), (8, 1 << 24), (9, 3), (10, 0), (10, 1 << 20), (11, 0)]
        {
            assert_eq!(pool(&|words| words[field] = value), None, "{field}: {value}");
        }
        // Objects of 24 bytes in steps of 8.
        assert_eq!(pool(&|words| words[11] = 16384 - 24), Some(Pool { objects: 7, object_size: 24 }));
        // A full pool has no free object.
        let full = |words: &mut [u32; 12]| {
            words[0] = 340;
            (words[2], words[3]) = (0, 0);
        };
        assert_eq!(pool(&full), Some(Pool { objects: 340, object_size: 48 }));
    }

    #[test]
    fn anything_else_is_none() {
        assert_eq!(pool_of(&[0; 48], AT, 16384), None);
        assert_eq!(pool_of(&[0xff; 48], AT, 4096), None);
        assert_eq!(pool_of(&[0x20; 48], 0, 0), None);
    }
}
