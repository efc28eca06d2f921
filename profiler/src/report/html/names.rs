//! Strings, frames and stacks, each once: sites share most of their stacks, and stacks most of their names.

use std::{collections::HashMap, marker::PhantomData};

use serde::Serialize;

use crate::{
    report::{shown::NO_STACK, stacks::Tint},
    symbolize::{
        frame::{Frame, FrameKind},
        label::{self, clean},
    },
};

/// Texts by number; the first is empty.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Texts {
    texts: Vec<String>,
    #[serde(skip)]
    numbers: HashMap<String, u32>,
}

/// Frames in columns. What is equal here is one frame, whatever its addresses.
#[derive(Debug, Default, Serialize)]
pub(super) struct Frames {
    name: Vec<u32>,
    file: Vec<u32>,
    line: Vec<u32>,
    module: Vec<u32>,
    /// [`Tint`] as a number.
    tint: Vec<u8>,
    /// 1: Python, 2: inlined into the next frame, 4: found by a guess.
    flags: Vec<u8>,
    #[serde(skip)]
    numbers: HashMap<[u32; 6], u32>,
}

/// Stacks as a tree, root first: each node has a frame and, unless it is a root, a parent before it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tree {
    /// How many nodes before the node its parent is; 0 for a root.
    up: Vec<u32>,
    frame: Vec<u32>,
    #[serde(skip)]
    nodes: HashMap<(u32, u32), u32>,
}

/// All of them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Names<'a> {
    texts: Texts,
    frames: Frames,
    tree: Tree,
    /// Frames that were met, by their place in memory: most sites share theirs, and writing a name anew takes time.
    #[serde(skip)]
    met: HashMap<*const Frame, u32>,
    #[serde(skip)]
    lives: PhantomData<&'a Frame>,
}

/// Stands for the parent of a root.
const NO_NODE: u32 = u32::MAX;

impl Default for Texts {
    fn default() -> Self {
        Self { texts: vec![String::new()], numbers: HashMap::from([(String::new(), 0)]) }
    }
}

impl Texts {
    fn number(&mut self, text: String) -> u32 {
        let next = number(self.texts.len());
        *self.numbers.entry(text).or_insert_with_key(|text| {
            self.texts.push(text.clone());
            next
        })
    }
}

impl<'a> Names<'a> {
    /// The number of a text, which becomes harmless.
    pub(super) fn text(&mut self, text: &str) -> u32 {
        self.texts.number(clean(text))
    }

    /// The node that stands for a whole stack, leaf first.
    pub(super) fn stack(&mut self, stack: impl DoubleEndedIterator<Item = &'a Frame>) -> u32 {
        let mut node = NO_NODE;
        for frame in stack.rev() {
            let frame = self.frame(frame);
            node = self.tree.child(node, frame);
        }
        if node == NO_NODE {
            let name = self.texts.number(NO_STACK.to_owned());
            let frame = self.frames.number([name, 0, 0, 0, Tint::Remark as u32, 0]);
            node = self.tree.child(node, frame);
        }
        node
    }

    fn frame(&mut self, frame: &'a Frame) -> u32 {
        if let Some(known) = self.met.get(&std::ptr::from_ref(frame)) {
            return *known;
        }
        let python = u32::from(frame.kind == FrameKind::Python);
        let flags = python | u32::from(frame.inlined) << 1 | u32::from(frame.guessed) << 2;
        let name = self.texts.number(label::name(frame));
        let file = self.text(frame.file.as_deref().unwrap_or_default());
        let module = self.text(frame.module.as_deref().unwrap_or_default());
        let line = frame.line.unwrap_or(0);
        let number = self.frames.number([name, file, line, module, Tint::of(frame) as u32, flags]);
        self.met.insert(frame, number);
        number
    }
}

impl Frames {
    fn number(&mut self, parts @ [name, file, line, module, tint, flags]: [u32; 6]) -> u32 {
        let next = number(self.name.len());
        *self.numbers.entry(parts).or_insert_with(|| {
            self.name.push(name);
            self.file.push(file);
            self.line.push(line);
            self.module.push(module);
            self.tint.push(u8::try_from(tint).unwrap_or_default());
            self.flags.push(u8::try_from(flags).unwrap_or_default());
            next
        })
    }
}

impl Tree {
    fn child(&mut self, parent: u32, frame: u32) -> u32 {
        let next = number(self.up.len());
        *self.nodes.entry((parent, frame)).or_insert_with(|| {
            self.up.push(if parent == NO_NODE { 0 } else { next - parent });
            self.frame.push(frame);
            next
        })
    }
}

/// Four thousand million of anything do not fit the memory that they come from.
fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(NO_NODE - 1)
}
