//! What a probe does when the target enters mmap, munmap, mremap or brk, and when they return: it tells the user side.
//!
//! Both ends of a call are told, with what is known there; the user side finds the pairs, and keeps the account. These
//! functions are system calls, so that the cost of a record does not matter as it does for malloc.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, pt_regs},
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output},
};

use crate::{
    account,
    counters::Counter,
    function::Function,
    mapping_records::{MAPPING_SITE, MappingEvent, RETURNS},
    maps::{MAPPING_EVENTS, closed, count},
    records::CallKind,
    session::{RUN_AT_RETURN, SKIP_RETURN, session_is_return},
    threads,
    walk::Place,
};

/// What the kernel returns for a call that failed is above this (`IS_ERR_VALUE` of include/linux/err.h), and so is the -1
/// of the C libraries.
const LAST_ADDRESS: u64 = u64::MAX - 4095;

/// What both ends of a call tell.
#[inline(always)]
fn event(call: u32, sp: u64) -> MappingEvent {
    MappingEvent {
        call,
        flags: 0,
        thread: threads::current(),
        sp,
        // SAFETY: a helper without arguments.
        time: unsafe { bpf_ktime_get_ns() },
        address: 0,
        length: 0,
        new_length: 0,
        site: 0,
    }
}

/// Sends a record; whether the ring buffer had room.
#[inline(always)]
fn send(event: &mut MappingEvent) -> bool {
    // SAFETY: a whole record, on the stack.
    let sent = unsafe {
        bpf_ringbuf_output(
            (&raw const MAPPING_EVENTS).cast_mut().cast(),
            (&raw mut *event).cast(),
            size_of::<MappingEvent>() as u64,
            BPF_RB_NO_WAKEUP as u64,
        ) == 0
    };
    if !sent {
        count(Counter::MappingRecordLost, 1);
    }
    sent
}

/// The entry: `mmap(address, length, prot, flags, …)`, `munmap(address, length)`,
/// `mremap(address, length, new_length, flags, new_address)` and `brk(address)`.
#[inline(always)]
fn entered(function: Function, registers: &pt_regs) -> u32 {
    count(Counter::ProbeHits, 1);
    if closed() {
        return SKIP_RETURN;
    }
    let mut event = event(function.0 as u8 as u32, registers.rsp);
    event.address = registers.rdi;
    event.length = registers.rsi;
    if !function.is(CallKind::Unmap) {
        event.new_length = registers.rdx;
        event.flags = registers.rcx as u32;
    }
    if function.is(CallKind::Remap) {
        event.site = registers.r8;
    }
    if send(&mut event) { RUN_AT_RETURN } else { SKIP_RETURN }
}

/// The return. What maps memory has a site, if it succeeds.
#[inline(always)]
fn returned<const PYTHON: bool>(function: Function, registers: &pt_regs) {
    count(Counter::ProbeHits, 1);
    if closed() {
        return;
    }
    // The return address has been taken off the stack since the entry.
    let mut event = event(function.0 as u8 as u32 | RETURNS, registers.rsp.wrapping_sub(8));
    event.address = registers.rax;
    if !function.is(CallKind::Unmap) && registers.rax < LAST_ADDRESS {
        event.site = account::site::<PYTHON>(&Place::of(registers), MAPPING_SITE).0;
    }
    send(&mut event);
}

/// One program for entry and return: uprobe sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn mapping_session(ctx: *mut c_void) -> u32 {
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    let registers = unsafe { &*ctx.cast::<pt_regs>() };
    if session_is_return(ctx) {
        returned::<true>(function, registers);
        return 0;
    }
    entered(function, registers)
}

/// Entry without sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn mapping_entry(ctx: *mut c_void) -> u32 {
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    entered(function, unsafe { &*ctx.cast::<pt_regs>() });
    0
}

/// Return without sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uretprobe")]
extern "C" fn mapping_return(ctx: *mut c_void) -> u32 {
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    returned::<true>(function, unsafe { &*ctx.cast::<pt_regs>() });
    0
}

/// The same without Python's frames, for kernels that have no stack for them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uretprobe")]
extern "C" fn mapping_return_small(ctx: *mut c_void) -> u32 {
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    returned::<false>(function, unsafe { &*ctx.cast::<pt_regs>() });
    0
}
