//! The table of live blocks: their address, and what is known of them.
//!
//! It is made of several hash maps, its parts. The kernel gives a hash map as many buckets as the next power of two has
//! room for; of parts, there can be as many as the memory allows. Which part has a block is told by a hash of its key,
//! another one than the kernel's, so that all parts fill alike.

use aya_ebpf::btf_maps::HashMap;

use crate::{
    maps::{LIVE, live_parts},
    records::LiveBlock,
};

/// One part. The user side makes them, with more room; this says what they have in common (`BPF_F_NO_PREALLOC`).
pub type Part = HashMap<u64, LiveBlock, 1, 1>;

/// What an insertion answers where there is no part for the key: -ENOENT of include/uapi/asm-generic/errno-base.h. The
/// user side fills all places before it attaches.
const NO_PART: i32 = -2;

#[inline(always)]
fn part_of(key: u64) -> Option<&'static Part> {
    // Fibonacci hashing: of the product, the high bits depend on all bits of the key, and regular strides are spread
    // evenly.
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    LIVE.get((hash * live_parts() as u64 >> 32) as u32)
}

/// The block with this key, if it is there.
#[inline(always)]
pub fn get(key: u64) -> Option<*const LiveBlock> {
    part_of(key)?.get_ptr(key)
}

/// Enters a block; where it fails, the kernel's answer.
#[inline(always)]
pub fn insert(key: u64, block: &LiveBlock, flags: u64) -> Result<(), i32> {
    part_of(key).ok_or(NO_PART)?.insert(key, block, flags)
}

/// Takes a block out without calling it freed yet. Of two threads that ask for the same, one gets it.
#[inline(always)]
pub fn take(key: u64) -> Option<LiveBlock> {
    let part = part_of(key)?;
    // SAFETY: copied at once, before anything else can change the entry.
    let block = unsafe { *part.get_ptr(key)? };
    part.remove(key).ok()?;
    Some(block)
}
