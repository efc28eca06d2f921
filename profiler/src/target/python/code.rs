//! What a code object says: its function, its file, and the line of a place in it.
//!
//! The object is read out of the running target, which may be freeing it at this moment: nothing is believed that does not
//! look like a code object with strings, and every length has a bound.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use profiler_common::python::{CodeRecord, PythonFrame, TextHead};

use super::{
    layout::{Mark, Version},
    lines::LineTable,
};
use crate::target::process::Process;

/// Bytes of a name or a path that are kept, and of a line table that are read.
const MOST_TEXT: u64 = 4096;
const MOST_TABLE: u64 = 1 << 20;

/// The target's memory. It is that of the program which ran when it was opened, and of no other.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// Opens it.
    ///
    /// # Errors
    /// Where the process is gone, or we may not look.
    pub fn of(process: &Process) -> std::io::Result<Self> {
        File::open(process.memory_path("mem")).map(Self)
    }

    /// The bytes at an address.
    pub(super) fn array<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact_at(&mut bytes, address).ok()?;
        Some(bytes)
    }

    fn bytes(&self, address: u64, length: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.0.read_exact_at(&mut bytes, address).ok()?;
        Some(bytes)
    }
}

/// The part of a code object that tells it from another at the same address: words that never change. Others do while it
/// runs, such as the count of its calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Where in the code object the words begin.
    first: usize,
    words: Vec<u8>,
}

impl Identity {
    /// As the walk in the kernel tells it of an object at this address, after a death:
    /// `profiler_common::python::PythonFrame::object`.
    #[must_use]
    pub fn as_walked(&self, address: u64, death: u32) -> u64 {
        let mut words = [0; PythonFrame::IDENTITY_WORDS];
        for (index, to) in words.iter_mut().enumerate() {
            *to = word(&self.words, index * 8).unwrap_or(0);
        }
        PythonFrame::identity_of(&words, death) ^ address.rotate_left(32)
    }

    /// The word at this offset in the code object.
    fn at(&self, offset: usize) -> Option<u64> {
        word(&self.words, offset.checked_sub(self.first)?)
    }
}

/// A code object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Code {
    /// The function, with the class or function around it where the version says so.
    pub function: String,
    /// The file, as the compiler was told.
    pub file: String,
    version: Version,
    first_line: i64,
    table: Arc<[u8]>,
    /// Distance from the object to its first instruction, where frames say where they are by that.
    instructions: Option<u64>,
}

/// The part of a code object at `address` that tells it from another; `None` where there is none, or none any more.
#[must_use]
pub fn identity(memory: &Memory, version: Version, code_type: u64, address: u64) -> Option<Identity> {
    let (first, length) = version.identity();
    let bytes = memory.bytes(address, u64::from(first.checked_add(length)?))?;
    // Its type stands behind the count of references.
    let is_there = is_alive(&bytes) && word(&bytes, 8)? == code_type;
    let first = usize::try_from(first).ok()?;
    is_there.then(|| Identity { first, words: bytes.get(first..).unwrap_or_default().to_vec() })
}

/// Reads the code object that was found at `address`.
#[must_use]
pub fn read(memory: &Memory, version: Version, found: &Identity) -> Option<Code> {
    let layout = version.code();
    let at = |offset: usize| found.at(offset);
    let text = |offset: usize| text(memory, version, at(offset)?);
    let first_line = u32::try_from(at(layout.first_line)? & 0xffff_ffff).ok()?;
    let qualified = layout.qualified_name.and_then(text);
    Some(Code {
        function: qualified.or_else(|| text(layout.name))?,
        file: text(layout.file)?,
        version,
        first_line: i64::from(first_line.cast_signed()),
        table: table(memory, at(layout.line_table)?)?.into(),
        instructions: layout.instructions.and_then(|offset| u64::try_from(offset).ok()),
    })
}

/// What a record of the kernel's says of a code object ([`CodeRecord`] and what follows it), with the number of its content;
/// `None` where the record has not room for all of it.
#[must_use]
pub fn told(record: &[u8], version: Version) -> Option<(u64, Code)> {
    let (head, rest) = record.split_at_checked(size_of::<CodeRecord>())?;
    let head: CodeRecord = bytemuck::pod_read_unaligned(head);
    let (name, rest) = rest.split_at_checked(CodeRecord::TEXT_BYTES)?;
    let (file, table) = rest.split_at_checked(CodeRecord::TEXT_BYTES)?;
    let text = |head: TextHead, bytes: &[u8]| {
        let (state, length) = (u64::from(head.state), usize::try_from(head.bytes).ok()?);
        let is_compact = state >> 5 & 1 == 1;
        // An empty file name is one; a name that could not be read says nothing.
        characters(state >> 2 & 7, bytes.get(..length)?).filter(|_| is_compact && length > 0)
    };
    let table = table.get(..usize::try_from(head.table_bytes).ok()?)?;
    let code = Code {
        function: text(head.name, name)?,
        file: text(head.file, file)?,
        version,
        first_line: i64::from(head.first_line.cast_signed()),
        table: table.into(),
        instructions: version.code().instructions.and_then(|offset| u64::try_from(offset).ok()),
    };
    Some((head.content, code))
}

impl Code {
    /// The line of a frame that is at this place: `profiler_common::python::PythonFrame::at`.
    #[must_use]
    pub fn line_of(&self, at: u64) -> Option<u32> {
        let (kind, byte) = match (self.version.minor, self.instructions) {
            // `f_lasti` counts bytes, from 3.10 on code units of two bytes; -1 before the first.
            (_, None) if at == 0xffff_ffff => return u32::try_from(self.first_line).ok(),
            (..=9, _) => (LineTable::Notes, at),
            (10, _) => (LineTable::Ranges, at.checked_mul(2)?),
            (_, Some(first)) if at < first => return u32::try_from(self.first_line).ok(),
            (_, first) => (LineTable::Locations, at.checked_sub(first?)?),
        };
        kind.line_of(&self.table, self.first_line, byte)
    }

    /// What a frame with this mark is.
    #[must_use]
    pub fn mark(&self, mark: u8) -> Mark {
        self.version.mark_of(mark)
    }
}

/// Whether an object that begins with these bytes has not been freed. The count of references, its first word, is small,
/// and where it never changes (PEP 683) below 2^32; from 3.14 on there are flags above 48 bits. The allocators put an address
/// there, or 0, when it is freed.
fn is_alive(object: &[u8]) -> bool {
    word(object, 0).is_some_and(|references| (1..1 << 32).contains(&(references & ((1 << 48) - 1))))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    // A field of four bytes may be the last one.
    let mut word = [0; 8];
    let there = bytes.get(at..end.min(bytes.len()))?;
    word.get_mut(..there.len())?.copy_from_slice(there);
    Some(u64::from_le_bytes(word))
}

/// A string (`PyUnicodeObject`; PEP 393): length, hash, state; in the compact forms its characters follow, of 1, 2 or 4
/// bytes each.
fn text(memory: &Memory, version: Version, address: u64) -> Option<String> {
    let head: [u8; 40] = memory.array(address)?;
    if !is_alive(&head) {
        return None;
    }
    let length = word(&head, 16)?.min(MOST_TEXT);
    let state = word(&head, 32)?;
    // Bits 0 and 1 say whether it is interned; then kind, compact, ascii.
    let (kind, compact, ascii) = (state >> 2 & 7, state >> 5 & 1 == 1, state >> 6 & 1 == 1);
    if !compact {
        return None;
    }
    let layout = version.text();
    let begins = address.checked_add(if ascii { layout.ascii } else { layout.other })?;
    let bytes = memory.bytes(begins, length.checked_mul(kind)?)?;
    characters(kind, &bytes)
}

/// Characters of 1, 2 or 4 bytes each.
fn characters(kind: u64, bytes: &[u8]) -> Option<String> {
    let character = |code: u32| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    Some(match kind {
        1 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        2 => bytes.chunks_exact(2).map(|c| character(u32::from(u16::from_le_bytes([c[0], c[1]])))).collect(),
        4 => bytes.chunks_exact(4).map(|c| character(u32::from_le_bytes([c[0], c[1], c[2], c[3]]))).collect(),
        _ => return None,
    })
}

/// A `PyBytesObject`: its length at 16, its bytes at 32.
fn table(memory: &Memory, address: u64) -> Option<Vec<u8>> {
    let head: [u8; 24] = memory.array(address)?;
    let length = word(&head, 16)?;
    if !is_alive(&head) || length > MOST_TABLE {
        return None;
    }
    memory.bytes(address.checked_add(32)?, length)
}
