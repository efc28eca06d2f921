//! What the target tells of its allocations by USDT probes of its own: `otel_memory:alloc(pointer, size, weighted_bytes)` and
//! `otel_memory:free(pointer)`, the contract of OpenTelemetry's eBPF profiler. It samples itself, and says of each block how
//! many bytes it stands for.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::pt_regs,
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user},
};

use crate::{
    account,
    calls::wanted,
    counters::Counter,
    function::Function,
    maps::{TOLD_PLACES, count, deaf},
    pools::register,
    told::{Argument, MOST_SPACE, TOLD, pack},
    walk::Place,
};

/// The argument with this number of the probe that was hit; `None` where it cannot be read.
#[inline(always)]
fn argument(function: Function, registers: &pt_regs, number: usize) -> Option<u64> {
    let place = TOLD_PLACES.get((function.0 >> 16) as u32 & 0xffff)?;
    let Argument { offset, kind, register: base, index, shift, bytes, signed, .. } = place.arguments[number];
    let mut value = offset as u64;
    if kind != Argument::CONSTANT {
        let base = register(registers, base as u64);
        if kind == Argument::REGISTER {
            value = base;
        } else {
            let mut address = base.wrapping_add(offset as u64);
            if kind == Argument::INDEXED {
                address = address.wrapping_add(register(registers, index as u64) << (shift as u64 & 3));
            }
            let read = |out: *mut u64, bytes: u32| {
                // SAFETY: the helper checks the user address, and writes so many bytes of eight.
                unsafe { bpf_probe_read_user(out.cast(), bytes, address as *const _) == 0 }
            };
            value = 0;
            let is_read = match bytes {
                1 => read(&raw mut value, 1),
                2 => read(&raw mut value, 2),
                4 => read(&raw mut value, 4),
                _ => read(&raw mut value, 8),
            };
            if !is_read {
                return None;
            }
        }
    }
    let unused = (64 - bytes as u64 * 8) & 63;
    Some(if signed != 0 { ((value << unused) as i64 >> unused) as u64 } else { value << unused >> unused })
}

/// A block that was allocated.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn told_alloc(ctx: *mut c_void) -> u32 {
    count(Counter::ProbeHits, 1);
    if deaf() {
        return 0;
    }
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    let registers = unsafe { &*ctx.cast::<pt_regs>() };
    let told = (
        argument(function, registers, 0),
        argument(function, registers, 1),
        argument(function, registers, 2),
    );
    let (Some(address), Some(size), Some(space)) = told else {
        count(Counter::ToldLost, 1);
        return 0;
    };
    if address == 0 || address >> 63 != 0 || size > MOST_SPACE || space > MOST_SPACE || space == 0 {
        count(Counter::ToldLost, 1);
        return 0;
    }
    if !wanted(size) {
        count(Counter::FilteredAllocations, 1);
        return 0;
    }
    let mut place = Place::of(registers);
    // As if the probe's instruction were a call: it is the byte before the return address that is looked up.
    place.ip = place.ip.wrapping_add(1);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    account::enter_at::<true>(&place, function, address, size, TOLD | pack(space) << 32, now, now);
    0
}

/// A block that is being freed.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn told_free(ctx: *mut c_void) -> u32 {
    count(Counter::ProbeHits, 1);
    if deaf() {
        return 0;
    }
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    let registers = unsafe { &*ctx.cast::<pt_regs>() };
    match argument(function, registers, 0) {
        None => count(Counter::ToldLost, 1),
        Some(0) => {}
        Some(address) => {
            if !account::forget(function, address) {
                count(Counter::UnmatchedFrees, 1);
            }
        }
    }
    0
}
