//! The ledger: live blocks by address, counters by site.
//!
//! A block is entered when the allocator returns it and taken out when it is handed to `free`: in between its address
//! cannot be given to anyone else, so an address never stands for two blocks.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP, pt_regs},
    helpers::generated::bpf_ringbuf_output,
};

use crate::{
    control::NUMBER_SHIFT,
    counters::Counter,
    function::Function,
    limits::MAX_FRAMES,
    live::{self, take},
    maps::{
        ALREADY_THERE, SCRATCH, SITES, STACKS, Scratch, atomic_add, count, custom_allocators, sampling,
        unbroken_since,
    },
    memo, moments, opaque, python,
    python_records::PythonFrame,
    records::{
        CUSTOM_BLOCK, LiveBlock, NO_NAME, OVERFLOW_SITE, SIZE_CLASSES, SiteCounters, StackHead, walk_end,
    },
    sampler, threads,
    walk::{self, Place},
};

/// A call's decision: how many bytes, recorded at which interval (its number).
#[derive(Clone, Copy)]
pub struct Drawn {
    pub size: u64,
    pub interval: u64,
}

/// Enters a block that the allocator has just returned, at `now`, from a call that was entered at `entered`.
///
/// Allocators call one another: glibc's `realloc(NULL, n)` calls `malloc`, a preloaded `malloc` calls the C library's. A
/// record of this address from after our entry can only be such a call's, because nobody else may hold a block that is
/// being handed to us: the outer call's record takes its place. An older record means that a free was not seen; but if
/// one of the two allocators was named by the user, it may be of the block that our block is the first part of.
#[inline(always)]
pub fn enter<const PYTHON: bool>(
    registers: &pt_regs,
    function: Function,
    address: u64,
    drawn: Drawn,
    entered: u64,
    now: u64,
) {
    // A probe behind a call may sit some instructions further.
    let mut place = Place::of(registers);
    place.ip = place.ip.wrapping_sub(function.behind());
    let key = function.key_of(address);
    let Drawn { size, interval } = drawn;
    enter_at::<PYTHON>(&place, function, key, size, interval << NUMBER_SHIFT, entered, now);
}

/// The same at a place, with what the high half of [`LiveBlock::thread`] is.
#[inline(always)]
pub fn enter_at<const PYTHON: bool>(
    place: &Place,
    function: Function,
    key: u64,
    size: u64,
    weight: u64,
    entered: u64,
    now: u64,
) {
    let (site, counters) = site::<PYTHON>(place, function.allocator());
    let thread = threads::allocates(key, now) | weight;
    let block = LiveBlock { size, site, born: now, thread };
    if custom_allocators() != 0 {
        let other_key = key ^ CUSTOM_BLOCK;
        if live::born(other_key).is_some_and(|born| born >= entered)
            && let Some(nested) = take(other_key)
        {
            uncount(&nested);
        }
    }
    if let Err(error) = live::insert(key, &block) {
        if error != ALREADY_THERE {
            count(Counter::LiveMapFull, 1);
            return;
        }
        if let Some(other) = take(key) {
            if other.born >= entered {
                uncount(&other);
            } else {
                // Between windows, nothing else is to be expected.
                let expected = !unbroken_since(other.born);
                count(if expected { Counter::GoneBetweenWindows } else { Counter::AddressClash }, 1);
                freed(&other, false);
            }
        }
        if live::insert(key, &block).is_err() {
            count(Counter::LiveMapFull, 1);
            return;
        }
    }
    count_allocated(&block, counters, 1);
    moments::grown(sampler::stands_for(&block).1, now);
    count_recorded(&block, 1);
}

/// Counts a block as recorded, and as one of a thread without a name, `times`, which is 1 or, to take it back, -1.
#[inline(always)]
fn count_recorded(block: &LiveBlock, times: u64) {
    count(Counter::RecordedBlocks, times);
    if block.thread_name() == NO_NAME {
        count(Counter::ThreadNameLost, times);
    }
}

/// Takes back the record of a call inside a call.
#[inline(always)]
fn uncount(nested: &LiveBlock) {
    count(Counter::NestedCalls, 1);
    count_allocated(nested, SITES.get_ptr_mut(&nested.site), MINUS_ONE);
    moments::withdrawn(sampler::stands_for(nested).1);
    count_recorded(nested, MINUS_ONE);
    uncount_stack(nested);
}

/// -1 for a counter.
const MINUS_ONE: u64 = u64::MAX;

/// Takes back what was counted for the stack of a call inside a call. The return address of the outer call was the
/// kernel's, not its caller's, so the inner walk mostly ended there.
#[inline(always)]
fn uncount_stack(block: &LiveBlock) {
    if let Some(counters) = SITES.get_ptr(&block.site) {
        // SAFETY: a field of a map value that was just looked up.
        walk::count_end(unsafe { (*counters).end }, MINUS_ONE);
    }
}

/// Counts a block as allocated `times`, which is 1 or, to take it back, -1. Where nothing is ever sampled, the blocks recorded
/// are the blocks allocated.
#[inline(always)]
fn count_allocated(block: &LiveBlock, counters: Option<*mut SiteCounters>, times: u64) {
    let (objects, space) = sampler::stands_for(block);
    let (objects, space) = (objects.wrapping_mul(times), space.wrapping_mul(times));
    if sampling() != 0 {
        count(Counter::AllocObjects, objects);
    }
    count(Counter::AllocSpace, space);
    if let Some(counters) = counters {
        moments::note(counters);
        // SAFETY: fields of a map value that was just looked up.
        unsafe {
            atomic_add(&raw mut (*counters).alloc_objects, objects);
            atomic_add(&raw mut (*counters).alloc_space, space);
            atomic_add((&raw mut (*counters).sizes).cast::<u64>().add(class_of(block.size)), objects);
            if block.interval() as u8 > (*counters).coarsest {
                (*counters).coarsest = block.interval() as u8;
            }
        }
    }
}

/// The class that a size belongs to. Branches would multiply what the verifier follows.
#[inline(always)]
fn class_of(size: u64) -> usize {
    const LAST: u64 = SIZE_CLASSES as u64 - 1;
    // Sizes of a class have the same highest bit, once they are counted from 0 in units of 16; all above the bounds are
    // in the last one.
    let mut rest = (size.saturating_sub(1) >> 4).min(1 << (LAST - 1));
    let mut class = (rest != 0) as u64;
    for shift in [8, 4, 2, 1] {
        let step = opaque((rest >> shift != 0) as u64) * shift;
        rest >>= step;
        class += step;
    }
    opaque(class).min(LAST) as usize
}

/// Takes out the block that is handed to this function, with its key. What an allocator named by the user has passed on
/// from `malloc` may go to `free` itself; but a block of `malloc` that goes to the `free` of such an allocator is left
/// to the call of `free` that is to come: its address may be that of a part.
#[inline(always)]
pub fn take_handed_in(function: Function, address: u64) -> Option<(u64, LiveBlock)> {
    let key = function.key_of(address);
    match take(key) {
        Some(block) => Some((key, block)),
        None if custom_allocators() != 0 && !function.is_custom() => {
            let key = key | CUSTOM_BLOCK;
            Some((key, take(key)?))
        }
        None => None,
    }
}

/// Puts back what `take` took: the call has failed and the block lives on.
#[inline(always)]
pub fn put_back(key: u64, block: &LiveBlock) {
    if let Err(error) = live::insert(key, block) {
        // Its address may have been given out again since.
        count(if error == ALREADY_THERE { Counter::AddressClash } else { Counter::LiveMapFull }, 1);
        freed(block, false);
    }
}

/// Counts a block that was taken as freed, and as temporary or not.
#[inline(always)]
pub fn freed(block: &LiveBlock, temporary: bool) {
    let (objects, space) = sampler::stands_for(block);
    count(Counter::FreedObjects, objects);
    count(Counter::FreedSpace, space);
    moments::shrunk(space);
    if let Some(counters) = SITES.get_ptr_mut(&block.site) {
        moments::note(counters);
        // SAFETY: fields of a map value that was just looked up.
        unsafe {
            atomic_add(&raw mut (*counters).freed_objects, objects);
            atomic_add(&raw mut (*counters).freed_space, space);
            if temporary {
                atomic_add(&raw mut (*counters).temporary_objects, objects);
            }
        }
    }
}

/// Takes out a block that is being freed; whether the ledger held it.
#[inline(always)]
pub fn forget(function: Function, address: u64) -> bool {
    match take_handed_in(function, address) {
        Some((key, block)) => {
            let temporary = threads::frees_its_last(key) && unbroken_since(block.born);
            freed(&block, temporary);
            true
        }
        None => false,
    }
}

/// Counts a block as freed that was entered before this time. Since then another may have come to its address.
#[inline(always)]
pub fn forget_older(key: u64, time: u64) {
    if live::born(key).is_some_and(|born| born < time)
        && let Some(block) = take(key)
    {
        freed(&block, false);
    }
}

/// Whether the ledger holds a block of `malloc` at this address.
#[inline(always)]
pub fn holds(address: u64) -> bool {
    live::born(address).is_some()
}

/// The site of the call that is returning and its counters, with its stack on the way to the user side if it is new. Without
/// `PYTHON`, Python's frames are not looked for, which takes no stack of ours: before 6.13 all functions of a program share 512
/// bytes of it.
#[inline(always)]
pub fn site<const PYTHON: bool>(place: &Place, allocator: u8) -> (u64, Option<*mut SiteCounters>) {
    let overflow = || (OVERFLOW_SITE, SITES.get_ptr_mut(&OVERFLOW_SITE));
    let Some(slot) = walk::claim() else {
        count(Counter::ScratchBusy, 1);
        return overflow();
    };
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else { return overflow() };
    // SAFETY: the slot is claimed: nobody else uses it until it is released below.
    walk::begin(unsafe { &mut *scratch }, place, allocator);
    if PYTHON {
        python::collect(scratch, slot);
    }
    // SAFETY: as above.
    let begun = unsafe { (*scratch).hash };
    let recognised = memo::recognise(scratch, slot, place);
    let known = match recognised {
        Some(site) => (site, sent_site(site)),
        None => (OVERFLOW_SITE, None),
    };
    let found = if known.1.is_some() {
        count(Counter::StacksRecognised, 1);
        known
    } else {
        walk::walk(scratch, slot);
        // SAFETY: as above.
        let scratch = unsafe { &mut *scratch };
        memo::remember(scratch, place, begun);
        known_site(scratch)
    };
    walk::release(scratch);
    found
}

/// The counters of a site whose stack the user side has.
#[inline(always)]
fn sent_site(site: u64) -> Option<*mut SiteCounters> {
    // SAFETY: one word of a map value.
    SITES.get_ptr_mut(&site).filter(|counters| unsafe { (**counters).stack_sent } != 0)
}

/// Makes sure that the walked stack has its counters and its record; the key of the site that stands for it, and its counters.
#[inline(always)]
fn known_site(scratch: &mut Scratch) -> (u64, Option<*mut SiteCounters>) {
    let site = scratch.head.site;
    let mut counters = SITES.get_ptr_mut(&site);
    if counters.is_none() {
        // Not on the stack, of which there are 512 bytes for all functions of a program before 6.13: the walk is over, and
        // its window is free.
        scratch.window_len = 0;
        let new = scratch.window.as_mut_ptr().cast::<SiteCounters>();
        // SAFETY: the window is larger and as aligned, the slot is claimed, and `EMPTY` is all zeros.
        let new = unsafe {
            new.write_bytes(0, 1);
            (*new).end = scratch.head.end;
            &*new
        };
        let _ = SITES.insert(&site, new, BPF_NOEXIST as u64);
        counters = SITES.get_ptr_mut(&site);
    }
    let Some(found) = counters else {
        count(Counter::SiteMapFull, 1);
        return (OVERFLOW_SITE, SITES.get_ptr_mut(&OVERFLOW_SITE));
    };
    // SAFETY: a field of a map value; a race only sends the same record twice.
    let stack_sent = unsafe { &mut (*found).stack_sent };
    if *stack_sent == 0 {
        if send(scratch) {
            *stack_sent = 1;
        } else {
            count(Counter::RingFull, 1);
        }
    }
    (site, counters)
}

/// Sends head and frames, native and Python; whether the ring buffer had room.
#[inline(always)]
fn send(scratch: &mut Scratch) -> bool {
    let frames = scratch.head.frames as u64;
    if frames > MAX_FRAMES as u64 || scratch.head.end == walk_end::SCRATCH_BUSY {
        return false;
    }
    let python = python::append(scratch, frames);
    // What could not be copied is not there.
    scratch.head.python = (python / size_of::<PythonFrame>() as u64) as u32;
    let bytes = size_of::<StackHead>() as u64 + frames * 8 + python;
    // Python's code may be gone soon: user space is to read it at once. Other stacks wait until it looks.
    let wakeup = if python == 0 { BPF_RB_NO_WAKEUP as u64 } else { 0 };
    // SAFETY: head and frames lie behind each other in `Scratch`, and `bytes` ends within it.
    unsafe {
        bpf_ringbuf_output(
            (&raw const STACKS).cast_mut().cast(),
            (&raw const scratch.head).cast_mut().cast(),
            bytes,
            wakeup,
        ) == 0
    }
}
