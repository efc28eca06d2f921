//! What CPython says of its own structures from 3.13 on: `_Py_DebugOffsets`, the first thing in `_PyRuntime`
//! (`Include/internal/pycore_runtime.h`, from 3.14 on `pycore_debug_offsets.h`).
//!
//! All of it are words of 64 bits: a cookie of eight letters, the version, whether the build is free-threaded, and then sizes
//! and offsets, structure by structure. The structures have more members in 3.14 than in 3.13.

use super::layout::Version;

const COOKIE: &[u8; 8] = b"xdebugpy";
/// Words that are read: up to the code object's.
pub(super) const WORDS: usize = 50;

/// Offsets in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Offsets {
    /// In an interpreter's state: its threads.
    pub(super) threads: u32,
    /// In a thread's state: the next one, its innermost frame, its thread.
    pub(super) next: u32,
    pub(super) frame: u32,
    pub(super) thread_id: u32,
    /// In a frame: its caller, its code object, its instruction, whose it is.
    pub(super) back: u32,
    pub(super) code: u32,
    pub(super) at: u32,
    pub(super) mark: u32,
    /// In a code object.
    pub(super) file: u32,
    pub(super) name: u32,
    pub(super) qualified_name: u32,
    pub(super) line_table: u32,
    pub(super) first_line: u32,
    pub(super) instructions: u32,
}

impl Offsets {
    /// Reads the beginning of `_PyRuntime`.
    ///
    /// # Errors
    /// Where the build is free-threaded, or says something else than this version would: a sentence without an end.
    pub(super) fn read(bytes: &[u8; WORDS * 8], version: Version) -> Result<Self, String> {
        let word = |index: usize| {
            let at = bytes.get(index * 8..)?.first_chunk::<8>()?;
            Some(u64::from_le_bytes(*at))
        };
        let unknown = || format!("an unknown build of Python 3.{}: its frames are not read", version.minor);
        if !bytes.starts_with(COOKIE)
            || word(1).map(|word| word >> 16) != Some(0x300 | u64::from(version.minor))
        {
            return Err(unknown());
        }
        match word(2) {
            Some(0) => {}
            Some(1) => {
                return Err(
                    "a free-threaded Python (built without its global lock): its frames are not read".into(),
                );
            }
            _ => return Err(unknown()),
        }
        // Where the structures of threads, frames and code objects begin.
        let (thread, frame, code) = if version.minor == 13 { (19, 28, 34) } else { (22, 31, 39) };
        let offset = |index: usize| {
            let offset = word(index).and_then(|offset| u32::try_from(offset).ok());
            offset.filter(|offset| *offset < 1 << 16).ok_or_else(unknown)
        };
        Ok(Self {
            threads: offset(9)?,
            next: offset(thread + 2)?,
            frame: offset(thread + 4)?,
            thread_id: offset(thread + 5)?,
            back: offset(frame + 1)?,
            code: offset(frame + 2)?,
            at: offset(frame + 3)?,
            mark: offset(frame + 5)?,
            file: offset(code + 1)?,
            name: offset(code + 2)?,
            qualified_name: offset(code + 3)?,
            line_table: offset(code + 4)?,
            first_line: offset(code + 5)?,
            instructions: offset(code + 9)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use super::{Offsets, Version, WORDS};

    /// The first words as a C compiler lays them down from the headers of CPython 3.13.0 and 3.14.10, with the global lock,
    /// and without it (`Py_GIL_DISABLED`).
    const V13: [u64; WORDS] = [
        8750607829840520312,
        51183856,
        0,
        283320,
        608,
        632,
        194968,
        7272,
        7264,
        7344,
        7400,
        7656,
        7640,
        7648,
        16,
        7752,
        0,
        7768,
        7760,
        304,
        0,
        8,
        16,
        72,
        152,
        160,
        232,
        32,
        80,
        8,
        0,
        56,
        72,
        70,
        208,
        112,
        120,
        128,
        136,
        68,
        52,
        96,
        104,
        200,
        16,
        8,
        416,
        24,
        88,
        168,
    ];
    const V13_FREE: [u64; WORDS] = [
        8750607829840520312,
        51183856,
        1,
        328256,
        608,
        632,
        215616,
        7272,
        7264,
        7344,
        7400,
        7664,
        7648,
        7656,
        16,
        7760,
        0,
        7784,
        7776,
        304,
        0,
        8,
        16,
        72,
        152,
        160,
        232,
        32,
        80,
        8,
        0,
        56,
        72,
        70,
        224,
        128,
        136,
        144,
        152,
        84,
        68,
        112,
        120,
        216,
        32,
        24,
        432,
        40,
        104,
        184,
    ];
    const V14: [u64; WORDS] = [
        8750607829840520312,
        51251952,
        0,
        316616,
        784,
        808,
        225864,
        7280,
        7272,
        7344,
        7360,
        7408,
        7688,
        7672,
        7680,
        16,
        7784,
        0,
        7800,
        7792,
        7992,
        0,
        832,
        0,
        8,
        16,
        72,
        152,
        160,
        232,
        32,
        88,
        8,
        0,
        56,
        80,
        74,
        64,
        0,
        216,
        112,
        120,
        128,
        136,
        68,
        52,
        96,
        104,
        208,
        0,
    ];
    const V14_FREE: [u64; WORDS] = [
        8750607829840520312,
        51251952,
        1,
        365624,
        784,
        808,
        249976,
        7280,
        7272,
        7344,
        7360,
        7408,
        7712,
        7696,
        7704,
        16,
        7808,
        0,
        7832,
        7824,
        8024,
        17300,
        832,
        0,
        8,
        16,
        72,
        152,
        160,
        232,
        32,
        88,
        8,
        0,
        56,
        80,
        78,
        64,
        72,
        240,
        128,
        136,
        144,
        152,
        84,
        68,
        112,
        120,
        232,
        224,
    ];

    fn read(words: &[u64; WORDS], minor: u8) -> Result<Offsets, String> {
        let mut bytes = [0; WORDS * 8];
        for (index, word) in words.iter().enumerate() {
            bytes[index * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        Offsets::read(&bytes, Version::of((3, minor)).unwrap())
    }

    #[test]
    fn as_the_headers_have_them() {
        let both = Offsets {
            threads: 7344,
            next: 8,
            frame: 72,
            thread_id: 152,
            back: 8,
            code: 0,
            at: 56,
            mark: 70,
            file: 112,
            name: 120,
            qualified_name: 128,
            line_table: 136,
            first_line: 68,
            instructions: 200,
        };
        assert_eq!(read(&V13, 13), Ok(both));
        assert_eq!(read(&V14, 14), Ok(Offsets { mark: 74, instructions: 208, ..both }));
    }

    #[test]
    fn free_threaded_builds_are_declined_in_words() {
        for (words, minor) in [(V13_FREE, 13), (V14_FREE, 14)] {
            let reason = read(&words, minor).unwrap_err();
            assert!(reason.starts_with("a free-threaded Python"), "{reason}");
        }
    }

    #[test]
    fn what_is_not_of_the_version_is_declined() {
        assert!(read(&V13, 14).is_err() && read(&V14, 13).is_err());
        for (index, value) in
            [(0, 0), (1, 0), (2, 2), (9, u64::MAX), (23, 1 << 16), (33, 1 << 40), (43, 1 << 32)]
        {
            let mut words = V13;
            words[index] = value;
            let reason = read(&words, 13).unwrap_err();
            assert!(reason.starts_with("an unknown build of Python 3.13"), "{index}: {reason}");
        }
    }
}
