//! What the fuzz targets share: ELF files around hostile sections, modules made of bytes, and what must hold of every
//! result however hostile the input was.
//!
//! A target that only looks for panics would miss the worse case, a wrong result. So each one asserts what its callers
//! rely on; a broken promise is a crash like any other.

#[allow(dead_code, reason = "the damage tests use the rest")]
#[path = "../../tests/support/elf.rs"]
mod elf;
#[path = "../../tests/support/sense.rs"]
mod sense;

use std::{fs::File, io::Write, path::PathBuf, sync::Arc};

use elf::{Section, TEXT, elf, function_symbol};
use heapscope::{
    target::{
        error::TargetError,
        module::{Content, Module},
    },
    unwind::rows::ModuleRows,
};
use rustix::fs::{MemfdFlags, memfd_create};

/// Bytes of code in [`with_call_frames`]; every other byte could be a call, so that no row is left out.
const CODE: usize = 0x1000;
/// Where [`with_call_frames`] puts `.eh_frame`. The seeds were linked for this address.
const EH_FRAME: u64 = 0x10_0000;

/// A valid file with this `.eh_frame`.
#[must_use]
pub fn with_call_frames(eh_frame: &[u8]) -> Vec<u8> {
    let code = [0xE8, 0x90].repeat(CODE / 2);
    elf(&[Section::text(code), Section::loaded(".eh_frame", EH_FRAME, eh_frame.to_vec())])
}

/// A valid file with this code, which `malloc`, `calloc`, `realloc` and `free` divide among them.
#[must_use]
pub fn with_allocator(code: &[u8]) -> Vec<u8> {
    let mut names = vec![0];
    let mut symbols = vec![0; 24];
    let part = code.len() as u64 / 4;
    for (at, name) in (0..).zip(["malloc", "calloc", "realloc", "free"]) {
        let name_offset = u32::try_from(names.len()).unwrap_or_default();
        symbols.extend(function_symbol(name_offset, TEXT + at * part, part));
        names.extend(name.bytes().chain([0]));
    }
    elf(&[
        Section::text(code.to_vec()),
        Section::strings(".strtab", names),
        Section::symbols(".symtab", 2, symbols),
    ])
}

/// A valid file with these notes of USDT probes, and with the section that says how far they have been moved.
#[must_use]
pub fn with_usdt_notes(notes: &[u8]) -> Vec<u8> {
    elf(&[
        Section::text(vec![0x90; 0x1000]),
        Section::loaded(".stapsdt.base", 0x2100, vec![0]),
        Section::unloaded(".note.stapsdt", notes.to_vec()),
    ])
}

/// The sections of debug information that [`with_debug_sections`] takes, in its order.
pub const DEBUG_SECTIONS: [&str; 10] = [
    ".debug_info",
    ".debug_abbrev",
    ".debug_line",
    ".debug_str",
    ".debug_line_str",
    ".debug_rnglists",
    ".debug_ranges",
    ".debug_aranges",
    ".symtab",
    ".strtab",
];

/// A valid file with the debug sections that `input` holds one behind the other, each behind its length in two bytes.
/// The last one may be cut short.
#[must_use]
pub fn with_debug_sections(mut input: &[u8]) -> Vec<u8> {
    let mut sections = vec![Section::text(vec![0x90; 0x1000])];
    for (number, name) in (2..).zip(DEBUG_SECTIONS) {
        let Some((length, rest)) = input.split_first_chunk() else { break };
        let (data, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        input = rest;
        sections.push(match name {
            ".symtab" => Section::symbols(name, number + 1, data.to_vec()),
            ".strtab" => Section::strings(name, data.to_vec()),
            _ => Section::unloaded(name, data.to_vec()),
        });
    }
    elf(&sections)
}

/// The module with these bytes, in memory as a vDSO is.
///
/// # Errors
/// As the target's modules have them.
pub fn module_in_memory(bytes: &[u8]) -> Result<Module, TargetError> {
    Module::new(PathBuf::from("[vdso]"), Content::Memory(Arc::from(bytes)), false)
}

/// The module with these bytes in a file, as the target's libraries are.
///
/// # Errors
/// As the target's modules have them.
///
/// # Panics
/// When the system gives no file in memory.
pub fn module_in_file(bytes: &[u8]) -> Result<Module, TargetError> {
    let memory = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(memory);
    file.write_all(bytes).expect("room for the file");
    Module::new(PathBuf::from("/lib/libhostile.so"), Content::File(file), false)
}

/// What must hold of the rows of any file, and of the tables made of them.
///
/// # Panics
/// When it does not.
pub fn check_rows(module: &ModuleRows, file: &[u8]) {
    sense::check_rows(module, file);
}

/// What must hold of the headers of any module.
///
/// # Panics
/// When it does not.
pub fn check_module(module: &Module) {
    sense::check_module(module);
}
