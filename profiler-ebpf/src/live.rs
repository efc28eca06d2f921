//! The table of live blocks: their address, and what is known of them.
//!
//! Nearly all are in buckets of an array of ours ([`crate::blocks`]), which any number of CPUs use at once without a lock: whoever
//! exchanges the first word of a slot has it. A slot is filled before its key is there; whoever may free the block has it
//! from the allocator only after that. What finds no place there is in hash maps of the kernel's.

use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::HashMap};

use crate::{
    blocks::{
        self, BLOCK, BUSY, Bucket, FILL_FIRST, FREE, MOST_ELSEWHERE, ONE_ELSEWHERE, Packed, SLOTS,
        buckets_of, short_key,
    },
    maps::{
        ALREADY_THERE, BLOCKS, OVERFLOW, atomic_add, atomic_exchange_if, began, bucket_count, overflow_parts,
    },
    opaque,
    records::LiveBlock,
};

/// One hash map. The user side makes them, with more room; this says what they have in common (`BPF_F_NO_PREALLOC`).
pub type Part = HashMap<u64, LiveBlock, 1, 1>;

/// What an insertion answers where there is no hash map for the key: -ENOENT of include/uapi/asm-generic/errno-base.h. The
/// user side fills all places before it attaches.
const NO_PART: i32 = -2;
/// In place of a slot: there is none; but a hash map may have the block.
const NO_SLOT: i64 = -1;
/// Nor may one of those.
const NOWHERE: i64 = -2;
/// One block less that is elsewhere.
const ONE_LESS: u64 = ONE_ELSEWHERE.wrapping_neg();

/// A slot, as functions that the verifier looks at on their own can hand it out: bucket, slot, and whether the bucket is the
/// second one of the key.
#[inline(always)]
fn pack_slot(bucket: u32, slot: u64, second: bool) -> i64 {
    (bucket as u64 * (2 * SLOTS as u64) + slot * 2 + second as u64) as i64
}

#[inline(always)]
fn slot_at(packed: i64) -> Option<*mut Packed> {
    let packed = packed as u64;
    let bucket = BLOCKS.get_ptr_mut((packed / (2 * SLOTS as u64)) as u32)?;
    let slot = opaque(packed / 2) as usize & (SLOTS - 1);
    // SAFETY: masked to the array's length.
    Some(unsafe { (&raw mut (*bucket).slots).cast::<Packed>().add(slot) })
}

/// The first word of a slot.
#[inline(always)]
fn word(bucket: *mut Bucket, slot: usize) -> u64 {
    // SAFETY: a word of a map value, which other CPUs may write.
    unsafe { core::ptr::read_volatile(&raw const (*bucket).slots[slot].words[0]) }
}

/// Whether blocks that should be in this bucket are elsewhere.
#[inline(always)]
fn has_elsewhere(bucket: *mut Bucket) -> bool {
    word(bucket, 0) >= ONE_ELSEWHERE
}

/// How often an exchange is tried that another CPU may spoil.
const ATTEMPTS: u32 = 8;

/// Counts one block more or less that is not in the first bucket of its key; 0 where that could not be.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn live_elsewhere(key: u64, one: u64) -> i64 {
    let Some(bucket) = BLOCKS.get_ptr_mut(buckets_of(key, bucket_count())[0]) else { return 0 };
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        attempt += 1;
        let old = word(bucket, 0);
        // SAFETY: a word of a map value.
        let first = unsafe { &raw mut (*bucket).slots[0].words[0] };
        if old >= MOST_ELSEWHERE || atomic_exchange_if(first, old, old.wrapping_add(one)) {
            return 1;
        }
    }
    0
}

/// The slot that a block with this key is in.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn live_find(key: u64) -> i64 {
    let [first, second] = buckets_of(key, bucket_count());
    let Some(bucket) = BLOCKS.get_ptr_mut(first) else { return NOWHERE };
    for slot in 0..SLOTS {
        if Packed::has_key(word(bucket, slot), key) {
            return pack_slot(first, slot as u64, false);
        }
    }
    if !has_elsewhere(bucket) {
        return NOWHERE;
    }
    if let Some(bucket) = BLOCKS.get_ptr_mut(second) {
        for slot in 0..SLOTS {
            if Packed::has_key(word(bucket, slot), key) {
                return pack_slot(second, slot as u64, true);
            }
        }
    }
    NO_SLOT
}

/// What the slots of a bucket are.
struct Looked {
    /// Whether the key is in one.
    there: bool,
    /// How many are in use.
    used: u64,
    /// One that is not, if there are any.
    free: u64,
}

/// Looks at all slots. Branches would multiply what the verifier follows.
#[inline(always)]
fn look(bucket: *mut Bucket, key: u64) -> Looked {
    let (mut there, mut used, mut free) = (false, 0, 0);
    for slot in 0..SLOTS {
        let word = word(bucket, slot) & BLOCK;
        there |= Packed::has_key(word, key);
        let is_used = opaque(word | word.wrapping_neg()) >> 63;
        used += is_used;
        // The last free one: where it is free, nothing is left of what was.
        free = free * is_used + slot as u64 * (is_used ^ 1);
    }
    Looked { there, used, free }
}

/// Takes a slot for a block with this key, and marks it as being filled; [`ALREADY_THERE`] where one is there, [`NO_SLOT`] where
/// both buckets are full.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn live_place(key: u64) -> i64 {
    let [first, second] = buckets_of(key, bucket_count());
    let Some(bucket) = BLOCKS.get_ptr_mut(first) else { return NO_SLOT };
    let Some(other) = BLOCKS.get_ptr_mut(second) else { return NO_SLOT };
    let mut attempt = 0;
    // Another CPU may take a free slot before us.
    while attempt < 2 {
        attempt += 1;
        let looked = look(bucket, key);
        if looked.there {
            return ALREADY_THERE as i64;
        }
        let (mut chosen, mut used, mut free, mut is_second) = (first, looked.used, looked.free, false);
        if looked.used > FILL_FIRST as u64 || has_elsewhere(bucket) {
            let looked = look(other, key);
            if looked.there {
                return ALREADY_THERE as i64;
            }
            if used > FILL_FIRST as u64 && looked.used < used {
                (chosen, used, free, is_second) = (second, looked.used, looked.free, true);
            }
        }
        if used >= SLOTS as u64 {
            return NO_SLOT;
        }
        // Before it is there: who looks for it sees that it has to look in both.
        if is_second && live_elsewhere(key, ONE_ELSEWHERE) == 0 {
            return NO_SLOT;
        }
        let packed = pack_slot(chosen, free, is_second);
        let Some(slot) = slot_at(packed) else { return NO_SLOT };
        // SAFETY: a word of a map value, which other CPUs may write.
        let first_word = unsafe { &raw mut (*slot).words[0] };
        let old = unsafe { core::ptr::read_volatile(first_word) };
        if old & BLOCK == FREE && atomic_exchange_if(first_word, old, old | BUSY) {
            return packed;
        }
        if is_second {
            live_elsewhere(key, ONE_LESS);
        }
    }
    NO_SLOT
}

/// Frees a slot, if it still has the block with this key; the block's first word, or [`NO_SLOT`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn live_free(packed: i64, key: u64) -> i64 {
    let Some(slot) = slot_at(packed) else { return NO_SLOT };
    // SAFETY: a word of a map value, which other CPUs may write.
    let first = unsafe { &raw mut (*slot).words[0] };
    let mut attempt = 0;
    // Another CPU may count blocks elsewhere in the same word.
    while attempt < ATTEMPTS {
        attempt += 1;
        // SAFETY: as above.
        let old = unsafe { core::ptr::read_volatile(first) };
        if !Packed::has_key(old, key) {
            return NO_SLOT;
        }
        if atomic_exchange_if(first, old, old & !BLOCK) {
            if packed & 1 != 0 {
                // If it fails, more is looked at than needed.
                live_elsewhere(key, ONE_LESS);
            }
            return (old & BLOCK) as i64;
        }
    }
    NO_SLOT
}

/// Takes out what is in a slot, if it is still the block with this key.
#[inline(always)]
fn take_slot(packed: i64, key: u64) -> Option<LiveBlock> {
    let slot = slot_at(packed)?;
    // SAFETY: words of a map value; as long as the first is there, they are of its block.
    let mut block = unsafe { core::ptr::read_volatile(slot) };
    let first = live_free(packed, key);
    if first < 0 {
        return None;
    }
    block.words[0] = first as u64;
    Some(block.unpack(began()))
}

/// Fills a slot that was taken for a block.
#[inline(always)]
fn fill(packed: i64, block: &Packed) {
    let Some(slot) = slot_at(packed) else { return };
    // SAFETY: words of a map value that is ours until the first is there. Volatile, so that this comes last; added, so that what
    // another CPU counts in that word meanwhile stays.
    unsafe {
        core::ptr::write_volatile(&raw mut (*slot).words[1], block.words[1]);
        core::ptr::write_volatile(&raw mut (*slot).words[2], block.words[2]);
        core::ptr::write_volatile(&raw mut (*slot).words[3], block.words[3]);
        atomic_add(&raw mut (*slot).words[0], block.words[0].wrapping_sub(BUSY));
    }
}

/// The hash map that may have the block with this key.
#[inline(always)]
fn part_of(key: u64) -> Option<&'static Part> {
    OVERFLOW.get(blocks::part_of(key, overflow_parts()))
}

/// When the block with this key was born, if it is there.
#[inline(always)]
pub fn born(key: u64) -> Option<u64> {
    if let Some(short) = short_key(key) {
        let found = live_find(short);
        if found == NOWHERE {
            return None;
        }
        if found >= 0 {
            let slot = slot_at(found)?;
            // SAFETY: words of a map value; what is read is of this block as long as nobody frees it meanwhile.
            let word = unsafe { core::ptr::read_volatile(&raw const (*slot).words[3]) };
            return Some(Packed::born(word, began()));
        }
    }
    // SAFETY: one word of a map value.
    part_of(key)?.get_ptr(key).map(|block| unsafe { (*block).born })
}

/// Enters a block; where it fails, -errno: [`ALREADY_THERE`], or the kernel's answer that there is no room.
#[inline(always)]
pub fn insert(key: u64, block: &LiveBlock) -> Result<(), i32> {
    let short = short_key(key);
    if let Some(short) = short {
        let bucket = BLOCKS.get_ptr_mut(buckets_of(short, bucket_count())[0]);
        if bucket.is_some_and(has_elsewhere) && part_of(key).is_some_and(|part| part.get_ptr(key).is_some()) {
            return Err(ALREADY_THERE);
        }
        if let Some(packed) = Packed::pack(short, block, began()) {
            let place = live_place(short);
            if place >= 0 {
                fill(place, &packed);
                return Ok(());
            }
            if place == ALREADY_THERE as i64 {
                return Err(ALREADY_THERE);
            }
        }
    }
    // Before it is there: who looks for it sees that it has to look here.
    if short.is_some_and(|short| live_elsewhere(short, ONE_ELSEWHERE) == 0) {
        return Err(NO_PART);
    }
    let inserted = part_of(key).ok_or(NO_PART).and_then(|part| part.insert(key, block, BPF_NOEXIST as u64));
    if inserted.is_err()
        && let Some(short) = short
    {
        live_elsewhere(short, ONE_LESS);
    }
    inserted
}

/// Takes a block out without calling it freed yet. Of two threads that ask for the same, one gets it.
#[inline(always)]
pub fn take(key: u64) -> Option<LiveBlock> {
    let short = short_key(key);
    if let Some(short) = short {
        let found = live_find(short);
        if found == NOWHERE {
            return None;
        }
        if found >= 0 {
            return take_slot(found, short);
        }
    }
    let part = part_of(key)?;
    // SAFETY: copied at once, before anything else can change the entry.
    let block = unsafe { *part.get_ptr(key)? };
    part.remove(key).ok()?;
    if let Some(short) = short {
        live_elsewhere(short, ONE_LESS);
    }
    Some(block)
}
