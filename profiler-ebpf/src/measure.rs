//! The programs of `cargo xtask bench walk` and `bench cost`: the same probe with a stack taken in different ways, and nothing else.
//!
//! It has the maps and the programs of the real object by name, so that the same loader attaches it. Only the return probe
//! does anything: what it does is told by the allocator's number in the attach cookie ([`NOTHING`], [`KERNEL`], [`OURS`]).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "core offers no atomic read-modify-write on BPF but its intrinsics")]
#![allow(dead_code, reason = "the ledger is not measured here")]

mod account;
mod function;
mod live;
mod maps;
mod memo;
mod moments;
mod python;
mod python_code;
mod rule_cache;
mod sampler;
mod search;
mod threads;
mod walk;

#[path = "../../profiler-common/src/blocks.rs"]
mod blocks;
#[path = "../../profiler-common/src/control.rs"]
mod control;
#[path = "../../profiler-common/src/counters.rs"]
mod counters;
#[path = "../../profiler-common/src/growth.rs"]
mod growth_records;
#[path = "../../profiler-common/src/limits.rs"]
mod limits;
#[path = "../../profiler-common/src/pending.rs"]
mod pending;
#[path = "../../profiler-common/src/pools.rs"]
mod pool_records;
#[path = "../../profiler-common/src/python.rs"]
mod python_records;
#[path = "../../profiler-common/src/records.rs"]
mod records;
#[path = "../../profiler-common/src/sampling.rs"]
mod sampling;
#[path = "../../profiler-common/src/tables.rs"]
mod tables;
#[path = "../../profiler-common/src/told.rs"]
mod told;

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_F_REUSE_STACKID, BPF_F_USER_STACK, pt_regs},
    helpers::generated::{bpf_get_attach_cookie, bpf_get_stackid},
    macros::map,
    maps::StackTrace,
};

/// No stack at all: what every hit costs.
const NOTHING: u8 = 0;
/// The kernel's own walk by frame pointers, with its map of stacks.
const KERNEL: u8 = 1;
/// The walk by unwind tables, with the map of sites and the ring buffer.
const OURS: u8 = 2;

/// The kernel's map of stacks.
#[map]
static STACK_TRACES: StackTrace = StackTrace::with_max_entries(1 << 15, 0);

/// Takes a stack in the way that the cookie says.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uretprobe")]
extern "C" fn alloc_return(ctx: *mut c_void) -> u32 {
    // SAFETY: the context that the kernel passed.
    let way = (unsafe { bpf_get_attach_cookie(ctx) } >> 8) as u8;
    if way == KERNEL {
        let flags = (BPF_F_USER_STACK | BPF_F_REUSE_STACKID) as u64;
        // SAFETY: the context that the kernel passed, and a map of stacks.
        unsafe { bpf_get_stackid(ctx, (&raw const STACK_TRACES).cast_mut().cast(), flags) };
    } else if way == OURS {
        // SAFETY: the context of a uprobe is the target's registers.
        account::site::<true>(&walk::Place::of(unsafe { &*ctx.cast::<pt_regs>() }), 0);
    }
    0
}

/// Attached as the real one is, and does nothing.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn alloc_entry(_ctx: *mut c_void) -> u32 {
    0
}

/// Attached as the real one is, and does nothing at either end.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn alloc_session(_ctx: *mut c_void) -> u32 {
    0
}

/// Does nothing.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn free_entry(_ctx: *mut c_void) -> u32 {
    0
}

/// Never attached.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn exit_entry(_ctx: *mut c_void) -> u32 {
    0
}

/// Never attached.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn empty(_ctx: *mut c_void) -> u32 {
    0
}

/// Hides a value from the compiler, so that an index mask behind it is not optimised away before the verifier sees it.
#[inline(always)]
pub(crate) fn opaque(mut value: u64) -> u64 {
    // SAFETY: moves a register onto itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The helpers called here are open to GPL-compatible programs only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";
