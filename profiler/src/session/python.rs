//! The target's Python: which frames a stack holds, and where they belong among the native ones.
//!
//! Code objects are read when a stack is met for the first time, for they may be gone soon. Kernel and interpreter know
//! frames apart from one another: each call of the interpreter's loop is one native frame and a group of Python frames.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use profiler_common::{
    counters::Counter,
    python::{PythonFrame, PythonLayout},
};

use crate::{
    probe::Counters,
    symbolize::{
        frame::{Frame, FrameKind, FrameRole},
        symbolizer::CodeLocation,
    },
    target::{
        module::Module,
        process::Process,
        python::{
            Interpreter, Mark,
            code::{self, Code, Identity, Memory},
        },
    },
};

/// The Python frames of a stack by calls of the interpreter's loop, the innermost first, each group as well.
pub(super) type Groups = Box<[Box<[Arc<Frame>]>]>;

/// The interpreter in the target, if there is one.
#[derive(Debug, Default)]
pub(super) struct Python {
    running: Option<Running>,
    /// Found, and not yet initialised when it was looked at last.
    waiting: Option<Waiting>,
    /// Why frames are not read: sentences.
    pub(super) refusals: BTreeSet<String>,
    /// Frames whose code object was gone before it was read.
    pub(super) gone: u64,
}

#[derive(Debug)]
struct Running {
    interpreter: Interpreter,
    memory: Memory,
    bias: u64,
    code_type: u64,
    /// What was read, by address.
    codes: HashMap<u64, (Identity, Code)>,
    /// What was told by the kernel, by content.
    told: HashMap<u64, Code>,
}

#[derive(Debug)]
struct Waiting {
    interpreter: Interpreter,
    memory: Memory,
    bias: u64,
}

/// Code objects that are remembered.
const MOST_CODES: usize = 1 << 17;

impl Python {
    /// Looks whether a module that the target has mapped is an interpreter. The first one is the one.
    pub(super) fn look(&mut self, process: &Process, module: &Arc<Module>, bias: u64) {
        if self.running.is_some() || self.waiting.is_some() {
            return;
        }
        let found = Interpreter::find_in(module).and_then(|found| {
            let Some(interpreter) = found else { return Ok(None) };
            let memory = Memory::of(process).map_err(|error| error.to_string())?;
            Ok(Some(Waiting { interpreter, memory, bias }))
        });
        match found {
            Ok(found) => self.waiting = found,
            Err(reason) => self.refuse(module, &reason),
        }
    }

    /// The layout for the walk, once an interpreter that was found is initialised.
    pub(super) fn begin(&mut self) -> Option<PythonLayout> {
        let waiting = self.waiting.as_ref()?;
        let layout = waiting.interpreter.layout(waiting.bias, &waiting.memory);
        if matches!(layout, Ok(None)) {
            return None;
        }
        let Waiting { interpreter, memory, bias } = self.waiting.take()?;
        match layout {
            Ok(layout) => {
                let code_type = interpreter.code_type(bias);
                let (codes, told) = (HashMap::new(), HashMap::new());
                self.running = Some(Running { interpreter, memory, bias, code_type, codes, told });
                layout
            }
            Err(reason) => {
                self.refuse(&interpreter.module, &reason);
                None
            }
        }
    }

    /// Whether stacks have Python frames now.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The interpreter that runs, the target's memory, and what the loader added to the file's addresses.
    pub(super) fn interpreter(&self) -> Option<(&Interpreter, &Memory, u64)> {
        self.running.as_ref().map(|running| (&running.interpreter, &running.memory, running.bias))
    }

    fn refuse(&mut self, module: &Module, reason: &str) {
        self.refusals.insert(format!("{}: {reason}.", module.path.display()));
    }

    /// Takes in what the kernel tells of a code object.
    pub(super) fn hear(&mut self, record: &[u8]) {
        let Some(running) = &mut self.running else { return };
        if let Some((key, code)) = code::told(record, running.interpreter.version) {
            if running.told.len() >= MOST_CODES {
                running.told.clear();
            }
            running.told.insert(key, code);
        }
    }

    /// Finds what the frames of a new stack are. `death` tells when a code object at an address has died.
    pub(super) fn take_in(&mut self, frames: &[PythonFrame], death: impl Fn(u64) -> u32) -> Groups {
        let Some(running) = &mut self.running else { return Groups::default() };
        let (mut groups, mut group) = (Vec::new(), Vec::new());
        for frame in frames {
            let (address, [.., mark]) = (frame.code & ((1 << 56) - 1), frame.code.to_le_bytes());
            let mark = running.interpreter.version.mark_of(mark);
            if mark != Mark::Shim {
                let known = running.code(address, frame, &death);
                self.gone += u64::from(known.is_none());
                group.push(Arc::new(python_frame(known, frame.at)));
            }
            if mark != Mark::Inner {
                groups.push(std::mem::take(&mut group).into());
            }
        }
        if !group.is_empty() {
            groups.push(group.into());
        }
        groups.into()
    }

    /// Joins a native stack, as it was named location by location, with its Python frames. What the interpreter's loop
    /// does stands in its place; the interpreter's other frames keep theirs.
    pub(super) fn merge<'l>(
        &self,
        native: impl Iterator<Item = (&'l CodeLocation, Vec<Arc<Frame>>)>,
        groups: &Groups,
    ) -> Merged {
        let mut merged = Merged::default();
        let mut groups = groups.iter();
        let mut unanswered = 0;
        for (location, frames) in native {
            let Some(svma) = self.in_interpreter(location) else {
                merged.stack.extend(frames);
                continue;
            };
            let evaluates = self.running.as_ref().is_some_and(|r| r.interpreter.evaluates_at(svma));
            let internals = frames.iter().map(|frame| {
                let role =
                    if frame.role == FrameRole::Allocator { frame.role } else { FrameRole::Interpreter };
                Arc::new(Frame { role, ..(**frame).clone() })
            });
            merged.stack.extend(internals);
            if evaluates {
                match groups.next() {
                    Some(group) => merged.stack.extend(group.iter().cloned()),
                    None => unanswered += 1,
                }
            }
        }
        let left: Vec<_> = groups.collect();
        merged.matches = unanswered == 0 && left.is_empty();
        merged.stack.extend(left.into_iter().flat_map(|group| group.iter().cloned()));
        merged
    }

    /// What the reader should know, in sentences; `unmatched` stacks were whole and yet did not match.
    pub(super) fn warnings(&self, counters: &Counters, unmatched: u64) -> Vec<String> {
        let said = [
            (
                counters.get(Counter::PythonTruncated),
                "stacks have more Python frames than are kept: the outer ones are missing",
            ),
            (counters.get(Counter::PythonUnreadable), "stacks have Python frames that could not be read"),
            (
                counters.get(Counter::PythonNotOurs),
                "stacks have no Python frames, because the thread's state was not found",
            ),
            (self.gone, "Python frames have no name: their code was gone before it was read"),
            (
                unmatched,
                "sites have Python frames that do not match the native ones: their order may be wrong",
            ),
        ];
        let said = said.into_iter().filter(|(times, _)| *times > 0);
        self.refusals.iter().cloned().chain(said.map(|(times, what)| format!("{times} {what}."))).collect()
    }

    fn in_interpreter(&self, location: &CodeLocation) -> Option<crate::target::address::Svma> {
        let (module, svma) = location.module.as_ref()?;
        Arc::ptr_eq(module, &self.running.as_ref()?.interpreter.module).then_some(*svma)
    }
}

/// A stack with its Python frames.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) stack: Vec<Arc<Frame>>,
    /// Whether every call of the interpreter's loop met its Python frames.
    pub(super) matches: bool,
}

impl Running {
    /// The code object that a walk met at an address: as it was told, else as it is read; `None` if it is gone. It may go
    /// while it is read.
    fn code(&mut self, address: u64, walked: &PythonFrame, death: &impl Fn(u64) -> u32) -> Option<&Code> {
        if walked.content != 0 && self.told.contains_key(&walked.content) {
            return self.told.get(&walked.content);
        }
        let version = self.interpreter.version;
        let look = |memory: &Memory| {
            let found = code::identity(memory, version, self.code_type, address);
            found.filter(|found| found.as_walked(address, death(address)) == walked.object)
        };
        let found = look(&self.memory)?;
        let known = self.codes.get(&address).is_some_and(|(identity, _)| *identity == found);
        if !known {
            let code = code::read(&self.memory, version, &found)?;
            if look(&self.memory).as_ref() != Some(&found) {
                return None;
            }
            if self.codes.len() >= MOST_CODES {
                self.codes.clear();
            }
            self.codes.insert(address, (found, code));
        }
        self.codes.get(&address).map(|(_, code)| code)
    }
}

fn python_frame(code: Option<&Code>, at: u64) -> Frame {
    Frame {
        function: Some(
            code.map_or_else(|| "[Python function that is gone]".to_owned(), |c| c.function.clone()),
        ),
        file: code.map(|code| code.file.clone()),
        line: code.and_then(|code| code.line_of(at)),
        module: None,
        address: 0,
        module_offset: None,
        kind: FrameKind::Python,
        inlined: false,
        guessed: false,
        role: FrameRole::Program,
    }
}
