//! The elements of a map, batch by batch (`BPF_MAP_LOOKUP_BATCH`, `BPF_MAP_UPDATE_BATCH`, kernel 5.6).

use std::{io, os::fd::BorrowedFd};

use bytemuck::{AnyBitPattern, NoUninit, Zeroable};

use super::{address, address_mut, call, command, length, raw};

/// Elements of one batch.
const AT_ONCE: usize = 4096;
/// The most elements of one bucket that there will be room for.
const MOST_AT_ONCE: usize = 1 << 24;

#[repr(C)]
#[derive(Clone, Copy, Zeroable, NoUninit)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads the elements of an array that come after the key `before`, or from the first one on; how many there were.
///
/// # Errors
/// What bpf(2) answers.
pub(super) fn look_up<V: NoUninit + AnyBitPattern>(
    map: BorrowedFd<'_>,
    before: Option<&u32>,
    keys: &mut [u32],
    values: &mut [V],
) -> io::Result<usize> {
    let mut last = 0u32;
    let mut attributes = Attributes::zeroed();
    attributes.in_batch = before.map_or(0, |before| address(std::slice::from_ref(before)));
    attributes.out_batch = address_mut(std::slice::from_mut(&mut last));
    attributes.keys = address_mut(keys);
    attributes.values = address_mut(values);
    attributes.count = length(values)?;
    attributes.map_fd = raw(map);
    match call(command::MAP_LOOKUP_BATCH, &mut attributes) {
        // There are no more.
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(attributes.count as usize),
    }
}

/// Writes so many elements of a map with keys `K` and values `V`.
///
/// # Errors
/// What bpf(2) answers, before which some may have been written.
pub(super) fn write<K: NoUninit, V: NoUninit>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    let mut attributes = Attributes::zeroed();
    attributes.keys = address(keys);
    attributes.values = address(values);
    attributes.count = length(keys)?.min(length(values)?);
    attributes.map_fd = raw(map);
    call(command::MAP_UPDATE_BATCH, &mut attributes).map(drop)
}

/// A place in a hash map, with room for a batch of elements.
#[derive(Debug)]
pub(super) struct Batches<'a, K, V> {
    map: BorrowedFd<'a>,
    keys: Vec<K>,
    values: Vec<V>,
    /// The bucket that the next batch begins with (`__htab_map_lookup_and_delete_batch`, kernel/bpf/hashtab.c): batches
    /// hold whole buckets.
    position: u32,
    ended: bool,
}

impl<'a, K: NoUninit + AnyBitPattern, V: NoUninit + AnyBitPattern> Batches<'a, K, V> {
    /// The batches of a map with keys `K` and values `V`.
    pub(super) fn of(map: BorrowedFd<'a>) -> Self {
        let (keys, values) = (vec![K::zeroed(); AT_ONCE], vec![V::zeroed(); AT_ONCE]);
        Self { map, keys, values, position: 0, ended: false }
    }

    /// Reads the next batch, keys and values, if there is one.
    ///
    /// # Errors
    /// What bpf(2) answers.
    pub(super) fn next(&mut self) -> io::Result<Option<(&[K], &[V])>> {
        while !self.ended {
            let mut next = 0u32;
            let mut attributes = Attributes::zeroed();
            attributes.in_batch =
                if self.position == 0 { 0 } else { address(std::slice::from_ref(&self.position)) };
            attributes.out_batch = address_mut(std::slice::from_mut(&mut next));
            attributes.keys = address_mut(&mut self.keys);
            attributes.values = address_mut(&mut self.values);
            attributes.count = length(&self.keys)?;
            attributes.map_fd = raw(self.map);
            match call(command::MAP_LOOKUP_BATCH, &mut attributes) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.ended = true,
                // One bucket holds more than the buffers do.
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOSPC) && self.keys.len() < MOST_AT_ONCE =>
                {
                    let longer = self.keys.len() * 2;
                    self.keys.resize(longer, K::zeroed());
                    self.values.resize(longer, V::zeroed());
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.position = next;
            let read = attributes.count as usize;
            return Ok(self.keys.get(..read).zip(self.values.get(..read)));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::{io::Write, os::fd::AsFd};

    use super::super::map::{TypedMap, new_hash_map};

    #[test]
    fn what_is_written_at_once_is_read() {
        let map = match new_hash_map::<u64, u64>(c"batches", 8) {
            Ok(map) => TypedMap::<u64, u64>::new(map.as_fd()).unwrap(),
            Err(error) => {
                writeln!(std::io::stderr(), "skipped: batches: making BPF maps needs root: {error}").unwrap();
                return;
            }
        };
        map.update_all(&[3, 1, 2], &[30, 10, 20]).unwrap();
        let mut read = Vec::new();
        map.for_each(|key, value| read.push((*key, *value))).unwrap();
        read.sort_unstable();
        assert_eq!(read, [(1, 10), (2, 20), (3, 30)]);
        // Of too many, as many as there is room for, and the kernel's own answer.
        let many: Vec<u64> = (10..30).collect();
        let full = map.update_all(&many, &many).unwrap_err();
        assert_eq!(full.raw_os_error(), Some(libc::E2BIG));
    }
}
