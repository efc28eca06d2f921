//! Stacks met before are recognised by their return addresses, without a search in the unwind tables.
//!
//! A memo remembers, for a place (rip, rsp, rbp at the allocator's return), at which words of the stack a whole walk
//! found the return addresses. When the same place comes again, the words there are hashed as the walk would hash them:
//! if the hash is that of the remembered site, the return addresses are the same, and so is the stack. Otherwise, or if
//! the memo was overwritten meanwhile by another CPU, the hash differs and the stack is walked.

use crate::{
    limits::WINDOW_BYTES,
    maps::{MEMOS, SCRATCH, Scratch, memo_mask},
    opaque,
    records::walk_end,
    walk::{Place, fill_window, hash_frame, site_of},
};

/// Frames of the deepest stack that is remembered. It keeps memos small; a power of two.
pub const MEMO_FRAMES: usize = 128;

/// Where a walk from one place found its return addresses.
#[repr(C)]
pub struct Memo {
    ip: u64,
    sp: u64,
    bp: u64,
    site: u64,
    /// The files that its frames lie in. As long as the generation is the same, so are they.
    modules: u64,
    generation: u32,
    frames: u32,
    slots: Slots,
}

/// For each frame but the first: distance of its return address from rsp, in words. Four in a word, so that they are copied
/// by words.
#[repr(C)]
pub struct Slots([u64; MEMO_FRAMES / 4]);

impl Slots {
    /// The slot of a frame; frames beyond the last one are those at the beginning again.
    #[inline(always)]
    fn get(&self, frame: u64) -> u64 {
        let slots = (&raw const self.0).cast::<u16>();
        // SAFETY: masked to the array's length.
        unsafe { *slots.add(opaque(frame) as usize & (MEMO_FRAMES - 1)) as u64 }
    }

    /// Notes the slot of a frame.
    #[inline(always)]
    pub fn set(&mut self, frame: u64, slot: u16) {
        let slots = (&raw mut self.0).cast::<u16>();
        // SAFETY: masked to the array's length.
        unsafe { *slots.add(opaque(frame) as usize & (MEMO_FRAMES - 1)) = slot };
    }

    /// Copies word by word: at once, LLVM would load all before it stores any, and a BPF stack has no room for that.
    #[inline(always)]
    fn copy_from(&mut self, from: &Self) {
        for (to, from) in self.0.iter_mut().zip(&from.0) {
            // SAFETY: references to words; volatile, so that the loop stays one.
            unsafe { core::ptr::write_volatile(to, core::ptr::read_volatile(from)) };
        }
    }
}

/// Which memo stands for a place, and for the Python frames there: their hash is the one that the walk begins with.
#[inline(always)]
fn index_of(place: &Place, begun: u64) -> u32 {
    let mixed = (begun ^ place.ip ^ place.sp.rotate_left(20) ^ place.bp.rotate_left(40))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as u32 & memo_mask()
}

/// Hashes the return addresses that lie on one page of the stack, from frame `first` on; the first frame that was not
/// hashed, or a negative number where that page could not be read.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn memo_step(first: u64, slot: u64, memo: u64) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return -1 };
    // SAFETY: the slot is claimed by this walk.
    let scratch = unsafe { &mut *scratch };
    let Some(memo) = MEMOS.get(memo as u32) else { return -1 };
    let frames = memo.frames as u64;
    let base = memo.slots.get(first);
    let last = memo.slots.get(frames.wrapping_sub(1));
    // No more is read than up to the last return address.
    let wanted = if last < base { 1 } else { last - base + 1 };
    let words = fill_window(scratch, scratch.sp.wrapping_add(base * 8), wanted * 8) >> 3;
    let mut hash = scratch.hash;
    let mut done = 0;
    while done < MEMO_FRAMES as u64 && first + done < frames {
        let at = memo.slots.get(first + done).wrapping_sub(base);
        if at >= words {
            break;
        }
        // SAFETY: masked to the array's length, where the compiler does not know that it need not be.
        let word = unsafe { *scratch.window.get_unchecked(opaque(at) as usize & (WINDOW_BYTES / 8 - 1)) };
        hash = hash_frame(hash, word, 0);
        done += 1;
    }
    scratch.hash = hash;
    if done == 0 { -1 } else { (first + done) as i64 }
}

/// The site of a stack that was met before at this place; `None` if it must be walked. The walk has been begun.
#[inline(always)]
pub fn recognise(scratch: *mut Scratch, slot: u32, place: &Place) -> Option<u64> {
    // SAFETY: the slot is claimed by this walk; no reference is held across the calls below.
    let begun = unsafe { (*scratch).hash };
    let index = index_of(place, begun);
    let memo = MEMOS.get(index)?;
    // SAFETY: as above.
    let generation = unsafe { (*scratch).table };
    if memo.ip != place.ip || memo.sp != place.sp || memo.bp != place.bp || memo.generation != generation {
        return None;
    }
    let frames = memo.frames as u64;
    // SAFETY: as above.
    unsafe { (*scratch).hash = hash_frame(begun, place.ip, 0) };
    let mut frame = 1;
    let mut steps = 0;
    while steps < MEMO_FRAMES && frame < frames {
        let next = memo_step(frame, slot as u64, index as u64);
        if next < 0 {
            break;
        }
        frame = next as u64;
        steps += 1;
    }
    // SAFETY: as above.
    let site = unsafe { site_of((*scratch).hash, memo.modules, walk_end::COMPLETE) };
    // SAFETY: as above.
    unsafe { (*scratch).hash = begun };
    (frame == frames && site == memo.site).then_some(site)
}

/// Remembers a whole stack that was just walked, from the hash `begun` on.
#[inline(always)]
pub fn remember(scratch: &Scratch, place: &Place, begun: u64) {
    let whole = scratch.head.end == walk_end::COMPLETE && scratch.guessed_frames == 0;
    if !whole || scratch.forgettable != 0 || scratch.head.frames as usize > MEMO_FRAMES {
        return;
    }
    let Some(memo) = MEMOS.get_ptr_mut(index_of(place, begun)) else { return };
    // SAFETY: a map value; other CPUs may read or write it at the same time, which the hash brings to light.
    let memo = unsafe { &mut *memo };
    memo.ip = place.ip;
    memo.sp = place.sp;
    memo.bp = place.bp;
    memo.generation = scratch.table;
    memo.frames = scratch.head.frames as u32;
    memo.slots.copy_from(&scratch.slots);
    memo.modules = scratch.modules;
    memo.site = scratch.head.site;
}
