//! What a probe does when the target enters an allocator function, and when the function returns.
//!
//! The attach cookie says what the function does with which arguments, and whose it is. With uprobe sessions one program
//! runs at both ends, and the kernel carries the size from the entry to the return; otherwise, and for calls that carry
//! more than a size, the call waits in `PENDING` under its thread and stack pointer, so that nested calls do not meet.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, pt_regs},
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user},
};

use crate::{
    account::{self, Drawn},
    control::MAX_INTERVALS,
    counters::Counter,
    function::{Arguments, Function},
    maps::{
        ALREADY_THERE, FAILED, PENDING, REALLOCATING, count, custom_allocators, deaf, max_size, min_size,
        only_callers,
    },
    pending::{DRAWN_SHIFT, PendingCall, PendingKey, TAKEN_OVER, UNSAMPLED},
    records::{CallKind, LiveBlock},
    sampler::{self, CalledFrom},
    session::{Carried, RUN_AT_RETURN, SKIP_RETURN, session_cookie, session_is_return},
    threads,
};

/// `CLOCK_MONOTONIC`, in nanoseconds.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
pub fn wanted(size: u64) -> bool {
    size >= min_size() && size <= max_size()
}

/// Whether calls are left at their entry.
#[inline(always)]
fn filters() -> bool {
    only_callers() != 0 || min_size() != 0 || max_size() != u64::MAX
}

/// A call that has been made: these are the registers at the function's entry.
#[inline(always)]
fn called(registers: &pt_regs) -> CalledFrom {
    CalledFrom { sp: registers.rsp, call: 0, at_call_site: false }
}

#[inline(always)]
fn pending_key(sp: u64, function: Function) -> PendingKey {
    PendingKey { sp, pid_tgid: threads::current(), cookie: function.of_call() }
}

/// The entry of a function whose outcome is known at its return. `in_cookie` takes the size where the kernel carries it.
#[inline(always)]
pub fn entered(
    function: Function,
    registers: &pt_regs,
    from: CalledFrom,
    in_cookie: Option<*mut u64>,
) -> u32 {
    if deaf() {
        count(Counter::ProbeHits, 1);
        return SKIP_RETURN;
    }
    let arguments = Arguments::of(registers);
    let size = arguments.size(function);
    let takes_block = function.takes_block();
    if !takes_block && !wanted(size) {
        count(Counter::ProbeHits, 1);
        count(Counter::FilteredAllocations, 1);
        return SKIP_RETURN;
    }
    let wanted_caller = sampler::is_wanted_caller(function, from);
    if !wanted_caller {
        count(Counter::ProbeHits, 1);
        count(Counter::OtherCallers, 1);
    }
    // Counts the hit, too.
    let drawn_at = if wanted_caller { sampler::samples(function, from, size) } else { None };
    let sampled = drawn_at.is_some();
    let drawn = Drawn {
        size,
        interval: match drawn_at {
            Some(number) => number,
            None => 0,
        },
    };
    if !sampled && (!takes_block || arguments.block(function) == 0) {
        return SKIP_RETURN;
    }
    if let Some(cookie) = in_cookie {
        let fits = function.is(CallKind::Allocate);
        let carried = if fits { Carried::pack(drawn, now()) } else { Carried::NOTHING };
        // SAFETY: the kernel's eight bytes for this call.
        unsafe { *cookie = carried.0 };
        if carried.0 != Carried::NOTHING.0 {
            return RUN_AT_RETURN;
        }
    }
    let mut call = PendingCall::EMPTY;
    call.size = size;
    call.entered = now() | drawn.interval << DRAWN_SHIFT;
    call.pointer = arguments.block(function);
    let key = pending_key(from.sp, function);
    if takes_block && call.pointer != 0 {
        if let Some((old_key, old)) = hand_in(function, call.pointer) {
            call.old = old;
            call.old_key = old_key;
        } else if custom_allocators() != 0 && function.is_custom() && account::holds(call.pointer) {
            // A block of `malloc`, on which a call of `realloc` or `free` inside this one will decide.
            call.old_key = TAKEN_OVER;
        }
        if !sampled {
            if call.old_key == 0 {
                // Neither the block that is handed in is recorded, nor will be the one that comes back.
                return SKIP_RETURN;
            }
            call.entered |= UNSAMPLED;
        }
        // Without room a free inside the call counts as unmatched, no more.
        let _ = REALLOCATING.insert(&call.pointer, &key, BPF_ANY as u64);
        sampler::note_reallocating(true);
    }
    let mut kept = PENDING.insert(&key, &call, BPF_NOEXIST as u64);
    if kept == Err(ALREADY_THERE) {
        // The same place of the same thread's stack: a call that was left by a longjmp, and will not return.
        abandon(&key);
        kept = PENDING.insert(&key, &call, BPF_ANY as u64);
    }
    if kept.is_err() {
        count(Counter::PendingMapFull, 1);
        let _ = REALLOCATING.remove(&call.pointer);
        // The outcome will not be seen: the block stays as it was known.
        if is_known(call.old_key) {
            account::put_back(call.old_key, &call.old);
        }
        return SKIP_RETURN;
    }
    RUN_AT_RETURN
}

/// Takes the record of a block that is handed to a realloc: out of the ledger, or over from a call that the block was
/// handed to before.
#[inline(always)]
fn hand_in(function: Function, address: u64) -> Option<(u64, LiveBlock)> {
    account::take_handed_in(function, address).or_else(|| take_over(address))
}

/// Takes over what is known of a block that this thread has handed to a realloc which has not returned: a call inside
/// that one decides on the block, or one that follows it, if it was left by a longjmp. The key is 0 where nothing is
/// known, and `TAKEN_OVER` where that has happened before. (Of another thread's call nothing can be said: by now the
/// address may be that of another block.)
#[inline(always)]
pub fn take_over(address: u64) -> Option<(u64, LiveBlock)> {
    // SAFETY: copied at once.
    let key = unsafe { *REALLOCATING.get_ptr(&address)? };
    if key.pid_tgid != threads::current() {
        return None;
    }
    let call = PENDING.get_ptr_mut(&key)?;
    // SAFETY: fields of a map value that was just looked up, and that only this thread uses.
    unsafe {
        if (*call).pointer != address {
            return None;
        }
        let taken = ((*call).old_key, (*call).old);
        (*call).old_key = TAKEN_OVER;
        Some(taken)
    }
}

/// Ends a call that will not return: the block handed to it lives on, for all that is known.
#[inline(always)]
fn abandon(key: &PendingKey) {
    let Some(call) = PENDING.get_ptr(key) else { return };
    // SAFETY: copied at once; the key is this thread's own.
    let call = unsafe { *call };
    if is_known(call.old_key) {
        let _ = REALLOCATING.remove(&call.pointer);
        account::put_back(call.old_key, &call.old);
    }
}

/// Whether a block handed to a realloc has a record, and it has not been taken over.
#[inline(always)]
fn is_known(old_key: u64) -> bool {
    old_key != 0 && old_key != TAKEN_OVER
}

/// The return of such a function, with what the kernel carried for it.
#[inline(always)]
pub fn returned<const PYTHON: bool>(function: Function, registers: &pt_regs, carried: Carried) {
    count(Counter::ProbeHits, 1);
    if deaf() {
        return;
    }
    let mut address = registers.rax;
    if carried.0 != Carried::NOTHING.0 {
        let now = now();
        if address == 0 {
            failed(carried.entered(now), now);
        } else {
            account::enter::<PYTHON>(
                registers,
                function,
                address,
                carried.drawn(),
                carried.entered(now),
                now,
            );
        }
        return;
    }
    // The return address has been taken off the stack since the entry.
    let key = pending_key(registers.rsp.wrapping_sub(8), function);
    let Some(call) = PENDING.get_ptr(&key) else {
        // While sampling, and with filters, most entries leave nothing behind.
        if sampler::records_all() && !filters() {
            count(Counter::UnpairedReturn, 1);
        }
        return;
    };
    // SAFETY: copied at once; the key is this thread's own.
    let mut call = unsafe { *call };
    let sampled = call.entered & UNSAMPLED == 0;
    let interval = call.entered >> DRAWN_SHIFT & (MAX_INTERVALS as u64 - 1);
    call.entered &= (1 << DRAWN_SHIFT) - 1;
    let _ = PENDING.remove(&key);
    let reallocates = function.takes_block() && call.pointer != 0;
    if reallocates {
        let _ = REALLOCATING.remove(&call.pointer);
        sampler::note_reallocating(false);
    }
    if function.is(CallKind::AllocateInto) {
        // The address is stored only where the call succeeds, which is when it returns 0.
        let out = (&raw mut address).cast();
        // SAFETY: the helper checks the user address.
        if registers.rax as u32 != 0 || unsafe { bpf_probe_read_user(out, 8, call.pointer as *const _) } != 0
        {
            address = 0;
        }
    } else if function.is(CallKind::Resize) {
        if registers.rax < call.size {
            // Nothing was asked for in place of the block: not even a failed allocation.
            keep(&call);
            return;
        }
        address = call.pointer;
    }
    if address == 0 {
        // realloc(block, 0) frees the block and returns nothing; any other call that returns nothing has failed.
        if reallocates && call.size == 0 {
            settle(&call);
            return;
        }
        failed(call.entered, now());
        if reallocates && function.is(CallKind::ReallocateOrFree) {
            settle(&call);
            account::forget_older(function.key_of(call.pointer), call.entered);
        } else {
            keep(&call);
        }
        return;
    }
    if reallocates {
        settle(&call);
        if !wanted(call.size) {
            count(Counter::FilteredAllocations, 1);
            return;
        }
        if !sampled {
            return;
        }
    }
    let drawn = Drawn { size: call.size, interval };
    account::enter::<PYTHON>(registers, function, address, drawn, call.entered, now());
}

/// Counts a call that returned no memory, unless a call inside it has been counted for that already.
#[inline(always)]
fn failed(entered: u64, now: u64) {
    let thread = threads::current();
    // SAFETY: one word of a map value.
    if FAILED.get_ptr(&thread).is_some_and(|last| unsafe { *last } >= entered) {
        return;
    }
    count(Counter::FailedAllocations, 1);
    let _ = FAILED.insert(&thread, &now, BPF_ANY as u64);
}

/// The block handed to a realloc is gone.
#[inline(always)]
fn settle(call: &PendingCall) {
    if call.old_key == 0 {
        count(Counter::UnmatchedFrees, 1);
    } else if is_known(call.old_key) {
        account::freed(&call.old, threads::frees_its_last(call.old_key));
    }
}

/// The block handed to a realloc is as it was.
#[inline(always)]
fn keep(call: &PendingCall) {
    if is_known(call.old_key) {
        account::put_back(call.old_key, &call.old);
    }
}

/// One program for entry and return: uprobe sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn alloc_session(ctx: *mut c_void) -> u32 {
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    let registers = unsafe { &*ctx.cast::<pt_regs>() };
    let cookie = session_cookie(ctx);
    if session_is_return(ctx) {
        // SAFETY: the kernel's eight bytes for this call.
        returned::<true>(function, registers, Carried(unsafe { *cookie }));
        return 0;
    }
    entered(function, registers, called(registers), Some(cookie))
}

/// Entry without sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn alloc_entry(ctx: *mut c_void) -> u32 {
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    let registers = unsafe { &*ctx.cast::<pt_regs>() };
    entered(function, registers, called(registers), None);
    0
}

/// Return without sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uretprobe")]
extern "C" fn alloc_return(ctx: *mut c_void) -> u32 {
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    returned::<true>(function, unsafe { &*ctx.cast::<pt_regs>() }, Carried::NOTHING);
    0
}

/// The same without Python's frames, for kernels that have no stack for them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uretprobe")]
extern "C" fn alloc_return_small(ctx: *mut c_void) -> u32 {
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    returned::<false>(function, unsafe { &*ctx.cast::<pt_regs>() }, Carried::NOTHING);
    0
}

/// Does nothing: what a hit of it costs is what every hit costs at least.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn empty(_ctx: *mut c_void) -> u32 {
    0
}
