//! The Python frames of the thread at hand, as the interpreter links them in its memory.
//!
//! The walk begins at the state that the interpreter keeps for each thread in a thread-specific value of the C library.
//! That state names its thread, so it is known when it is another's. Nothing here understands a frame: addresses are
//! collected, and user space reads what lies there. The frames count into the stack's hash before the native walk begins.

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user};

use crate::{
    counters::Counter,
    limits::{MAX_FRAMES, MAX_PYTHON_FRAMES},
    maps::{PYTHON, SCRATCH, Scratch, count, task_fsbase},
    opaque, python_code,
    python_records::{PythonFrame, PythonLayout, python_end},
    walk::hash_frame,
};

/// Answers of `python_step` beside the `python_end` codes: there is another frame.
const GO_ON: i64 = -1;

/// Threads of the main interpreter among which ours is looked for.
const MOST_THREADS: u32 = 64;

/// Words of a frame that can be read.
const FRAME_WORDS: usize = PythonLayout::LARGEST_FRAME as usize / 8;

/// Reads a word of the target's memory.
#[inline(always)]
pub fn word_at(address: u64) -> Option<u64> {
    let mut word = 0u64;
    // SAFETY: the helper checks the user address, and fills `word`.
    let failed = unsafe { bpf_probe_read_user((&raw mut word).cast(), 8, address as *const _) } != 0;
    (!failed).then_some(word)
}

/// The thread pointer of the thread at hand. The C library sets it once, by a system call or at clone, so that the
/// kernel's copy is right.
#[inline(always)]
fn thread_pointer() -> u64 {
    let mut pointer = 0u64;
    // SAFETY: the address lies in the running task, and the helper fills `pointer`.
    unsafe {
        let task = bpf_get_current_task();
        let at = task.wrapping_add(task_fsbase() as u64);
        if bpf_probe_read_kernel((&raw mut pointer).cast(), 8, at as *const _) != 0 {
            return 0;
        }
    }
    pointer
}

/// Collects the thread's Python frames. The walk has been begun.
#[inline(always)]
pub fn collect(scratch: *mut Scratch, slot: u32) {
    if task_fsbase() == 0 {
        return;
    }
    let Some(layout) = PYTHON.get(0) else { return };
    if layout.tls == 0 {
        return;
    }
    let mut ended = match first_frames(layout) {
        Ok((0, 0)) => return,
        Ok((frame, outer)) => {
            // SAFETY: the slot is claimed by this walk; no reference is held across the calls below.
            unsafe {
                (*scratch).python_at = if frame == 0 { outer } else { frame };
                (*scratch).python_outer = if frame == 0 { 0 } else { outer };
            }
            GO_ON
        }
        Err(ended) => ended as i64,
    };
    let mut index = 0;
    while index <= MAX_PYTHON_FRAMES as u64 && ended == GO_ON {
        ended = python_step(index, slot as u64);
        index += 1;
    }
    // SAFETY: as above.
    let scratch = unsafe { &mut *scratch };
    scratch.head.python_end = ended as u32;
    scratch.hash = hash_frame(scratch.hash, ended as u64, 0);
    match ended as u32 {
        python_end::COMPLETE => {}
        python_end::TRUNCATED => count(Counter::PythonTruncated, 1),
        python_end::NOT_OURS => count(Counter::PythonNotOurs, 1),
        _ => count(Counter::PythonUnreadable, 1),
    }
}

/// The thread's innermost frame, and the innermost one of the interpreter that called into the one which that frame is of; 0
/// where it runs no Python, and where no other interpreter called.
#[inline(always)]
fn first_frames(layout: &PythonLayout) -> Result<(u64, u64), u32> {
    let pointer = thread_pointer();
    let state = word_at(pointer.wrapping_add(layout.tls)).ok_or(python_end::UNREADABLE)?;
    if pointer == 0 || state == 0 {
        return Ok((0, 0));
    }
    if !is_of_thread(layout, state, pointer) {
        return Err(python_end::NOT_OURS);
    }
    let (mut inner, mut outer) = (state, 0);
    if layout.current != 0 {
        let holder = word_at(layout.current).unwrap_or(0);
        if holder != 0 && holder != state && is_of_thread(layout, holder, pointer) {
            (inner, outer) = (holder, state);
        }
    } else if layout.main != 0 {
        outer = state_in_main(state, pointer);
    }
    let outer = if outer == 0 { 0 } else { first_frame(layout, outer)? };
    Ok((first_frame(layout, inner)?, outer))
}

#[inline(always)]
fn is_of_thread(layout: &PythonLayout, state: u64, pointer: u64) -> bool {
    word_at(state.wrapping_add(layout.thread_id as u64)) == Some(pointer)
}

/// The innermost frame of a thread's state.
#[inline(always)]
fn first_frame(layout: &PythonLayout, state: u64) -> Result<u64, u32> {
    let frame = word_at(state.wrapping_add(layout.frame as u64)).ok_or(python_end::UNREADABLE)?;
    if layout.through_cframe == 0 || frame == 0 {
        return Ok(frame);
    }
    word_at(frame.wrapping_add(layout.in_cframe as u64)).ok_or(python_end::UNREADABLE)
}

/// The state in which the thread runs something in the main interpreter that is not what it runs in `state`; 0 where there is
/// none.
///
/// From another interpreter a thread may have two there: what only the main interpreter can import is imported in one of its
/// own, which begins with the frames of the interpreter that wants it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn state_in_main(state: u64, pointer: u64) -> u64 {
    let Some(layout) = PYTHON.get(0) else { return 0 };
    let main = word_at(layout.main).unwrap_or(0);
    let newest = word_at(layout.main.wrapping_sub(8)).unwrap_or(0);
    if main == 0 || newest == main {
        return 0;
    }
    let Ok(known) = first_frame(layout, state) else { return 0 };
    let mut at = word_at(main.wrapping_add(layout.threads as u64)).unwrap_or(0);
    let mut index = 0;
    // Threads come and go meanwhile: what is read is believed if it names this thread.
    while index < MOST_THREADS && at != 0 {
        if at != state && is_of_thread(layout, at, pointer) {
            let frame = first_frame(layout, at).unwrap_or(0);
            if frame != 0 && frame != known {
                return at;
            }
        }
        at = word_at(at.wrapping_add(layout.next as u64)).unwrap_or(0);
        index += 1;
    }
    0
}

/// Keeps the frame at hand and finds its caller.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn python_step(index: u64, slot: u64) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return python_end::UNREADABLE as i64 };
    // SAFETY: the slot is claimed by this walk.
    let scratch = unsafe { &mut *scratch };
    let Some(layout) = PYTHON.get(0) else { return python_end::UNREADABLE as i64 };
    if index >= MAX_PYTHON_FRAMES as u64 {
        return python_end::TRUNCATED as i64;
    }
    let bytes = opaque(layout.bytes as u64);
    if bytes == 0 || bytes > PythonLayout::LARGEST_FRAME as u64 {
        return python_end::UNREADABLE as i64;
    }
    // SAFETY: the helper checks the user address, and `bytes` is at most the array's length.
    let failed = unsafe {
        let frame = scratch.python_frame.as_mut_ptr().cast();
        bpf_probe_read_user(frame, bytes as u32, scratch.python_at as *const _)
    } != 0;
    if failed {
        return python_end::UNREADABLE as i64;
    }
    let word = |offset: u32| {
        let at = opaque(offset as u64 >> 3) as usize & (FRAME_WORDS - 1);
        // SAFETY: masked to the array's length.
        unsafe { *scratch.python_frame.get_unchecked(at) }
    };
    let mark = if layout.mark == PythonLayout::NO_MARK {
        0
    } else {
        word(layout.mark) >> ((layout.mark as u64 & 7) * 8) & 0xff
    };
    // From 3.14 on the lowest bits say how the reference is counted.
    let code = word(layout.code) & ((1 << 56) - 8);
    let mut words = [0u64; PythonFrame::IDENTITY_WORDS];
    let identity_bytes = opaque(layout.identity_bytes as u64);
    if identity_bytes == 0 || identity_bytes > size_of_val(&words) as u64 {
        return python_end::UNREADABLE as i64;
    }
    // A frame of the interpreter's own has none: what is not read stays 0.
    // SAFETY: the helper checks the user address, and fills at most `words`.
    unsafe {
        let at = code.wrapping_add(layout.identity as u64);
        bpf_probe_read_user(words.as_mut_ptr().cast(), identity_bytes as u32, at as *const _)
    };
    let mut frame = PythonFrame {
        code: code | mark << 56,
        at: word(layout.at) & layout.at_mask,
        content: 0,
        // The address is part of it, so that objects do not get in each other's way in `CODE_CONTENTS`.
        object: PythonFrame::identity_of(&words, python_code::last_death(code)) ^ code.rotate_left(32),
    };
    if layout.at_mask == u64::MAX {
        frame.at = frame.at.wrapping_sub(code);
    }
    let back = word(layout.back);
    let at = opaque(index) as usize & (MAX_PYTHON_FRAMES - 1);
    // Code of the interpreter's own has no content.
    frame.content = python_code::known_content(frame.object)
        .unwrap_or_else(|| python_code::read_content(slot, code, frame.object));
    // SAFETY: masked to the array's length.
    unsafe { *scratch.python.get_unchecked_mut(at) = frame };
    scratch.head.python = index as u32 + 1;
    scratch.hash = hash_frame(hash_frame(scratch.hash ^ mark, frame.content, 0), frame.at, 0);
    scratch.python_at = back;
    if back == 0 {
        scratch.python_at = scratch.python_outer;
        scratch.python_outer = 0;
    }
    if scratch.python_at == 0 { python_end::COMPLETE as i64 } else { GO_ON }
}

/// Puts the Python frames behind the last native one, to be sent together; how many bytes they are.
#[inline(always)]
pub fn append(scratch: &mut Scratch, frames: u64) -> u64 {
    if task_fsbase() == 0 {
        return 0;
    }
    let bytes = opaque(scratch.head.python as u64 * size_of::<PythonFrame>() as u64);
    if bytes == 0
        || bytes > size_of::<[PythonFrame; MAX_PYTHON_FRAMES]>() as u64
        || frames > MAX_FRAMES as u64
    {
        return 0;
    }
    // SAFETY: a copy within one map value: behind `frames` there is room for all Python frames.
    let failed = unsafe {
        let to = (&raw mut scratch.frames).cast::<u64>().add(frames as usize);
        bpf_probe_read_kernel(to.cast(), bytes as u32, (&raw const scratch.python).cast())
    } != 0;
    if failed { 0 } else { bytes }
}
