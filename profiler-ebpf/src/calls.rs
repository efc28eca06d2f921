//! What a probe does when the target enters an allocator function, and when the function returns.
//!
//! The attach cookie says which kind of function it is and whose. With uprobe sessions (kernel 6.13) one program runs
//! at both ends, and the kernel carries the size from the entry to the return; otherwise, and for calls that carry more
//! than a size, the call waits in `PENDING` under its thread and stack pointer, so that nested calls do not meet.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, bpf_pidns_info, pt_regs},
    helpers::generated::{
        bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_get_ns_current_pid_tgid, bpf_ktime_get_ns,
        bpf_probe_read_user,
    },
};

use crate::{
    account,
    counters::Counter,
    maps::{
        FAILED, PENDING, REALLOCATING, STATE, closed, count, max_size, min_size, pid_namespace_device,
        pid_namespace_inode, target_pid,
    },
    opaque,
    records::{
        CLOSED_BY_EXEC, CallKind, KFUNC_SESSION_COOKIE, KFUNC_SESSION_IS_RETURN, PendingCall, PendingKey,
        STATE_CLOSED,
    },
};

/// What the kernel carries from a session's entry to its return: the size in the low 40 bits, the time of the entry in
/// units of 1,024 ns in the high 24. A call that does not fit waits in `PENDING`.
#[derive(Clone, Copy)]
struct Carried(u64);

impl Carried {
    const NOTHING: Self = Self(u64::MAX);
    const SIZE_BITS: u32 = 40;
    const UNIT_SHIFT: u32 = 10;

    #[inline(always)]
    fn pack(size: u64, now: u64) -> Self {
        if size >> Self::SIZE_BITS != 0 {
            return Self::NOTHING;
        }
        Self(size | now >> Self::UNIT_SHIFT << Self::SIZE_BITS)
    }

    #[inline(always)]
    fn size(self) -> u64 {
        self.0 & ((1 << Self::SIZE_BITS) - 1)
    }

    /// The time of the entry, rounded down to a unit; `now` resolves the missing high bits. A call longer than 17
    /// seconds is taken to have begun later than it did.
    #[inline(always)]
    fn entered(self, now: u64) -> u64 {
        let elapsed = ((now >> Self::UNIT_SHIFT << Self::SIZE_BITS)
            .wrapping_sub(self.0 & !((1 << Self::SIZE_BITS) - 1)))
            >> Self::SIZE_BITS;
        (now >> Self::UNIT_SHIFT).wrapping_sub(elapsed) << Self::UNIT_SHIFT
    }
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// A session's answer at the entry: run again at the return.
const RUN_AT_RETURN: u32 = 0;
/// A session's answer at the entry: this call is of no interest.
const SKIP_RETURN: u32 = 1;

const MALLOC: u8 = CallKind::Malloc as u8;
const CALLOC: u8 = CallKind::Calloc as u8;
const REALLOC: u8 = CallKind::Realloc as u8;
const POSIX_MEMALIGN: u8 = CallKind::PosixMemalign as u8;
const REALLOCARRAY: u8 = CallKind::Reallocarray as u8;

/// Where the kernel keeps eight bytes from a session's entry to its return (`bpf_session_cookie`). The loader turns
/// the placeholder call into a call of the kernel function.
#[inline(always)]
fn session_cookie(ctx: *mut c_void) -> *mut u64 {
    let call: extern "C" fn(*mut c_void) -> *mut u64 =
        // SAFETY: not an address but the number of a call, as every BPF helper is written.
        unsafe { core::mem::transmute(KFUNC_SESSION_COOKIE as usize) };
    call(ctx)
}

/// Whether a session program runs at the return (`bpf_session_is_return`).
#[inline(always)]
fn session_is_return(ctx: *mut c_void) -> bool {
    let call: extern "C" fn(*mut c_void) -> bool =
        // SAFETY: as above.
        unsafe { core::mem::transmute(KFUNC_SESSION_IS_RETURN as usize) };
    call(ctx)
}

/// Kind of the function and index of its allocator.
#[inline(always)]
fn function(ctx: *mut c_void) -> (u8, u8) {
    // SAFETY: the context that the kernel passed.
    let cookie = unsafe { bpf_get_attach_cookie(ctx) };
    (cookie as u8, (cookie >> 8) as u8)
}

/// Bytes asked for by a call at its entry; what overflows is taken as too much to be served.
#[inline(always)]
fn requested(kind: u8, registers: &pt_regs) -> u64 {
    match kind {
        MALLOC => registers.rdi,
        CALLOC => product(registers.rdi, registers.rsi),
        REALLOCARRAY => product(registers.rsi, registers.rdx),
        POSIX_MEMALIGN => registers.rdx,
        _ => registers.rsi,
    }
}

/// `a * b`, or the largest number if that overflows: such a call returns no memory.
#[inline(always)]
fn product(a: u64, b: u64) -> u64 {
    // Where both factors fit 32 bits, which is nearly always, no division is needed. The quotient is hidden from the
    // compiler, which would make a 128-bit product of it that BPF does not have.
    if (a | b) >> 32 == 0 || a == 0 || b <= opaque(u64::MAX / a) { a.wrapping_mul(b) } else { u64::MAX }
}

#[inline(always)]
fn wanted(size: u64) -> bool {
    size >= min_size() && size <= max_size()
}

#[inline(always)]
fn pending_key(sp: u64, kind: u8, allocator: u8) -> PendingKey {
    PendingKey { sp: sp | kind as u64, pid_tgid: thread() | (allocator as u64) << 56 }
}

/// Process and thread, as the kernel's first pid namespace has them.
#[inline(always)]
fn thread() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_pid_tgid() }
}

/// The entry of a function whose block is known at its return. `in_cookie` takes the size where the kernel carries it.
#[inline(always)]
fn entered(kind: u8, allocator: u8, registers: &pt_regs, in_cookie: Option<*mut u64>) -> u32 {
    count(Counter::ProbeHits, 1);
    if closed() {
        return SKIP_RETURN;
    }
    let size = requested(kind, registers);
    let reallocates = kind == REALLOC || kind == REALLOCARRAY;
    if !reallocates {
        if !wanted(size) {
            count(Counter::FilteredAllocations, 1);
            return SKIP_RETURN;
        }
        if let Some(cookie) = in_cookie {
            let carried = if kind == POSIX_MEMALIGN { Carried::NOTHING } else { Carried::pack(size, now()) };
            // SAFETY: the kernel's eight bytes for this call.
            unsafe { *cookie = carried.0 };
            if carried.0 != Carried::NOTHING.0 {
                return RUN_AT_RETURN;
            }
        }
    } else if let Some(cookie) = in_cookie {
        // SAFETY: as above.
        unsafe { *cookie = Carried::NOTHING.0 };
    }
    let mut call = PendingCall::EMPTY;
    call.size = size;
    call.entered = now();
    call.pointer = registers.rdi;
    if reallocates && call.pointer != 0 {
        if let Some(old) = account::take(call.pointer) {
            call.old = old;
            call.has_old = 1;
        }
        // Without room a free inside the call counts as unmatched, no more.
        let _ = REALLOCATING.insert(&call.pointer, &thread(), BPF_ANY as u64);
    }
    if PENDING.insert(&pending_key(registers.rsp, kind, allocator), &call, BPF_ANY as u64).is_err() {
        count(Counter::PendingMapFull, 1);
        let _ = REALLOCATING.remove(&call.pointer);
        // The outcome will not be seen: the block stays as it was known.
        if call.has_old != 0 {
            account::put_back(call.pointer, &call.old);
        }
        return SKIP_RETURN;
    }
    RUN_AT_RETURN
}

/// The return of such a function, with what the kernel carried for it.
#[inline(always)]
fn returned(kind: u8, allocator: u8, registers: &pt_regs, carried: Carried) {
    count(Counter::ProbeHits, 1);
    if closed() {
        return;
    }
    let mut address = registers.rax;
    if carried.0 != Carried::NOTHING.0 {
        let now = now();
        if address == 0 {
            failed(carried.entered(now), now);
        } else {
            account::enter(registers, allocator, address, carried.size(), carried.entered(now), now);
        }
        return;
    }
    // The return address has been taken off the stack since the entry.
    let key = pending_key(registers.rsp.wrapping_sub(8), kind, allocator);
    let Some(call) = PENDING.get_ptr(&key) else {
        count(Counter::UnpairedReturn, 1);
        return;
    };
    // SAFETY: copied at once; the key is this thread's own.
    let call = unsafe { *call };
    let _ = PENDING.remove(&key);
    let reallocates = kind == REALLOC || kind == REALLOCARRAY;
    if reallocates && call.pointer != 0 {
        let _ = REALLOCATING.remove(&call.pointer);
    }
    if kind == POSIX_MEMALIGN {
        // The address is stored only where the call succeeds, which is when it returns 0.
        let out = (&raw mut address).cast();
        // SAFETY: the helper checks the user address.
        if registers.rax as u32 != 0 || unsafe { bpf_probe_read_user(out, 8, call.pointer as *const _) } != 0
        {
            address = 0;
        }
    }
    if address == 0 {
        // realloc(block, 0) frees the block and returns nothing; any other call that returns nothing has failed.
        if reallocates && call.pointer != 0 && call.size == 0 {
            settle(&call);
            return;
        }
        failed(call.entered, now());
        if call.has_old != 0 {
            account::put_back(call.pointer, &call.old);
        }
        return;
    }
    if reallocates && call.pointer != 0 {
        settle(&call);
        if !wanted(call.size) {
            count(Counter::FilteredAllocations, 1);
            return;
        }
    }
    account::enter(registers, allocator, address, call.size, call.entered, now());
}

/// Counts a call that returned no memory, unless a call inside it has been counted for that already.
#[inline(always)]
fn failed(entered: u64, now: u64) {
    let thread = thread();
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
    if call.has_old != 0 {
        account::freed(&call.old);
    } else {
        count(Counter::UnmatchedFrees, 1);
    }
}

/// One program for entry and return: uprobe sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn alloc_session(ctx: *mut c_void) -> u32 {
    let (kind, allocator) = function(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    let registers = unsafe { &*ctx.cast::<pt_regs>() };
    let cookie = session_cookie(ctx);
    if session_is_return(ctx) {
        // SAFETY: the kernel's eight bytes for this call.
        returned(kind, allocator, registers, Carried(unsafe { *cookie }));
        return 0;
    }
    entered(kind, allocator, registers, Some(cookie))
}

/// Entry without sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn alloc_entry(ctx: *mut c_void) -> u32 {
    let (kind, allocator) = function(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    entered(kind, allocator, unsafe { &*ctx.cast::<pt_regs>() }, None);
    0
}

/// Return without sessions.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uretprobe")]
extern "C" fn alloc_return(ctx: *mut c_void) -> u32 {
    let (kind, allocator) = function(ctx);
    // SAFETY: the context of a uprobe is the target's registers.
    returned(kind, allocator, unsafe { &*ctx.cast::<pt_regs>() }, Carried::NOTHING);
    0
}

/// Entry of `free` and its kin.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn free_entry(ctx: *mut c_void) -> u32 {
    count(Counter::ProbeHits, 1);
    // SAFETY: the context of a uprobe is the target's registers.
    let address = unsafe { &*ctx.cast::<pt_regs>() }.rdi;
    if address == 0 || closed() {
        return 0;
    }
    // A realloc that frees its block itself has taken it out of the ledger already.
    // SAFETY: one word of a map value.
    let reallocating = || REALLOCATING.get_ptr(&address).is_some_and(|by| unsafe { *by } == thread());
    if !account::forget(address) && !reallocating() {
        count(Counter::UnmatchedFrees, 1);
    }
    0
}

/// Does nothing: what a hit of it costs is what every hit costs at least.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn empty(_ctx: *mut c_void) -> u32 {
    0
}

/// Closes the ledger when the target replaces its program: its blocks are gone, and what comes is another program.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/sched_process_exec")]
extern "C" fn on_exec(_ctx: *mut c_void) -> u32 {
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the helper fills `ids`.
    let answer = unsafe {
        bpf_get_ns_current_pid_tgid(
            pid_namespace_device(),
            pid_namespace_inode(),
            &raw mut ids,
            size_of::<bpf_pidns_info>() as u32,
        )
    };
    if answer == 0
        && ids.tgid == target_pid()
        && let Some(closed) = STATE.get_ptr_mut(STATE_CLOSED)
    {
        // SAFETY: one aligned word, a map value.
        unsafe { core::ptr::write_volatile(closed, CLOSED_BY_EXEC) };
    }
    0
}
