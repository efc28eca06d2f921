//! Probes on single calls of an allocator rather than on its functions: one on the call instruction, one behind it.
//!
//! At the call instruction the arguments are in the registers as at the function's entry, and the return address is not yet
//! on the stack; behind it the registers are those of the function's return. So the same account is kept, without a return
//! probe, and whoever else calls the function does not notice.

use core::ffi::c_void;

use aya_ebpf::bindings::pt_regs;

use crate::{calls, function::Function, sampler::CalledFrom, session::Carried};

/// On the instruction that calls.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn site_entry(ctx: *mut c_void) -> u32 {
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    let registers = unsafe { &*ctx.cast::<pt_regs>() };
    let from = CalledFrom { sp: registers.rsp.wrapping_sub(8), call: registers.rip, at_call_site: true };
    calls::entered(function, registers, from, None);
    0
}

/// Behind it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn site_return(ctx: *mut c_void) -> u32 {
    let function = Function::of(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    calls::returned::<true>(function, unsafe { &*ctx.cast::<pt_regs>() }, Carried::NOTHING);
    0
}
