//! The account at its peak, and at the target's exit: noted site by site, when a site changes for the first time after the
//! moment. So a moment costs nothing when it comes, and all sites are of the same moment.
//!
//! Where other CPUs count at the very moment of a peak, what they are counting may be taken to belong to it or not.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;

use crate::{
    maps::{MOMENTS, atomic_add, atomic_exchange_if, atomic_fetch_add_wide},
    records::{Moments, SiteCounters},
};

#[inline(always)]
fn moments() -> Option<*mut Moments> {
    MOMENTS.get_ptr_mut(0)
}

/// Notes what a site holds for the moments that have come since it last changed. To be called before each change.
#[inline(always)]
pub fn note(site: *mut SiteCounters) {
    let Some(moments) = moments() else { return };
    // SAFETY: fields of map values that were just looked up. Two threads that note the same site at the same time write
    // the same, but for what one of them is counting.
    unsafe {
        let number = core::ptr::read_volatile(&raw const (*moments).peak_number) as u32;
        if (*site).peak_number != number {
            (*site).peak = (*site).held();
            (*site).peak_number = number;
        }
        if (*moments).exit_time != 0 && (*site).exit_noted == 0 {
            (*site).exit = (*site).held();
            (*site).exit_noted = 1;
        }
    }
}

/// So many bytes more live.
#[inline(always)]
pub fn grown(bytes: u64, now: u64) {
    let Some(moments) = moments() else { return };
    // SAFETY: as above.
    unsafe {
        let live = atomic_fetch_add_wide(&raw mut (*moments).live, bytes).wrapping_add(bytes);
        // Another CPU may have raised the peak in between; whoever is higher has the last word.
        for _ in 0..2 {
            let peak = core::ptr::read_volatile(&raw const (*moments).peak);
            if live <= peak {
                return;
            }
            if atomic_exchange_if(&raw mut (*moments).peak, peak, live) {
                (*moments).peak_time = now;
                atomic_add(&raw mut (*moments).peak_number, 1);
                return;
            }
        }
    }
}

/// So many bytes less live.
#[inline(always)]
pub fn shrunk(bytes: u64) {
    if let Some(moments) = moments() {
        // SAFETY: as above.
        atomic_add(unsafe { &raw mut (*moments).live }, bytes.wrapping_neg());
    }
}

/// So many bytes were counted for a call inside a call, which counts as the outer one: they were never live. If they made
/// the peak, the outer call is to make it again.
#[inline(always)]
pub fn withdrawn(bytes: u64) {
    let Some(moments) = moments() else { return };
    // SAFETY: as above.
    unsafe {
        let live = core::ptr::read_volatile(&raw const (*moments).live);
        let _ = atomic_exchange_if(&raw mut (*moments).peak, live, live.wrapping_sub(bytes));
    }
    shrunk(bytes);
}

/// The target calls `exit`.
#[inline(always)]
pub fn exits() {
    let Some(moments) = moments() else { return };
    // SAFETY: as above; a helper without arguments.
    unsafe {
        if (*moments).exit_time == 0 {
            (*moments).exit_time = bpf_ktime_get_ns();
        }
    }
}
