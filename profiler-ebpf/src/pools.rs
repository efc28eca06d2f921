//! What a probe does when pymalloc opens a pool: it notes by which stack.
//!
//! The probe sits in the midst of the function that opens pools, behind the store that makes the pool one with a single
//! object. There is no probe on its return: that would hide the callers of what the function itself calls (mmap, malloc).

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, pt_regs},
    helpers::generated::{bpf_get_attach_cookie, bpf_ktime_get_ns, bpf_probe_read_user},
};

use crate::{
    account,
    counters::Counter,
    maps::{POOL_SITES, POOLS, atomic_add, closed, count},
    opaque,
    pool_records::{POOL_SITE, PoolCookie, PoolSample},
    walk::Place,
};

/// The smallest pool of any version, in bytes. Pools are aligned to their size.
const SMALLEST_POOL: u64 = 4096;

/// The register with this number.
#[inline(always)]
pub fn register(registers: &pt_regs, number: u64) -> u64 {
    let pt_regs { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, .. } =
        *registers;
    let all = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
    // SAFETY: masked to the array's length; the mask is hidden from the compiler, as in `function::Arguments`.
    unsafe { core::ptr::read_volatile(all.as_ptr().add(opaque(number & 15) as usize & 15)) }
}

/// A word of the target's stack.
#[inline(always)]
fn word_at(address: u64) -> Option<u64> {
    let mut word = 0u64;
    // SAFETY: the helper checks the user address, and fills `word`.
    let failed = unsafe { bpf_probe_read_user((&raw mut word).cast(), 8, address as *const _) } != 0;
    (!failed).then_some(word)
}

/// The registers as the function's caller has them once it has returned.
#[inline(always)]
fn at_return(registers: &pt_regs, cookie: PoolCookie) -> Option<pt_regs> {
    let [cfa, rbp, rbx] = cookie.distances();
    let cfa = registers.rsp.wrapping_add(cfa * 8);
    let kept = |distance: u64, now: u64| match distance {
        _ if distance == PoolCookie::NOT_SAVED as u64 => Some(now),
        _ if distance == PoolCookie::LOST as u64 => Some(0),
        _ => word_at(cfa.wrapping_sub(distance * 8)),
    };
    let mut caller = *registers;
    caller.rip = word_at(cfa.wrapping_sub(8))?;
    caller.rsp = cfa;
    caller.rbp = kept(rbp, registers.rbp)?;
    caller.rbx = kept(rbx, registers.rbx)?;
    Some(caller)
}

/// pymalloc has opened a pool.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn pool_opened(ctx: *mut c_void) -> u32 {
    count(Counter::ProbeHits, 1);
    if closed() {
        return 0;
    }
    count(Counter::PoolsOpened, 1);
    // SAFETY: the context of a uprobe is the target's registers.
    let registers = unsafe { &*ctx.cast::<pt_regs>() };
    // SAFETY: the context that the kernel passed.
    let cookie = PoolCookie(unsafe { bpf_get_attach_cookie(ctx) });
    let address = register(registers, cookie.register());
    let Some(caller) = at_return(registers, cookie) else {
        count(Counter::PoolLost, 1);
        return 0;
    };
    if address == 0 || address & (SMALLEST_POOL - 1) != 0 {
        count(Counter::PoolLost, 1);
        return 0;
    }
    let site = account::site::<true>(&Place::of(&caller), POOL_SITE).0;
    // SAFETY: a helper without arguments.
    let sample = PoolSample { site, time: unsafe { bpf_ktime_get_ns() } };
    let mut opened = POOL_SITES.get_ptr_mut(&site);
    if opened.is_none() {
        let _ = POOL_SITES.insert(&site, &0, BPF_NOEXIST as u64);
        opened = POOL_SITES.get_ptr_mut(&site);
    }
    if let Some(opened) = opened {
        atomic_add(opened, 1);
    }
    if opened.is_none() || POOLS.insert(&address, &sample, BPF_ANY as u64).is_err() {
        count(Counter::PoolLost, 1);
    }
    0
}
