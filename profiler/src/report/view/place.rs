//! Where a site is, in the words of source code: the line, the file, the function that asked for its memory.
//!
//! tracemalloc's answer is the innermost line of Python. Ours is the same where the stack has Python frames; elsewhere it
//! is the innermost line that is neither the allocator's nor a run-time library's, as far as lines are known.

use std::{fmt, sync::Arc};

use crate::symbolize::{
    fold::fold,
    frame::{Frame, FrameKind, FrameRole},
    label::{self, clean},
};

/// A line of a file, or what stands for it where none is known.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Line {
    /// The file; the function with its module where no file is known.
    pub name: String,
    /// The line, from 1; 0 for the file as a whole; `None` where no file is known.
    pub number: Option<u32>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "{}:{number}", clean(&self.name)),
            None => f.write_str(&clean(&self.name)),
        }
    }
}

impl Line {
    fn of(frame: &Frame) -> Self {
        match (&frame.file, frame.line) {
            (Some(file), Some(line)) => Self { name: file.clone(), number: Some(line) },
            (Some(file), None) => Self { name: file.clone(), number: Some(0) },
            (None, _) => Self { name: function_of(frame), number: None },
        }
    }

    /// What stands for a site whose stack could not be taken.
    fn unknown() -> Self {
        Self { name: "[no stack]".into(), number: None }
    }

    /// The file as a whole.
    #[must_use]
    pub fn whole_file(self) -> Self {
        Self { number: self.number.map(|_| 0), ..self }
    }
}

/// The frames that lines are told by: those of Python where there are any, else all but the allocator's own. Leaf first.
fn telling(stack: &[Arc<Frame>]) -> Vec<Arc<Frame>> {
    let python: Vec<_> = stack.iter().filter(|frame| frame.kind == FrameKind::Python).cloned().collect();
    if python.is_empty() { fold(stack, false) } else { python }
}

/// The frame whose line a site is counted at.
#[must_use]
pub fn telling_frame(stack: &[Arc<Frame>]) -> Option<Arc<Frame>> {
    let frames = telling(stack);
    let has_line = |frame: &&Arc<Frame>| frame.line.is_some();
    let is_own = |frame: &&Arc<Frame>| !matches!(frame.role, FrameRole::Allocator | FrameRole::Runtime);
    let own = frames.iter().find(|frame| has_line(frame) && is_own(frame));
    own.or_else(|| frames.iter().find(has_line)).or_else(|| frames.first()).cloned()
}

/// The line of a site.
#[must_use]
pub fn line(stack: &[Arc<Frame>]) -> Line {
    telling_frame(stack).map_or_else(Line::unknown, |frame| Line::of(&frame))
}

/// All lines of a site's stack, the oldest call first, as tracemalloc has them.
#[must_use]
pub fn traceback(stack: &[Arc<Frame>]) -> Vec<Line> {
    let lines: Vec<_> = telling(stack).iter().rev().map(|frame| Line::of(frame)).collect();
    if lines.is_empty() { vec![Line::unknown()] } else { lines }
}

/// The function with its module: `grow [libfoo.so.1]`; one of Python without.
#[must_use]
pub fn function_of(frame: &Frame) -> String {
    let name = label::name(frame);
    match &frame.module {
        Some(module) if frame.kind == FrameKind::Native && frame.function.is_some() => {
            format!("{name} [{}]", clean(module.rsplit('/').next().unwrap_or(module)))
        }
        _ => name,
    }
}

/// The file that the frame's code is in: the module, or for Python its source file.
#[must_use]
pub fn module_of(frame: &Frame) -> String {
    let place = if frame.kind == FrameKind::Python { &frame.file } else { &frame.module };
    place.as_deref().map_or_else(|| "[no file]".to_owned(), clean)
}
