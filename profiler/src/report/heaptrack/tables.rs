//! The lines that define: texts, calls, stacks, sizes. Each is written once.

use std::{fmt::Write as _, sync::Arc};

use indexmap::IndexSet;

use crate::{
    report::shown,
    symbolize::{frame::Frame, label},
};

/// A call: its address, its module, and of each function there name, file and line. Texts are numbers.
type Call = (u64, usize, Vec<(usize, usize, u32)>);

/// No stack has this number.
const NO_TRACE: usize = usize::MAX;

/// The lines so far.
pub(super) struct Tables {
    text: String,
    strings: IndexSet<String>,
    calls: IndexSet<Call>,
    /// A call and its caller's trace.
    traces: IndexSet<(usize, usize)>,
    sizes: IndexSet<(u64, usize)>,
}

impl Default for Tables {
    /// With two sizes that stand for no block: heaptrack remembers the last birth by its index, and by 0 that there is none.
    fn default() -> Self {
        Self {
            text: "a 0 0\n".repeat(2),
            strings: IndexSet::new(),
            calls: IndexSet::new(),
            traces: IndexSet::new(),
            sizes: IndexSet::from([(0, NO_TRACE), (1, NO_TRACE)]),
        }
    }
}

impl Tables {
    /// All lines.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The number of a stack, whose frames come leaf first.
    pub(super) fn trace(&mut self, stack: &[Arc<Frame>]) -> usize {
        let calls: Vec<&[Arc<Frame>]> = shown::calls(stack).collect();
        calls.into_iter().rev().fold(0, |caller, call| {
            let call = self.call(call);
            let (index, is_new) = self.traces.insert_full((call, caller));
            if is_new {
                let _ = writeln!(self.text, "t {call:x} {caller:x}");
            }
            index + 1
        })
    }

    /// The index of blocks of this size at this stack.
    pub(super) fn size(&mut self, size: u64, trace: usize) -> u64 {
        let (index, is_new) = self.sizes.insert_full((size, trace));
        if is_new {
            let _ = writeln!(self.text, "a {size:x} {trace:x}");
        }
        index as u64
    }

    fn call(&mut self, frames: &[Arc<Frame>]) -> usize {
        let holder = frames.last();
        let address = holder.map_or(0, |frame| frame.address.saturating_sub(1));
        let module = holder.and_then(|frame| frame.module.as_deref()).map(label::clean);
        let module = module.map_or(0, |module| self.string(&module));
        let functions: Vec<_> = frames
            .iter()
            .map(|frame| {
                let name = self.string(&label::function(frame));
                let file = shown::file(frame).map_or(0, |file| self.string(&file));
                (name, file, frame.line.unwrap_or(0))
            })
            .collect();
        let mut line = format!("i {address:x} {module:x}");
        for (name, file, number) in &functions {
            let _ = write!(line, " {name:x} {file:x} {number:x}");
        }
        let (index, is_new) = self.calls.insert_full((address, module, functions));
        if is_new {
            let _ = writeln!(self.text, "{line}");
        }
        index + 1
    }

    /// The number of a text: its length in bytes, and itself.
    fn string(&mut self, text: &str) -> usize {
        let (index, is_new) = self.strings.insert_full(text.to_owned());
        if is_new {
            let _ = writeln!(self.text, "s {:x} {text}", text.len());
        }
        index + 1
    }
}
