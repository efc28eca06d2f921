//! What is known of the thread at hand: its name, and which block it allocated last.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_current_comm, bpf_get_current_pid_tgid},
};

use crate::{
    limits::THREAD_SLOTS,
    maps::{STATE, THREAD_NAMES, THREADS, atomic_fetch_add},
    records::{MAX_THREAD_NAMES, NO_NAME, STATE_NAMES, ThreadName, ThreadState},
};

/// Process and thread, as the kernel's first pid namespace has them.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_pid_tgid() }
}

#[inline(always)]
fn state_of(thread: u64) -> Option<*mut ThreadState> {
    THREADS.get_ptr_mut(thread as u32 & (THREAD_SLOTS - 1))
}

/// Whether a word of `ThreadState::owner` is about this thread.
#[inline(always)]
fn is_of(owner: u64, thread: u64) -> bool {
    owner >> 32 == thread & 0xffff_ffff
}

/// Notes what this thread allocates at `now`; the number of its name. A thread may rename itself at any time, so the name
/// is read anew every millisecond.
#[inline(always)]
pub fn allocates(key: u64, now: u64) -> u64 {
    let thread = current();
    let Some(state) = state_of(thread) else { return NO_NAME };
    let time = now >> 20 & 0xffff;
    // SAFETY: words of a map value.
    unsafe {
        let mut owner = core::ptr::read_volatile(&raw const (*state).owner);
        if !is_of(owner, thread) || owner & 0xffff != time {
            owner = thread << 32 | name() << 16 | time;
            core::ptr::write_volatile(&raw mut (*state).owner, owner);
        }
        (*state).last = key;
        owner >> 16 & 0xffff
    }
}

/// Notes that the thread at hand allocates a block that is not recorded.
#[inline(always)]
pub fn allocates_another(thread: u64) {
    if let Some(state) = state_of(thread) {
        // SAFETY: a word of a map value. Where it is of another thread, that one loses a temporary block at most.
        unsafe { (*state).last = 0 };
    }
}

/// Whether the block that this thread frees is the one that it allocated last.
#[inline(always)]
pub fn frees_its_last(key: u64) -> bool {
    let thread = current();
    let Some(state) = state_of(thread) else { return false };
    // SAFETY: words of a map value.
    unsafe {
        if (*state).last != key || !is_of((*state).owner, thread) {
            return false;
        }
        (*state).last = 0;
        true
    }
}

/// The number of the thread's name.
#[inline(always)]
fn name() -> u64 {
    let mut name: ThreadName = [0; 16];
    // SAFETY: the helper fills `name`, padded with NUL.
    if unsafe { bpf_get_current_comm(name.as_mut_ptr().cast(), size_of::<ThreadName>() as u32) } != 0 {
        return NO_NAME;
    }
    if let Some(number) = number_of(&name) {
        return number;
    }
    let Some(given) = STATE.get_ptr_mut(STATE_NAMES) else { return NO_NAME };
    // Two threads may take a number for the same new name; one of the numbers then stands for nothing.
    let number = atomic_fetch_add(given) as u64 + 1;
    if number <= MAX_THREAD_NAMES as u64 {
        let _ = THREAD_NAMES.insert(&name, &number, BPF_NOEXIST as u64);
    }
    number_of(&name).unwrap_or(NO_NAME)
}

#[inline(always)]
fn number_of(name: &ThreadName) -> Option<u64> {
    // SAFETY: one word of a map value.
    THREAD_NAMES.get_ptr(name).map(|number| unsafe { *number } & 0xffff)
}
