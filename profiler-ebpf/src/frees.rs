//! What a probe does when the target enters `free` or one of its kin.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_ANY, pt_regs};

use crate::{
    account,
    calls::take_over,
    counters::Counter,
    function::{Arguments, Function},
    maps::{FREED, count, custom_allocators, deaf},
    pending::TAKEN_OVER,
    sampler, threads,
};

/// Entry of `free` and its kin.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn free_entry(ctx: *mut c_void) -> u32 {
    count(Counter::ProbeHits, 1);
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    let address = Arguments::of(unsafe { &*ctx.cast::<pt_regs>() }).block(function);
    if address == 0 || deaf() {
        return 0;
    }
    if account::forget(function, address) {
        note_custom(function, address);
        return 0;
    }
    if !sampler::may_be_reallocating() {
        // While sampling, most blocks are not recorded: what they are tells nothing.
        note_custom(function, address);
        return 0;
    }
    match take_over(address) {
        Some((TAKEN_OVER, _)) => {}
        Some((0, _)) => count(Counter::UnmatchedFrees, 1),
        Some((key, block)) => account::freed(&block, threads::frees_its_last(key)),
        None if custom_allocators() != 0 && is_handed_on(function, address) => {}
        None => {
            note_custom(function, address);
            count(Counter::UnmatchedFrees, 1);
        }
    }
    0
}

/// Notes what an allocator that the user named has freed: if it hands the block on to `free`, that is no other block.
#[inline(always)]
fn note_custom(function: Function, address: u64) {
    if custom_allocators() != 0 && function.is_custom() {
        let _ = FREED.insert(&threads::current(), &address, BPF_ANY as u64);
    }
}

/// Whether this free and another one are about the same block: the `free` of an allocator that the user named is about
/// to hand it on to `free`, or has just done so.
#[inline(always)]
fn is_handed_on(function: Function, address: u64) -> bool {
    if function.is_custom() {
        return account::holds(address);
    }
    let thread = threads::current();
    // SAFETY: one word of a map value.
    let same = FREED.get_ptr(&thread).is_some_and(|freed| unsafe { *freed } == address);
    same && FREED.remove(&thread).is_ok()
}
