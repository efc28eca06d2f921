//! What the code objects on a stack say, copied while they run; and when code objects die.
//!
//! Code that is made and dropped at once is gone before user space could read it. So when a stack is sent for the first time,
//! what its code objects say goes ahead of it, once for each object. Where an object dies, the time is noted by its address:
//! what comes to its address later is another object.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_RB_NO_WAKEUP, pt_regs},
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user, bpf_ringbuf_output},
};

use crate::{
    counters::Counter,
    limits::MAX_PYTHON_FRAMES,
    maps::{DEATHS, PYTHON, PYTHON_CODES, PYTHON_SEEN, SCRATCH, Scratch, closed, count, task_fsbase},
    opaque,
    python::word_at,
    python_records::{CodeRecord, Death, TextHead},
};

/// When a code object at this address died: `Death::at`.
#[inline(always)]
pub fn last_death(code: u64) -> u32 {
    DEATHS.get(Death::slot(code)).map_or(0, |death| Death(*death).at(code))
}

/// Sends what the code objects of the collected frames say, of those that it was not sent of before. `code_step` finds the
/// slot by its number, so no reference to it may be alive across the loop.
#[inline(always)]
pub fn send_new(scratch: *mut Scratch, slot: u32) {
    if task_fsbase() == 0 {
        return;
    }
    // SAFETY: the slot is claimed by this walk.
    let frames = unsafe { (*scratch).head.python } as u64;
    let mut index = 0;
    while index < MAX_PYTHON_FRAMES as u64 && index < frames {
        code_step(index, slot as u64);
        index += 1;
    }
}

/// Sends what the code object of one frame says, unless that was sent before.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn code_step(index: u64, slot: u64) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: the slot is claimed by this walk.
    let scratch = unsafe { &mut *scratch };
    let Some(layout) = PYTHON.get(0) else { return 0 };
    let at = opaque(index) as usize & (MAX_PYTHON_FRAMES - 1);
    // SAFETY: masked to the array's length.
    let frame = unsafe { *scratch.python.get_unchecked(at) };
    let code = frame.code & ((1 << 56) - 1);
    // SAFETY: one word of a map value.
    if PYTHON_SEEN.get_ptr(&frame.identity).is_some_and(|seen| unsafe { *seen } == code) {
        return 0;
    }
    let field = |offset: u32| word_at(code.wrapping_add(offset as u64)).unwrap_or(0);
    let (name, file, table) = (field(layout.name), field(layout.file), field(layout.line_table));
    scratch.code = CodeRecord {
        code,
        identity: frame.identity,
        name: TextHead { state: 0, bytes: 0 },
        file: TextHead { state: 0, bytes: 0 },
        first_line: field(layout.first_line) as u32,
        table_bytes: 0,
    };
    let texts = [layout.ascii_text, layout.other_text];
    scratch.code.name = text(&mut scratch.object, &mut scratch.code_name, name, texts);
    scratch.code.file = text(&mut scratch.object, &mut scratch.code_file, file, texts);
    let bytes = word_at(table.wrapping_add(16)).unwrap_or(0);
    scratch.code.table_bytes = bytes as u32;
    let mut copied = opaque(bytes);
    if copied == 0 || copied > CodeRecord::TABLE_BYTES as u64 {
        copied = 0;
    } else {
        // SAFETY: the helper checks the user address, and `copied` is at most the array's length.
        let failed = unsafe {
            let to = scratch.code_table.as_mut_ptr().cast();
            bpf_probe_read_user(to, copied as u32, table.wrapping_add(32) as *const _)
        } != 0;
        if failed {
            return 0;
        }
    }
    let length = (size_of::<CodeRecord>() + 2 * CodeRecord::TEXT_BYTES) as u64 + copied;
    // SAFETY: the record and its parts lie behind each other in `Scratch`, and `length` ends within it.
    let sent = unsafe {
        bpf_ringbuf_output(
            (&raw const PYTHON_CODES).cast_mut().cast(),
            (&raw mut scratch.code).cast(),
            length,
            BPF_RB_NO_WAKEUP as u64,
        ) == 0
    };
    if sent {
        let _ = PYTHON_SEEN.insert(&frame.identity, &code, BPF_ANY as u64);
    } else {
        count(Counter::PythonCodeLost, 1);
    }
    0
}

/// Copies a string (`PyUnicodeObject`; PEP 393): its length lies at 16, its state at 32.
#[inline(always)]
fn text(
    head: &mut [u64; 5],
    to: &mut [u8; CodeRecord::TEXT_BYTES],
    address: u64,
    [ascii, other]: [u32; 2],
) -> TextHead {
    const NONE: TextHead = TextHead { state: 0, bytes: 0 };
    // SAFETY: the helper checks the user address, and fills `head`.
    let failed = unsafe {
        bpf_probe_read_user(head.as_mut_ptr().cast(), size_of_val(head) as u32, address as *const _)
    } != 0;
    if failed {
        return NONE;
    }
    let (length, state) = (head[2], head[4] as u32);
    let kind = (state >> 2 & 7) as u64;
    let bytes = length.wrapping_mul(kind);
    let begins = if state >> 6 & 1 == 1 { ascii } else { other };
    if length > u32::MAX as u64 / 8 || bytes == 0 {
        return NONE;
    }
    let mut copied = opaque(bytes);
    if copied > CodeRecord::TEXT_BYTES as u64 {
        copied = CodeRecord::TEXT_BYTES as u64;
    }
    // SAFETY: the helper checks the user address, and `copied` is at most the array's length.
    let failed = unsafe {
        bpf_probe_read_user(
            to.as_mut_ptr().cast(),
            copied as u32,
            address.wrapping_add(begins as u64) as *const _,
        )
    } != 0;
    if failed { NONE } else { TextHead { state, bytes: bytes as u32 } }
}

/// Entry of the function that frees a code object.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn code_dies(ctx: *mut c_void) -> u32 {
    count(Counter::ProbeHits, 1);
    if closed() {
        return 0;
    }
    // SAFETY: the context of a uprobe is the target's registers.
    let code = unsafe { (*ctx.cast::<pt_regs>()).rdi };
    if let Some(death) = DEATHS.get_ptr_mut(Death::slot(code)) {
        // SAFETY: one aligned word, a map value; and a helper without arguments.
        unsafe { core::ptr::write_volatile(death, Death::new(code, bpf_ktime_get_ns()).0) };
    }
    0
}
