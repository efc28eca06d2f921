//! What the code objects on a stack say, copied while they run; and when code objects die.
//!
//! Code that is made and dropped at once is gone before user space could read it. So it is read here when it is met for the
//! first time, and what is new is sent ahead of the stack. A site is told from others by what its code says, not by where
//! that lies: code that is made again and again has one. Where an object dies, the time is noted by its address:
//! what comes to its address later is another object.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_RB_NO_WAKEUP, pt_regs},
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user, bpf_ringbuf_output},
};

use crate::{
    counters::Counter,
    maps::{CODE_CONTENTS, DEATHS, PYTHON, PYTHON_CODES, PYTHON_SEEN, SCRATCH, closed, count},
    opaque,
    python::word_at,
    python_records::{CONTENT_SLOTS, CodeRecord, Death, KnownContent, TextHead},
    walk::hash_frame,
};

/// When a code object at this address died: `Death::at`.
#[inline(always)]
pub fn last_death(code: u64) -> u32 {
    DEATHS.get(Death::slot(code)).map_or(0, |death| Death(*death).at(code))
}

/// The content of a code object that was met before and has not been forgotten.
#[inline(always)]
pub fn known_content(object: u64) -> Option<u64> {
    let known = CODE_CONTENTS.get(content_slot(object))?;
    let (content, check) = (known.content, known.check);
    (check ^ content == object && content != 0).then_some(content)
}

#[inline(always)]
fn content_slot(object: u64) -> u32 {
    (object >> 20) as u32 & (CONTENT_SLOTS as u32 - 1)
}

/// Reads what a code object says, remembers its content, and sends it if that content is new; the content, or 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn read_content(slot: u64, code: u64, object: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: the slot is claimed by this walk, which does nothing else meanwhile.
    let scratch = unsafe { &mut *scratch };
    let Some(layout) = PYTHON.get(0) else { return 0 };
    let field = |offset: u32| word_at(code.wrapping_add(offset as u64)).unwrap_or(0);
    let (name, file, table) = (field(layout.name), field(layout.file), field(layout.line_table));
    let first_line = field(layout.first_line) as u32;
    let texts = [layout.ascii_text, layout.other_text];
    let name = text(&mut scratch.object, &mut scratch.code_name, name, texts);
    let file = text(&mut scratch.object, &mut scratch.code_file, file, texts);
    if name.bytes == 0 {
        return 0;
    }
    let bytes = word_at(table.wrapping_add(16)).unwrap_or(0);
    let mut copied = opaque(bytes);
    scratch.code_table = [0; CodeRecord::TABLE_BYTES / 8];
    if copied > CodeRecord::TABLE_BYTES as u64 {
        copied = 0;
    }
    if copied != 0 {
        // SAFETY: the helper checks the user address, and `copied` is at most the array's length.
        let failed = unsafe {
            let to = scratch.code_table.as_mut_ptr().cast();
            bpf_probe_read_user(to, copied as u32, table.wrapping_add(32) as *const _)
        } != 0;
        if failed {
            return 0;
        }
    }
    // A table that is too long to be copied tells itself from others by where it lies.
    let mut hash = hash_frame(bytes ^ (first_line as u64) << 32, if copied == 0 { object } else { 0 }, 0);
    hash = hash_words(slot, hash);
    if hash == 0 {
        return 0;
    }
    scratch.code = CodeRecord { code, content: hash, name, file, first_line, table_bytes: bytes as u32 };
    if let Some(known) = CODE_CONTENTS.get_ptr_mut(content_slot(object)) {
        // SAFETY: words of a map value.
        unsafe { *known = KnownContent { content: hash, check: hash ^ object } };
    }
    if PYTHON_SEEN.get_ptr(&hash).is_some() {
        return hash;
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
        let _ = PYTHON_SEEN.insert(&hash, &code, BPF_ANY as u64);
    } else {
        count(Counter::PythonCodeLost, 1);
    }
    hash
}

/// Adds the words of name, file and table, which lie behind each other, to a hash.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn hash_words(slot: u64, hash: u64) -> u64 {
    const TEXT: usize = CodeRecord::TEXT_BYTES / 8;
    const TABLE: usize = CodeRecord::TABLE_BYTES / 8;
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: the slot is claimed by this walk.
    let scratch = unsafe { &*scratch };
    let mut hash = hash;
    let mut index = 0u64;
    while index < TEXT as u64 {
        let at = opaque(index) as usize & (TEXT - 1);
        // SAFETY: masked to the arrays' length.
        let (name, file) =
            unsafe { (*scratch.code_name.get_unchecked(at), *scratch.code_file.get_unchecked(at)) };
        hash = hash_frame(hash_frame(hash, name, 0), file, 0);
        index += 1;
    }
    index = 0;
    while index < TABLE as u64 {
        let at = opaque(index) as usize & (TABLE - 1);
        // SAFETY: masked to the array's length.
        hash = hash_frame(hash, unsafe { *scratch.code_table.get_unchecked(at) }, 0);
        index += 1;
    }
    hash
}

/// Copies a string (`PyUnicodeObject`; PEP 393): its length lies at 16, its state at 32.
#[inline(always)]
fn text(
    head: &mut [u64; 5],
    to: &mut [u64; CodeRecord::TEXT_BYTES / 8],
    address: u64,
    [ascii, other]: [u32; 2],
) -> TextHead {
    const NONE: TextHead = TextHead { state: 0, bytes: 0 };
    *to = [0; CodeRecord::TEXT_BYTES / 8];
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
