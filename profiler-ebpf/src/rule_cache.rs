//! What the walk has found in the unwind tables for an address, so that the next walk through there need not search.
//!
//! Stacks differ in a few frames and share the others: nearly every return address has been looked up before. An entry is in one
//! cache line. Other CPUs write entries at any time; one that is half an older and half a newer entry does not have its check, nor
//! does one that was found in other tables of mappings than those in force.

use crate::{maps::RULES_FOUND, tables::Rule};

/// Entries, a power of two: more than most programs have return addresses on their way to malloc, and half a megabyte, which a
/// core caches.
pub const ENTRIES: u32 = 1 << 14;

/// One entry: address, rule and the first page of its file (in two words), check.
pub type Entry = [u64; 4];

/// What holds at an address.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Found {
    pub rule: Rule,
    /// Index in `PAGES` of the first page of the file.
    pub first_page: u32,
}
const _: () = assert!(size_of::<Found>() == 16);

/// Neighbours in a function are neighbours here; other functions are spread.
#[inline(always)]
fn index_of(address: u64) -> u32 {
    (address ^ address >> 13) as u32 & (ENTRIES - 1)
}

/// Changes with each bit of each of them.
#[inline(always)]
fn check(address: u64, found: [u64; 2], generation: u32) -> u64 {
    (address ^ (generation as u64) << 32 ^ 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ found[0].wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ found[1].wrapping_mul(0x1656_67b1_9e37_79f9)
}

/// What was found at this address in the tables of this generation, if it is still there.
#[inline(always)]
pub fn recall(address: u64, generation: u32) -> Option<Found> {
    let entry = RULES_FOUND.get_ptr(index_of(address))?;
    // SAFETY: a map value, which other CPUs may write; volatile, so that what is checked is what is used.
    let [at, low, high, checked] = unsafe { core::ptr::read_volatile(entry) };
    if at != address || checked != check(address, [low, high], generation) {
        return None;
    }
    // SAFETY: plain data of the same size, as `remember` wrote it.
    Some(unsafe { core::mem::transmute::<[u64; 2], Found>([low, high]) })
}

/// Remembers what was found.
#[inline(always)]
pub fn remember(address: u64, generation: u32, found: Found) {
    let Some(entry) = RULES_FOUND.get_ptr_mut(index_of(address)) else { return };
    // SAFETY: plain data of the same size.
    let words = unsafe { core::mem::transmute::<Found, [u64; 2]>(found) };
    let new = [address, words[0], words[1], check(address, words, generation)];
    // SAFETY: a map value, which other CPUs may read and write: see above.
    unsafe { core::ptr::write_volatile(entry, new) };
}
