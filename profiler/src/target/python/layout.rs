//! Where each version of CPython keeps what we read, in bytes, on x86-64.
//!
//! The numbers are those that a C compiler gives for the structures in the headers of the version: `struct _ts`
//! (`Include/cpython/pystate.h`), `struct _frame` (`Include/cpython/frameobject.h`), `_PyInterpreterFrame`
//! (`Include/internal/pycore_frame.h`), `PyCodeObject` (`Include/cpython/code.h`), `_PyRuntimeState`
//! (`Include/internal/pycore_runtime.h`). They were compared with running interpreters of each version.

use profiler_common::python::PythonLayout;

use super::offsets::Offsets;

/// In glibc's `struct pthread`: the first block of thread-specific values (`specific_1stblock`, nptl/descr.h), of 16 bytes
/// each: a sequence number, and the value. Later keys lie elsewhere.
const GLIBC_SPECIFIC: u64 = 0x310;
const GLIBC_FIRST_BLOCK: u32 = 32;

/// A version of CPython that we know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct Version {
    /// 7 for 3.7.
    pub minor: u8,
}

/// In a code object.
#[derive(Clone, Copy, Debug)]
pub(super) struct CodeLayout {
    pub(super) first_line: usize,
    pub(super) file: usize,
    pub(super) name: usize,
    pub(super) qualified_name: Option<usize>,
    pub(super) line_table: usize,
    /// Where the instructions begin, if they are part of the object.
    pub(super) instructions: Option<usize>,
}

/// In a string (`PyASCIIObject`, `PyCompactUnicodeObject`).
#[derive(Clone, Copy, Debug)]
pub(super) struct TextLayout {
    pub(super) ascii: u64,
    pub(super) other: u64,
}

impl Version {
    /// The version with these numbers.
    #[must_use]
    pub fn of((major, minor): (u8, u8)) -> Option<Self> {
        (major == 3 && (6..=14).contains(&minor)).then_some(Self { minor })
    }

    /// Bytes of one of pymalloc's pools (`POOL_SIZE`), to which it is aligned too.
    #[must_use]
    pub fn pool_size(self) -> u64 {
        if self.minor < 10 { 4 << 10 } else { 16 << 10 }
    }

    /// In `_PyRuntime`: the key of the threads' states (`gilstate.autoTSSkey`, from 3.12 `autoTSSkey`).
    pub(super) fn tss_key(self) -> Option<u64> {
        Some(match self.minor {
            ..=6 => return None,
            7 => 1504,
            8 => 1392,
            9 | 10 => 584,
            11 => 592,
            12 => 1544,
            13 => 2160,
            _ => 2336,
        })
    }

    /// In `_PyRuntime`: the state of the thread that holds the global lock (`gilstate.tstate_current`). From 3.12 on the
    /// thread-specific value is that of the interpreter that the thread is in.
    pub(super) fn current(self) -> Option<u64> {
        Some(match self.minor {
            7 => 1480,
            8 => 1368,
            9 | 10 => 568,
            11 => 576,
            _ => return None,
        })
    }

    /// In `_PyRuntime`: the first of all interpreters (`interpreters.main`, behind `interpreters.head`), from 3.12 on.
    pub(super) fn main(self) -> Option<u64> {
        Some(match self.minor {
            ..=11 => return None,
            12 => 48,
            13 => 640,
            _ => 816,
        })
    }

    /// For the walk in the kernel. `told` is what the interpreter says of itself, from 3.13 on.
    pub(super) fn layout(self, key: u32, told: Option<Offsets>) -> Option<PythonLayout> {
        if key >= GLIBC_FIRST_BLOCK {
            return None;
        }
        let tls = GLIBC_SPECIFIC + 16 * u64::from(key) + 8;
        let base = PythonLayout { tls, at_mask: u64::MAX, ..PythonLayout::default() };
        let linked = PythonLayout {
            thread_id: 176,
            frame: 24,
            bytes: 112,
            code: 32,
            back: 24,
            at: 104,
            at_mask: 0xffff_ffff,
            mark: PythonLayout::NO_MARK,
            ..base
        };
        // From 3.12 on: the code object first, then the caller.
        let owned = PythonLayout { bytes: 72, code: 0, back: 8, at: 56, mark: 70, ..base };
        let (identity, identity_bytes) = self.identity();
        let layout = match self.minor {
            ..=6 => PythonLayout { thread_id: 152, at: 120, bytes: 128, ..linked },
            7..=9 => linked,
            10 => PythonLayout { at: 96, bytes: 104, ..linked },
            11 => PythonLayout {
                thread_id: 152,
                frame: 56,
                through_cframe: 1,
                in_cframe: 8,
                bytes: 72,
                code: 32,
                back: 48,
                at: 56,
                mark: 68,
                ..base
            },
            12 => PythonLayout {
                thread_id: 136,
                frame: 56,
                through_cframe: 1,
                in_cframe: 0,
                threads: 72,
                next: 8,
                ..owned
            },
            _ => {
                let told = told?;
                PythonLayout {
                    thread_id: told.thread_id,
                    frame: told.frame,
                    bytes: [told.code, told.back, told.at, told.mark].into_iter().max()? / 8 * 8 + 8,
                    code: told.code,
                    back: told.back,
                    at: told.at,
                    mark: told.mark,
                    threads: told.threads,
                    next: told.next,
                    ..base
                }
            }
        };
        let (code, text) = (self.code(), self.text());
        let offset = |at: usize| u32::try_from(at).ok();
        Some(PythonLayout {
            identity,
            identity_bytes,
            first_line: offset(code.first_line)?,
            name: offset(code.qualified_name.unwrap_or(code.name))?,
            file: offset(code.file)?,
            line_table: offset(code.line_table)?,
            ascii_text: u32::try_from(text.ascii).ok()?,
            other_text: u32::try_from(text.other).ok()?,
            ..layout
        })
    }

    /// Whether code objects and frames are where they are expected, as far as the walk in the kernel is not told.
    pub(super) fn agrees_with(self, told: &Offsets) -> bool {
        let code = self.code();
        let offset = |at: Option<usize>| at.and_then(|at| u32::try_from(at).ok());
        let expected = [
            (Some(code.first_line), told.first_line),
            (Some(code.file), told.file),
            (Some(code.name), told.name),
            (code.qualified_name, told.qualified_name),
            (Some(code.line_table), told.line_table),
            (code.instructions, told.instructions),
        ];
        let in_frames = [told.code, told.back, told.at, told.mark & !7];
        in_frames.iter().all(|at| at % 8 == 0 && *at < PythonLayout::LARGEST_FRAME)
            && expected.iter().all(|(at, told)| offset(*at) == Some(*told))
    }

    /// In a code object: the words from its first line on to its line table, none of which changes. First byte, and bytes.
    pub(super) fn identity(self) -> (u32, u32) {
        match self.minor {
            ..=7 => (32, 88),
            8..=10 => (40, 88),
            11 => (72, 72),
            _ => (64, 80),
        }
    }

    /// Which call of the interpreter a frame belongs to, by its mark.
    #[must_use]
    pub fn mark_of(self, mark: u8) -> Mark {
        match self.minor {
            // `is_entry`
            11 if mark == 0 => Mark::Inner,
            // `FRAME_OWNED_BY_CSTACK`, from 3.14 on `FRAME_OWNED_BY_INTERPRETER`: a frame of the interpreter's own at the
            // bottom of each call
            12.. if mark >= 3 => Mark::Shim,
            12.. => Mark::Inner,
            _ => Mark::Entry,
        }
    }

    pub(super) fn code(self) -> CodeLayout {
        let (first_line, file, name, qualified_name, line_table, instructions) = match self.minor {
            ..=7 => (36, 96, 104, None, 112, None),
            8..=10 => (40, 104, 112, None, 120, None),
            11 => (72, 112, 120, Some(128), 136, Some(184)),
            12 => (68, 112, 120, Some(128), 136, Some(192)),
            13 => (68, 112, 120, Some(128), 136, Some(200)),
            _ => (68, 112, 120, Some(128), 136, Some(208)),
        };
        CodeLayout { first_line, file, name, qualified_name, line_table, instructions }
    }

    pub(super) fn text(self) -> TextLayout {
        // From 3.12 without `wstr` and its length (PEP 623).
        if self.minor < 12 {
            TextLayout { ascii: 48, other: 72 }
        } else {
            TextLayout { ascii: 40, other: 56 }
        }
    }
}

/// What a frame is for the call of the interpreter that runs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// The call's first frame.
    Entry,
    /// Called by another frame of the same call.
    Inner,
    /// No frame of Python: it lies below the call's first frame.
    Shim,
}
