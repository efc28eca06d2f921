//! What is noted of a page fault: by which stack, and on which page.
//!
//! The program runs behind the software events `page-faults-minor` and `page-faults-major`, which the kernel counts when a fault
//! is resolved (`mm_account_fault` of mm/memory.c): not for a fault that is tried again or ends in a signal, and for one that
//! the kernel makes on the target's behalf, as read(2) does when it fills a new buffer. The events are of the target's threads
//! alone, so that nobody else's faults come here.
//!
//! Where all faults would cost too much, pages are sampled: a fault on a page that is not in the sample is counted, and left
//! before the stack is taken.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_NOEXIST, bpf_perf_event_data, pt_regs},
    helpers::generated::{bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_task_pt_regs},
};

use crate::{
    account,
    counters::Counter,
    growth_records::{
        FAULT_PAGE_SHIFT, FAULT_SITE, LastFault, MAX_SAMPLING_SHIFT, SiteFaults, TouchedPage, is_chosen,
        is_in_chosen_block,
    },
    limits::THREAD_SLOTS,
    maps::{
        ALREADY_THERE, FAULT_SITES, LAST_FAULTS, TOUCHED, atomic_add, closed, control, count, task_faults,
    },
    threads,
    walk::Place,
};

/// Privilege level 3 in the code segment of saved registers: the thread was in user space.
const USER: u64 = 3;

/// A fault whose page was there, or could be made at once.
#[unsafe(no_mangle)]
#[unsafe(link_section = "perf_event")]
extern "C" fn minor_fault(ctx: *mut c_void) -> u32 {
    resolved(ctx, 0);
    0
}

/// A fault whose page had to be read.
#[unsafe(no_mangle)]
#[unsafe(link_section = "perf_event")]
extern "C" fn major_fault(ctx: *mut c_void) -> u32 {
    resolved(ctx, 1);
    0
}

#[inline(always)]
fn resolved(ctx: *mut c_void, major: u64) {
    if closed() || is_told_already() {
        return;
    }
    count(Counter::PageFaults, 1);
    // SAFETY: the context of a program behind a perf event.
    let event = unsafe { &*ctx.cast::<bpf_perf_event_data>() };
    let (address, in_user_space) = (event.addr, event.regs.cs & USER == USER);
    let page = address >> FAULT_PAGE_SHIFT;
    let shift = sampling_shift();
    let is_chosen = is_chosen(page, shift);
    if !is_chosen && !is_in_chosen_block(page, shift) {
        return;
    }
    count(Counter::PageFaultsSampled, 1);
    // A page of a chosen block says who owns a huge page, and nothing of others.
    let weight = (is_chosen as u64) << shift;
    let (site, _) = account::site::<true>(&Place::of(&registers(in_user_space)), FAULT_SITE);
    // SAFETY: a helper without arguments.
    let touched = TouchedPage { site, time: unsafe { bpf_ktime_get_ns() }, site_before: 0, time_before: 0 };
    let mut again = 0;
    if let Err(error) = TOUCHED.insert(&page, &touched, BPF_NOEXIST as u64) {
        if error == ALREADY_THERE {
            again = weight;
            count(Counter::PageFaultsAgain, weight);
            if let Some(known) = TOUCHED.get_ptr_mut(&page) {
                // SAFETY: a map value that was just looked up. Two threads that touch the same page anew at the same time do so
                // one after the other: the first one's fault brings it.
                unsafe {
                    (*known).site_before = (*known).site;
                    (*known).time_before = (*known).time;
                    (*known).site = touched.site;
                    (*known).time = touched.time;
                }
            }
        } else {
            count(Counter::TouchedPageLost, weight);
        }
    }
    let mut faults = FAULT_SITES.get_ptr_mut(&site);
    if faults.is_none() {
        let none = SiteFaults { faults: 0, again: 0, major: 0 };
        let _ = FAULT_SITES.insert(&site, &none, BPF_NOEXIST as u64);
        faults = FAULT_SITES.get_ptr_mut(&site);
    }
    let Some(faults) = faults else {
        count(Counter::SiteMapFull, 1);
        return;
    };
    // SAFETY: fields of a map value that was just looked up.
    unsafe {
        atomic_add(&raw mut (*faults).faults, weight);
        if again != 0 {
            atomic_add(&raw mut (*faults).again, again);
        }
        if major != 0 {
            atomic_add(&raw mut (*faults).major, weight);
        }
    }
}

/// log2 of the pages of which one is in the sample.
#[inline(always)]
fn sampling_shift() -> u64 {
    // SAFETY: a word of a map value, which the user side may write.
    let shift =
        control().map_or(0, |control| unsafe { core::ptr::read_volatile(&raw const control.current) });
    shift.min(MAX_SAMPLING_SHIFT)
}

/// Whether another event of the same thread has told of this fault. The kernel has counted it before it tells (`min_flt` and
/// `maj_flt` of `task_struct`), so that no two faults of a thread have the same number.
#[inline(always)]
fn is_told_already() -> bool {
    if task_faults() == 0 {
        return false;
    }
    let thread = threads::current();
    let Some(last) = LAST_FAULTS.get_ptr_mut(thread as u32 & (THREAD_SLOTS - 1)) else { return false };
    // SAFETY: words of the running thread's `task_struct`, at an offset that the verifier knows and holds against its type; a
    // read that fails answers 0.
    let [minor, major] = unsafe {
        let at = bpf_get_current_task_btf().cast::<u8>().wrapping_add(task_faults() as usize).cast::<u64>();
        [core::ptr::read_volatile(at), core::ptr::read_volatile(at.wrapping_add(1))]
    };
    let now = LastFault { thread, count: minor.wrapping_add(major) };
    // SAFETY: a map value; it is written by this thread, or by one with the same low bits.
    unsafe {
        if (*last).thread == now.thread && (*last).count == now.count {
            return true;
        }
        *last = now;
    }
    false
}

/// The target's registers as a walk wants them that begins behind a call: where an instruction was interrupted, it is the byte
/// behind its first one, so that looking up the byte before finds the instruction itself. In a system call, the thread's
/// instruction pointer is behind the call already.
#[inline(always)]
fn registers(in_user_space: bool) -> pt_regs {
    // SAFETY: the kernel answers where it has saved the user-space registers of the thread at hand, and the verifier knows that.
    let saved = unsafe { &*(bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs) };
    pt_regs {
        rip: saved.rip.wrapping_add(in_user_space as u64),
        rsp: saved.rsp,
        rbp: saved.rbp,
        rbx: saved.rbx,
        ..EMPTY
    }
}

const EMPTY: pt_regs = pt_regs {
    r15: 0,
    r14: 0,
    r13: 0,
    r12: 0,
    rbp: 0,
    rbx: 0,
    r11: 0,
    r10: 0,
    r9: 0,
    r8: 0,
    rax: 0,
    rcx: 0,
    rdx: 0,
    rsi: 0,
    rdi: 0,
    orig_rax: 0,
    rip: 0,
    cs: 0,
    eflags: 0,
    rsp: 0,
    ss: 0,
};
