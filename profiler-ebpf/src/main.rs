//! The BPF side of heapscope: probes on the target's allocators keep a ledger of live blocks in BPF maps.
//!
//! - `calls`: what a probe does at the entry and at the return of an allocator function;
//! - `frees`: what it does at the entry of one that frees;
//! - `function`: which function it is, and its arguments;
//! - `life`: the target's exit and exec;
//! - `session`: what the kernel carries from the one to the other;
//! - `sites`: the same on single calls of such a function;
//! - `tells`: what the target tells by probes of its own;
//! - `account`: live blocks and sites;
//! - `live`: the table of live blocks;
//! - `moments`: what the sites held at the peak and at the target's exit;
//! - `threads`: names of threads, and what each allocated last;
//! - `mappings`: calls of mmap, munmap, mremap and brk;
//! - `growth`: page faults;
//! - `walk`: the stack, by unwind tables, without frame pointers;
//! - `python`: the interpreter's frames, by its own links;
//! - `python_code`: what its code objects say, and when they die;
//! - `pools`: the pools that pymalloc opens;
//! - `sampler`: which allocations are recorded;
//! - `search`: the tables that the walk asks;
//! - `rule_cache`: what it has found in them;
//! - `memo`: a stack met before is recognised without a search;
//! - `maps`: every BPF map and every constant set at load.
//!
//! The programs here are loaded in one of three ways (session, multi, perf), so the section names say only `uprobe`;
//! the user side decides. Uprobe programs are preemptible and may migrate between runs: nothing here assumes that a
//! per-CPU slot is its own; scratch memory is claimed, counters are atomic.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "core offers no atomic read-modify-write on BPF but its intrinsics")]

mod account;
mod calls;
mod frees;
mod function;
mod growth;
mod life;
mod live;
mod mappings;
mod maps;
mod memo;
mod moments;
mod pools;
mod python;
mod python_code;
mod rule_cache;
mod sampler;
mod search;
mod session;
mod sites;
mod tells;
mod threads;
mod walk;

#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/blocks.rs"]
mod blocks;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/control.rs"]
mod control;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/counters.rs"]
mod counters;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/growth.rs"]
mod growth_records;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/limits.rs"]
mod limits;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/mappings.rs"]
mod mapping_records;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/pending.rs"]
mod pending;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/pools.rs"]
mod pool_records;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/python.rs"]
mod python_records;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/records.rs"]
mod records;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/sampling.rs"]
mod sampling;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/tables.rs"]
mod tables;
#[allow(dead_code, reason = "part of it is for the user side")]
#[path = "../../profiler-common/src/told.rs"]
mod told;

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

/// The helpers that heapscope calls are open to GPL-compatible programs only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";
