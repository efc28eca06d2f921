//! Which allocations are recorded where not all are, and what those stand for.
//!
//! A thread counts down the bytes to its next sample at the entry of each allocation; only one that is sampled goes on from
//! there. A call inside a call is part of the outer one, and is never recorded: the bytes that it takes off the distance do
//! no harm, because what is left of an exponential distance is distributed like a new one.

use aya_ebpf::{
    helpers::generated::{bpf_get_prandom_u32, bpf_probe_read_user},
    maps::Array,
};

use crate::{
    control::{EXACT, MAX_INTERVALS, MEASURE_ONLY},
    counters::Counter,
    function::Function,
    limits::{MAX_ALLOCATOR_FUNCTIONS, THREAD_SLOTS},
    maps::{ALLOCATOR_CODE, CALLER_CODE, SAMPLERS, control, count, only_callers, sampling as may_sample},
    opaque,
    records::LiveBlock,
    sampling::{self, AllocatorCode},
    threads, told,
};

/// What is known of a thread, an entry of the BPF map `SAMPLERS`. Threads whose ids are the same modulo its size share an
/// entry, one after the other.
#[repr(C)]
pub struct Sampler {
    /// The thread's id, and above it the number of the interval that its distance was drawn at.
    thread: u64,
    /// Bytes to its next sample.
    distance: u64,
    /// Where its last call found its return address.
    sp: u64,
    /// That return address, if the function may jump to another one.
    return_address: u64,
    /// The cookie of the function that it called.
    function: u64,
    /// Not 0 while it is in a call that was handed a recorded block.
    reallocating: u64,
}

/// Where a call comes from.
#[derive(Clone, Copy)]
pub struct CalledFrom {
    /// Where its return address lies, or will lie.
    pub sp: u64,
    /// The call instruction, where the probe sits on it; else it has been made.
    pub call: u64,
    /// Whether that is so.
    pub at_call_site: bool,
}

impl CalledFrom {
    /// The return address. Of a call that has not been made, an address that is not that of another call.
    #[inline(always)]
    fn return_address(self) -> u64 {
        if self.at_call_site {
            // No first instruction of a page, which would be taken for the kernel's trampoline.
            return self.call | 1;
        }
        let mut return_address = 0u64;
        // SAFETY: the helper checks the user address.
        unsafe { bpf_probe_read_user((&raw mut return_address).cast(), 8, self.sp as *const _) };
        return_address
    }
}

#[inline(always)]
fn sampler() -> Option<*mut Sampler> {
    SAMPLERS.get_ptr_mut(threads::current() as u32 & (THREAD_SLOTS - 1))
}

/// Number of the interval that is in force.
#[inline(always)]
fn current() -> u64 {
    if may_sample() == 0 {
        return EXACT;
    }
    // SAFETY: a word of a map value, which the user side may write.
    control().map_or(MEASURE_ONLY, |control| unsafe { core::ptr::read_volatile(&raw const control.current) })
}

/// Whether every block is recorded.
#[inline(always)]
pub fn records_all() -> bool {
    current() == EXACT
}

/// Notes whether this thread is in a call that was handed a recorded block.
#[inline(always)]
pub fn note_reallocating(is: bool) {
    if may_sample() != 0
        && let Some(sampler) = sampler()
    {
        // SAFETY: a word of a map value.
        unsafe { (*sampler).reallocating = is as u64 };
    }
}

/// Whether this thread may be in such a call; of threads that share an entry, the last one decides. A free in there that
/// does not ask the call for its block leaves it to the call's return to count it.
#[inline(always)]
pub fn may_be_reallocating() -> bool {
    // SAFETY: a word of a map value.
    records_all() || sampler().is_some_and(|sampler| unsafe { (*sampler).reallocating } != 0)
}

/// The number of the interval at which the block that this call is to return is recorded; `None` where it is not. The hit is
/// counted: as one that passed, or as a probe's.
#[inline(always)]
pub fn samples(function: Function, from: CalledFrom, size: u64) -> Option<u64> {
    let number = current();
    if number == EXACT {
        count(Counter::ProbeHits, 1);
        return Some(EXACT);
    }
    if number == MEASURE_ONLY {
        count(Counter::MeasuredAllocations, 1);
        count(Counter::MeasuredSpace, size);
        return None;
    }
    draws(function, from, if size == 0 { 1 } else { size }, number).then_some(number)
}

#[inline(always)]
fn draws(function: Function, from: CalledFrom, bytes: u64, number: u64) -> bool {
    let id = threads::current() & 0xffff_ffff;
    let thread = id | number << 32;
    let Some(sampler) = SAMPLERS.get_ptr_mut(id as u32 & (THREAD_SLOTS - 1)) else { return false };
    // SAFETY: a map value; a thread that shares it may make this one draw anew, which does no harm.
    let sampler = unsafe { &mut *sampler };
    let ours = sampler.thread & 0xffff_ffff == id;
    // What is left of a distance says nothing of one at another interval.
    let goes_on = sampler.thread == thread;
    // One function of an allocator has jumped into another: the call has been decided on. Where the first has a return
    // probe, be it another tracer's, the kernel has put its trampoline in the place of the return address, which is the
    // first instruction of a page (`xol_get_trampoline` of kernel/events/uprobes.c). To read the return address is dear, so it
    // is done where there may be a jump.
    let last = Function(sampler.function);
    let may_be_decided = ours && sampler.sp == from.sp && last.0 != function.0 && !last.returns();
    if may_be_decided || !function.returns() {
        let return_address = from.return_address();
        let same_return = sampler.return_address == return_address || return_address & 0xfff == 0;
        if may_be_decided && same_return {
            count(Counter::ProbeHits, 1);
            return false;
        }
        sampler.return_address = return_address;
    }
    sampler.thread = thread;
    sampler.sp = from.sp;
    sampler.function = function.0;
    let distance = if goes_on { sampler.distance } else { sample_distance(number) };
    if distance >= bytes {
        sampler.distance = distance - bytes;
        count(Counter::UnsampledAllocations, 1);
        count(Counter::UnsampledSpace, bytes);
        threads::allocates_another(id);
        return false;
    }
    count(Counter::ProbeHits, 1);
    sampler.distance = sample_distance(number);
    from.at_call_site || !is_of_an_allocator(from.return_address())
}

/// Whether a call that returns here was made by a function of an allocator.
#[inline(always)]
fn is_of_an_allocator(return_address: u64) -> bool {
    lies_in(&ALLOCATOR_CODE, return_address)
}

/// Whether a call that comes from there is one that was asked for.
#[inline(always)]
pub fn is_wanted_caller(function: Function, from: CalledFrom) -> bool {
    only_callers() == 0 || function.is_of_one_caller() || lies_in(&CALLER_CODE, from.return_address())
}

/// Whether a return address lies in one of these functions.
#[inline(always)]
fn lies_in(functions: &Array<AllocatorCode>, return_address: u64) -> bool {
    let Some(code) = functions.get_ptr(0) else { return false };
    let mut index = 0;
    while index < MAX_ALLOCATOR_FUNCTIONS {
        // SAFETY: a map value, and an index within its array.
        let (used, [begin, end]) = unsafe { ((*code).count, *(*code).functions.get_unchecked(index)) };
        if index as u64 >= used {
            return false;
        }
        // The return address of a call that never returns may lie behind the function.
        if return_address > begin && return_address <= end {
            return true;
        }
        index += 1;
    }
    false
}

/// The mean bytes of an interval.
#[inline(always)]
fn interval_of(number: u64) -> u64 {
    // SAFETY: masked to the array's length; the user side writes it before the number is used.
    control().map_or(0, |control| unsafe {
        *control.intervals.get_unchecked(opaque(number) as usize & (MAX_INTERVALS - 1))
    })
}

/// A distance to the next sample, in bytes. (A function of its own is verified once.)
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sample_distance(number: u64) -> u64 {
    // SAFETY: a helper without arguments.
    let uniform = unsafe { bpf_get_prandom_u32() };
    sampling::distance(interval_of(number), uniform)
}

/// The weight of a block of so many bytes, in units of 1 / [`sampling::ONE`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sample_weight(size: u64, number: u64) -> u64 {
    sampling::weight(interval_of(number), size)
}

/// Blocks and bytes that a block stands for.
#[inline(always)]
pub fn stands_for(block: &LiveBlock) -> (u64, u64) {
    if may_sample() == 0 {
        return (1, block.size);
    }
    if block.is_told() {
        return told::stands_for(block.size, block.thread);
    }
    let weight =
        if block.interval() == EXACT { sampling::ONE } else { sample_weight(block.size, block.interval()) };
    (weight, sampling::weighted_space(block.size, weight))
}
