//! What the walk of an interpreter's frames is told, and what it collects.

/// How a walk of Python frames ended.
pub mod python_end {
    /// At the thread's first frame; or the thread runs no Python.
    pub const COMPLETE: u32 = 0;
    /// At the frame limit.
    pub const TRUNCATED: u32 = 1;
    /// A frame, or the thread's state, could not be read.
    pub const UNREADABLE: u32 = 2;
    /// What the thread keeps as its interpreter state is not the state of this thread.
    pub const NOT_OURS: u32 = 3;
}

/// A frame of the interpreter, as it lies in the target's memory.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PythonFrame {
    /// Address of the code object, with the frame's mark ([`PythonLayout::mark`]) in the highest byte.
    pub code: u64,
    /// Where in it the frame is: `f_lasti`, or the distance from the object to the instruction.
    pub at: u64,
    /// What the code object says, in a number: the hash of its name, file, first line and line table; 0 where they could not
    /// be read. Code that is made again is the same code.
    pub content: u64,
    /// What tells the code object from others that lie at its address at other times: [`PythonFrame::identity_of`].
    /// Objects may come to the very addresses of others, with all that belongs to them, so that no word tells them apart:
    /// the last death at the address does.
    pub object: u64,
}

impl PythonFrame {
    /// Words of a code object that tell it from others: from its first line on to the address of its line table, with the
    /// numbers of its variables and the addresses of its names between them.
    pub const IDENTITY_WORDS: usize = 11;

    /// What the words that are there come to (those that are not are 0), after a death ([`Death::at`]).
    #[inline(always)]
    #[must_use]
    pub const fn identity_of(words: &[u64; Self::IDENTITY_WORDS], death: u32) -> u64 {
        let (mut mixed, mut index) = (death as u64, 0);
        while index < Self::IDENTITY_WORDS {
            mixed = (mixed.rotate_left(23) ^ words[index]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            index += 1;
        }
        mixed ^ mixed >> 29
    }
}

/// Where an interpreter keeps its frames: the value of the BPF map `PYTHON`, which has one. Offsets are in bytes.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PythonLayout {
    /// From the thread pointer (fsbase) to where the C library keeps the thread's interpreter state; 0 for no Python.
    pub tls: u64,
    /// In the thread's state: its thread pointer (`thread_id`).
    pub thread_id: u32,
    /// In the thread's state: the innermost frame, or what leads to it.
    pub frame: u32,
    /// Not 0 where `frame` leads to a structure (`_PyCFrame`) that has the frame at `in_cframe`.
    pub through_cframe: u32,
    /// See `through_cframe`.
    pub in_cframe: u32,
    /// Bytes of a frame to read, at most [`PythonLayout::LARGEST_FRAME`].
    pub bytes: u32,
    /// In a frame, a multiple of 8: the code object.
    pub code: u32,
    /// In a frame, a multiple of 8: the frame that called it.
    pub back: u32,
    /// In a frame, a multiple of 8: where it is.
    pub at: u32,
    /// The bits of that word that say it.
    pub at_mask: u64,
    /// In a frame: the byte that tells which frames belong to one call of the interpreter; [`PythonLayout::NO_MARK`] where
    /// there is none.
    pub mark: u32,
    /// In a code object: the first of the words that tell it from others.
    pub identity: u32,
    /// Bytes of them, at most 8 times [`PythonFrame::IDENTITY_WORDS`].
    pub identity_bytes: u32,
    /// In a code object: the first line, and the addresses of name, file and line table.
    pub first_line: u32,
    /// See `first_line`.
    pub name: u32,
    /// See `first_line`.
    pub file: u32,
    /// See `first_line`.
    pub line_table: u32,
    /// In a string: where the characters of one that is ASCII begin.
    pub ascii_text: u32,
    /// In a string: where those of any other begin.
    pub other_text: u32,
    /// In a thread's state: the next state of its interpreter.
    pub next: u32,
    /// In an interpreter: the first of its threads' states.
    pub threads: u32,
    /// Always 0.
    pub reserved: u32,
    /// Address of the word that has the state of the thread which holds the global lock; 0 where there is none. A thread that
    /// is in another interpreter than its first has another state there than in its thread-specific value.
    pub current: u64,
    /// Address of the word that has the main interpreter, behind that of the newest one; 0 where that is not needed.
    pub main: u64,
}
const _: () = assert!(size_of::<PythonLayout>() == 112);

impl PythonLayout {
    /// Most bytes of a frame that can be read.
    pub const LARGEST_FRAME: u32 = 128;
    /// Stands for a byte that the frames do not have.
    pub const NO_MARK: u32 = u32::MAX;
}

/// Entries of the BPF array `DEATHS`, a power of two: the last death of a code object for each hash of an address.
pub const DEATH_SLOTS: usize = 1 << 16;

/// The death of a code object at an address, as `DEATHS` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Death(pub u64);

impl Death {
    #[inline(always)]
    const fn hash(code: u64) -> u64 {
        // Objects are aligned to 16 bytes.
        (code >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The entry for a code object at this address.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "there are fewer slots than 32 bits count")]
    pub const fn slot(code: u64) -> u32 {
        (Self::hash(code) >> 48) as u32 & (DEATH_SLOTS as u32 - 1)
    }

    /// A death at this address, at a time in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn new(code: u64, time: u64) -> Self {
        Self(Self::hash(code) << 32 | (time >> 10 | 1) & 0xffff_ffff)
    }

    /// When the last object at this address died, in some unit; 0 if none has, or if the entry is about another address by
    /// now. So code that lives on is never mistaken for new code because of the deaths of others.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is the time")]
    pub const fn at(self, code: u64) -> u32 {
        if self.0 >> 32 == Self::hash(code) & 0xffff_ffff { self.0 as u32 } else { 0 }
    }
}

/// Entries of the BPF array `CODE_CONTENTS`, a power of two: which content a code object has.
pub const CONTENT_SLOTS: usize = 1 << 14;

/// The content of a code object, as `CODE_CONTENTS` has it. Others may write the entry at the same time: its words agree only
/// if they are of one object.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KnownContent {
    /// [`PythonFrame::content`].
    pub content: u64,
    /// The object, of which the content is taken away by exclusive or.
    pub check: u64,
}

/// A string of Python in a [`CodeRecord`]: how `PyUnicodeObject` describes it.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TextHead {
    /// Its `state`: kind, compact, ascii.
    pub state: u32,
    /// Bytes of its characters; of more than [`CodeRecord::TEXT_BYTES`], only those were copied. 0 for an empty one, and
    /// where it could not be read.
    pub bytes: u32,
}

/// What a code object says, as the ring buffer `PYTHON_CODES` has it: this head, [`CodeRecord::TEXT_BYTES`] for its name and
/// as many for its file, and then its line table.
///
/// It is copied while the code runs, when it is met for the first time: the code may be gone a moment later.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CodeRecord {
    /// Its address.
    pub code: u64,
    /// [`PythonFrame::content`] of the frames that run it.
    pub content: u64,
    /// Function, qualified where the version has that.
    pub name: TextHead,
    /// File.
    pub file: TextHead,
    /// The line that it begins with.
    pub first_line: u32,
    /// Bytes of its line table; of more than [`CodeRecord::TABLE_BYTES`], none were copied.
    pub table_bytes: u32,
}
const _: () = assert!(size_of::<CodeRecord>() == 40);

impl CodeRecord {
    /// Room for a name, and for a path.
    pub const TEXT_BYTES: usize = 256;
    /// Room for a line table.
    pub const TABLE_BYTES: usize = 2048;
}
