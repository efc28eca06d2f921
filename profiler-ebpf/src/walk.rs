//! The stack walk: from an allocator's caller to the thread's first function, by the unwind tables.
//!
//! One program walks up to [`MAX_FRAMES`] frames. The target's stack is read page by page into claimed scratch memory.
//! `profiler/src/unwind/walk.rs` is the same walk in user space; the two must agree.

use core::intrinsics::{AtomicOrdering, atomic_xchg};

use aya_ebpf::{
    bindings::pt_regs,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_user},
};

use crate::{
    blocks::{SITE, SITE_OF_STACK},
    counters::Counter,
    limits::{MAX_FRAMES, MAX_MAPPINGS, PAGE_SHIFT, WINDOW_BYTES},
    maps::{MAPPINGS, RULES, SCRATCH, Scratch, count, generation, scratch_mask},
    opaque,
    records::walk_end,
    rule_cache::{self, Found},
    search::{find_mapping, find_rule},
    tables::{Rule, cfa, rbp, rbx},
};

/// A saved frame pointer further than this above rsp is not believed, in bytes.
const MAX_GUESSED_FRAME: u64 = 1 << 20;

/// The rule of an address that no table describes.
const NO_TABLE: Rule = Rule {
    cfa_offset: 0,
    rbp_offset: 0,
    rbx_offset: 0,
    cfa_kind: cfa::NONE,
    cfa_addend: 0,
    rbp_kind: rbp::SAME,
    rbx_kind: rbx::UNKNOWN,
};

/// What `step` answers: go on, or one more than the `walk_end` code.
const GO_ON: i64 = 0;
const fn end(code: u8) -> i64 {
    code as i64 + 1
}

/// Claims a scratch slot; `None` if all that may be tried are in use by walks that were preempted.
#[inline(always)]
pub fn claim() -> Option<u32> {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let mut attempt = 0;
    while attempt < 4 {
        let slot = (cpu * 4 + attempt) & scratch_mask();
        if let Some(scratch) = SCRATCH.get_ptr_mut(slot) {
            // SAFETY: the field of a map value that was just looked up.
            let before =
                unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(&raw mut (*scratch).claimed, 1) };
            if before == 0 {
                return Some(slot);
            }
        }
        attempt += 1;
    }
    None
}

/// Gives a slot back.
#[inline(always)]
pub fn release(scratch: *mut Scratch) {
    // SAFETY: the field of a map value. x86 keeps stores in order, so the writes of the walk come before it.
    unsafe { core::ptr::write_volatile(&raw mut (*scratch).claimed, 0) };
}

/// Reads one word of the target's stack, through the window: the rest of the page that holds the word. A read never
/// crosses into the next page, which near the top of a stack may not exist; a failed read would cost a page fault.
#[inline(always)]
pub fn read_stack(scratch: &mut Scratch, address: u64, out: &mut u64) -> bool {
    let distance = opaque(address.wrapping_sub(scratch.window_base));
    if distance & 7 == 0 && distance < scratch.window_len {
        // SAFETY: masked to the array's length.
        *out = unsafe { *scratch.window.get_unchecked((distance >> 3) as usize & (WINDOW_BYTES / 8 - 1)) };
        return true;
    }
    if fill_window(scratch, address, WINDOW_BYTES as u64) == 0 {
        return false;
    }
    *out = scratch.window[0];
    true
}

/// Reads so many bytes of the target's stack into the window, but not beyond the page that holds the first; how many there
/// are then, whole words, 0 where they could not be read.
#[inline(always)]
pub fn fill_window(scratch: &mut Scratch, address: u64, wanted: u64) -> u64 {
    scratch.window_len = 0;
    let left = opaque((WINDOW_BYTES as u64 - (address & (WINDOW_BYTES as u64 - 1))).min(wanted));
    if left < 8 || left > WINDOW_BYTES as u64 {
        // A word across two pages: no compiler puts one there.
        return 0;
    }
    // SAFETY: the helper checks the user address, and `left` is at most the window's length.
    if unsafe { bpf_probe_read_user(scratch.window.as_mut_ptr().cast(), left as u32, address as *const _) }
        != 0
    {
        return 0;
    }
    scratch.window_base = address;
    scratch.window_len = left & !7;
    left & !7
}

/// What holds at an address; `None` where it is in no mapping.
#[inline(always)]
fn look_up(scratch: &mut Scratch, address: u64) -> Option<Found> {
    if let Some(found) = rule_cache::recall(address, scratch.table) {
        return Some(found);
    }
    let table = MAPPINGS.get(scratch.table & 1)?;
    // SAFETY: masked to the array's length.
    let mut mapping =
        unsafe { table.ranges.get_unchecked(opaque(scratch.mapping as u64) as usize & (MAX_MAPPINGS - 1)) };
    if address < mapping.begin || address >= mapping.end {
        let found = find_mapping(address, scratch.table as u64);
        if found < 0 {
            return None;
        }
        scratch.mapping = found as u32;
        // SAFETY: masked to the array's length.
        mapping = unsafe { table.ranges.get_unchecked(opaque(found as u64) as usize & (MAX_MAPPINGS - 1)) };
    }
    let relative = address.wrapping_sub(mapping.bias);
    let page = relative >> PAGE_SHIFT;
    let mut found = Found { rule: NO_TABLE, first_page: mapping.first_page };
    if page < mapping.pages as u64 {
        let rule = find_rule(mapping.first_page as u64 + page, relative & ((1 << PAGE_SHIFT) - 1));
        if rule >= 0
            && let Some(known) = RULES.get(rule as u32)
        {
            found.rule = *known;
        }
    }
    rule_cache::remember(address, scratch.table, found);
    Some(found)
}

/// Records the frame at hand and finds its caller.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn walk_step(index: u64, slot: u64) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return end(walk_end::SCRATCH_BUSY) };
    // SAFETY: the slot is claimed by this walk.
    let scratch = unsafe { &mut *scratch };
    if index >= MAX_FRAMES as u64 {
        return end(walk_end::TRUNCATED);
    }
    let ip = scratch.ip;
    let at = opaque(index) as usize & (MAX_FRAMES - 1);
    // SAFETY: masked to the array's length.
    unsafe { *scratch.frames.get_unchecked_mut(at) = ip };
    scratch.head.frames = index as u16 + 1;
    let guessed = (scratch.guessing | scratch.uncertain) as u64 & 1;
    // SAFETY: masked to the array's length.
    unsafe {
        *scratch.head.guessed.get_unchecked_mut((at >> 6) & (MAX_FRAMES / 64 - 1)) |= guessed << (at & 63)
    };
    scratch.guessed_frames += guessed;
    scratch.hash = hash_frame(scratch.hash, ip, guessed);

    // A return address is the instruction behind the call: the call itself lies one byte earlier. An interrupted
    // instruction is looked up as it is.
    let looked_up = ip.wrapping_sub(1 - (scratch.interrupted as u64 & 1));
    scratch.interrupted = 0;
    let Some(Found { rule, first_page }) = look_up(scratch, looked_up) else {
        return end(walk_end::NO_MAPPING);
    };
    // Every file has pages of its own, so the same addresses in another file are another stack.
    scratch.modules = scratch.modules.rotate_left(5) ^ first_page as u64;

    let (sp, bp) = (scratch.sp, scratch.bp);
    scratch.guessing = 0;
    let mut word = 0u64;
    let cfa = match rule.cfa_kind {
        cfa::RSP => sp.wrapping_add(rule.cfa_offset as i64 as u64),
        cfa::RBP => bp.wrapping_add(rule.cfa_offset as i64 as u64),
        cfa::PLT => {
            let pushed = (looked_up & 15 >= rule.cfa_addend as u64) as u64 * 8;
            sp.wrapping_add(rule.cfa_offset as i64 as u64).wrapping_add(pushed)
        }
        cfa::RBX => {
            word = scratch.bx;
            if scratch.bx_at != 0 && !read_stack(scratch, scratch.bx_at, &mut word) {
                return end(walk_end::UNREADABLE);
            }
            // A memo knows nothing of rbx.
            scratch.forgettable = 1;
            word.wrapping_add(rule.cfa_offset as i64 as u64)
        }
        cfa::RBP_DEREF | cfa::RSP_DEREF => {
            let base = if rule.cfa_kind == cfa::RBP_DEREF { bp } else { sp };
            if !read_stack(scratch, base.wrapping_add(rule.cfa_offset as i64 as u64), &mut word) {
                return end(walk_end::UNREADABLE);
            }
            word.wrapping_add(rule.cfa_addend as u64)
        }
        cfa::GOROUTINE => {
            let (mut high, mut depth) = (0, 0);
            if !read_stack(scratch, sp.wrapping_add(rule.cfa_offset as i64 as u64), &mut word)
                || !read_stack(scratch, sp.wrapping_add(rule.rbx_offset as i64 as u64), &mut depth)
                || !read_stack(scratch, word.wrapping_add(rule.cfa_addend as u64), &mut high)
            {
                return end(walk_end::UNREADABLE);
            }
            high.wrapping_sub(depth).wrapping_add(8)
        }
        cfa::SIGNAL => return leave_signal_frame(scratch),
        cfa::END => return end(walk_end::COMPLETE),
        cfa::NONE => {
            // No table: a frame-pointer step, if the frame pointer is plausible at all.
            if bp < sp || bp - sp > MAX_GUESSED_FRAME || bp & 7 != 0 {
                return end(walk_end::NO_TABLE);
            }
            scratch.guessing = 1;
            bp.wrapping_add(16)
        }
        _ => return end(walk_end::UNSUPPORTED),
    };
    // Another stack may lie anywhere.
    if cfa <= sp && rule.cfa_kind != cfa::GOROUTINE {
        return end(walk_end::NOT_ADVANCING);
    }
    let saved_rbp = match rule.rbp_kind {
        _ if rule.cfa_kind == cfa::NONE => bp,
        rbp::AT_CFA => cfa.wrapping_add(rule.rbp_offset as i64 as u64),
        rbp::AT_RBP => bp.wrapping_add(rule.rbp_offset as i64 as u64),
        rbp::UNKNOWN => {
            // A frame that needs it will not advance, rather than be wrong.
            scratch.bp = 0;
            0
        }
        _ => 0,
    };
    if saved_rbp != 0 {
        if !read_stack(scratch, saved_rbp, &mut word) {
            return end(walk_end::UNREADABLE);
        }
        scratch.bp = word;
    }
    match rule.rbx_kind {
        rbx::SAME => {}
        rbx::AT_CFA => scratch.bx_at = cfa.wrapping_add(rule.rbx_offset as i64 as u64),
        _ => {
            scratch.bx = 0;
            scratch.bx_at = 0;
        }
    }
    if !read_stack(scratch, cfa.wrapping_sub(8), &mut word) {
        return end(walk_end::UNREADABLE);
    }
    let distance = cfa.wrapping_sub(8).wrapping_sub(scratch.first_sp) >> 3;
    scratch.forgettable |= (distance > u16::MAX as u64) as u32;
    // A stack deeper than that is not remembered.
    scratch.slots.set(at as u64 + 1, distance as u16);
    scratch.ip = word;
    scratch.sp = cfa;
    if word == 0 { end(walk_end::COMPLETE) } else { GO_ON }
}

/// Takes rsp, rip, rbp and rbx from the context that the kernel saved for a signal handler: at the return to the trampoline
/// rsp points at `struct ucontext` (arch/x86/include/uapi/asm/ucontext.h), whose `struct sigcontext` begins 40 bytes on
/// with r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip (arch/x86/include/uapi/asm/sigcontext.h).
#[inline(always)]
fn leave_signal_frame(scratch: &mut Scratch) -> i64 {
    let context = scratch.sp + 40;
    let (mut bp, mut sp, mut ip) = (0, 0, 0);
    if !read_stack(scratch, context + 80, &mut bp)
        || !read_stack(scratch, context + 120, &mut sp)
        || !read_stack(scratch, context + 128, &mut ip)
    {
        return end(walk_end::UNREADABLE);
    }
    scratch.bp = bp;
    scratch.bx_at = context + 88;
    scratch.sp = sp;
    scratch.ip = ip;
    scratch.interrupted = 1;
    scratch.uncertain = 1;
    scratch.forgettable = 1;
    if ip == 0 { end(walk_end::COMPLETE) } else { GO_ON }
}

/// Adds a frame to the hash of a stack.
#[inline(always)]
pub fn hash_frame(hash: u64, ip: u64, guessed: u64) -> u64 {
    let mixed = (hash ^ ip ^ guessed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

/// The site of a stack with this hash, through these files. The walk's end is part of it: a cut stack is never mistaken
/// for a whole one.
#[inline(always)]
pub fn site_of(hash: u64, modules: u64, ended: u8) -> u64 {
    let hash = (hash ^ ended as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (hash ^ hash >> 32 ^ modules).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32) & SITE | SITE_OF_STACK
}

/// Where a walk begins: the registers at a function's return. `ip` is its caller, `sp` lies above the return address.
#[derive(Clone, Copy)]
pub struct Place {
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    pub bx: u64,
}

impl Place {
    #[inline(always)]
    pub fn of(registers: &pt_regs) -> Self {
        Self { ip: registers.rip, sp: registers.rsp, bp: registers.rbp, bx: registers.rbx }
    }
}

/// Prepares the claimed slot for the stack of the interrupted function.
#[inline(always)]
pub fn begin(scratch: &mut Scratch, place: &Place, allocator: u8) {
    let generation = generation();
    scratch.ip = place.ip;
    scratch.sp = place.sp;
    scratch.bp = place.bp;
    scratch.bx = place.bx;
    scratch.bx_at = 0;
    scratch.first_sp = place.sp;
    scratch.hash = allocator as u64;
    scratch.window_len = 0;
    scratch.table = generation;
    scratch.interrupted = 0;
    scratch.guessing = 0;
    scratch.uncertain = 0;
    scratch.forgettable = 0;
    scratch.guessed_frames = 0;
    scratch.modules = 0;
    scratch.head.guessed = [0; MAX_FRAMES / 64];
    scratch.head.frames = 0;
    scratch.head.python = 0;
    scratch.head.python_end = 0;
    scratch.head.allocator = allocator;
    scratch.head.generation = generation;
}

/// Walks the stack, from a slot that was prepared. `walk_step` finds the slot by its number, so no reference to it may
/// be alive across the loop.
#[inline(always)]
pub fn walk(scratch: *mut Scratch, slot: u32) {
    // SAFETY: the slot is claimed by this walk; a helper without arguments.
    unsafe { (*scratch).head.time = bpf_ktime_get_ns() };
    let mut outcome = GO_ON;
    let mut index = 0;
    while index <= MAX_FRAMES as u64 {
        outcome = walk_step(index, slot as u64);
        if outcome != GO_ON {
            break;
        }
        index += 1;
    }
    let ended = (outcome - 1) as u8;
    // SAFETY: as above.
    let scratch = unsafe { &mut *scratch };
    scratch.head.end = ended;
    scratch.head.site = site_of(scratch.hash, scratch.modules, ended);
    if scratch.guessed_frames != 0 {
        count(Counter::GuessedFrames, scratch.guessed_frames);
    }
    count_end(ended, 1);
}

/// Counts a stack by how its walk ended; `times` is 1 or, to take it back, -1.
#[inline(always)]
pub fn count_end(ended: u8, times: u64) {
    count(Counter::StacksWalked, times);
    match ended {
        walk_end::COMPLETE => {}
        walk_end::TRUNCATED => count(Counter::StackTruncated, times),
        walk_end::NO_MAPPING => count(Counter::StackNoMapping, times),
        walk_end::NO_TABLE => count(Counter::StackNoTable, times),
        walk_end::UNSUPPORTED => count(Counter::StackUnsupported, times),
        walk_end::UNREADABLE => count(Counter::StackUnreadable, times),
        _ => count(Counter::StackNotAdvancing, times),
    }
}
