//! One named frame of a stack.

use serde::Serialize;

/// Which world a frame belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// Machine code: C, C++, Rust, a JIT's output.
    Native,
    /// A line of Python.
    Python,
}

/// What part a frame plays, for colours and for folding away what nobody asked about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum FrameRole {
    /// The allocator and the thin layers over it: `malloc`, `operator new`, `alloc::alloc::…`.
    Allocator,
    /// The C and C++ run-time libraries, the dynamic loader, the thread's start.
    Runtime,
    /// A shared library.
    Library,
    /// The program itself.
    Program,
    /// Code without a file: a JIT's output.
    Jit,
    /// An interpreter at work on a program of its language.
    Interpreter,
    /// Not code: a remark such as `[stack cut at 128 frames]`.
    Remark,
}

/// One named frame. Several frames may have the same address: the functions that the compiler inlined there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Frame {
    /// The demangled function, or `None` where nothing names it.
    pub function: Option<String>,
    /// The source file, as the debug information has it.
    pub file: Option<String>,
    /// The line in that file, from 1.
    pub line: Option<u32>,
    /// The path of the mapped file, as the target sees it.
    pub module: Option<String>,
    /// The code address in the target (a return address, not reduced by one).
    pub address: u64,
    /// Offset in the module (its stated address, SVMA), for frames without a name.
    pub module_offset: Option<u64>,
    /// Native or Python.
    pub kind: FrameKind,
    /// Whether the compiler inlined this function into the next frame.
    pub inlined: bool,
    /// Whether the frame was found by a frame-pointer guess.
    pub guessed: bool,
    /// Its part.
    pub role: FrameRole,
}

impl Frame {
    /// What is not code but a remark about the stack, in brackets.
    #[must_use]
    pub fn remark(text: &str) -> Self {
        Self {
            function: Some(text.to_owned()),
            file: None,
            line: None,
            module: None,
            address: 0,
            module_offset: None,
            kind: FrameKind::Native,
            inlined: false,
            guessed: false,
            role: FrameRole::Remark,
        }
    }
}
