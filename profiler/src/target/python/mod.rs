//! CPython in the target: which version, where it keeps its frames, and what its code objects say.
//!
//! Everything is told from exported symbols, which stripped builds have too. The layouts of its structures are those of
//! each version's headers; a build with other structures (free-threaded, debug) is declined.

pub mod code;
mod cold;
mod functions;
mod layout;
pub mod lines;
mod offsets;
mod pool_code;
pub mod pools;
mod setting;
mod symbols;
mod thread_key;

use std::{ops::Range, sync::Arc};

use object::{Object, ObjectKind};
use profiler_common::{python::PythonLayout, records::Call};

use self::{functions::ElfFile, offsets::Offsets, setting::Tables, symbols::Symbols, thread_key::ThreadKey};
pub use self::{
    layout::{Mark, Version},
    pool_code::PoolPlace,
    setting::Setting,
};
use super::{address::Svma, allocator::AllocatorFunction, module::Module};

/// Bytes of the interpreter's loop that are read, at most.
const MOST_CODE: u64 = 1 << 20;

/// An interpreter in a file.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// The file: the executable or libpython.
    pub module: Arc<Module>,
    /// Its version.
    pub version: Version,
    /// Stated address of `_PyRuntime`, which 3.6 does not have.
    runtime: Option<Svma>,
    thread_key: ThreadKey,
    /// Stated address of `_PyThreadState_Current`, which 3.6 has.
    current_state: Option<Svma>,
    /// Stated address of `PyCode_Type`.
    code_type: Svma,
    /// Stated addresses of `_PyEval_EvalFrameDefault`, with the parts that the compiler put elsewhere.
    evaluator: Vec<Range<u64>>,
    /// Where it opens pools for small objects; none where that is not found.
    pub pool_places: Vec<PoolPlace>,
    /// What says which allocator serves its objects.
    tables: Option<Tables>,
    /// The function that frees code objects; none where it is not found.
    pub code_death: Option<AllocatorFunction>,
}

impl Interpreter {
    /// The interpreter that a file defines, or why it is not one that can be read.
    ///
    /// # Errors
    /// A sentence without an end.
    pub fn find_in(module: &Arc<Module>) -> Result<Option<Self>, String> {
        let Ok(data) = module.data() else { return Ok(None) };
        let Ok(file) = ElfFile::parse(&*data) else { return Ok(None) };
        let mut found = Symbols::default();
        found.read_dynamic(&file);
        // A program that has the interpreter linked into it need not export it.
        if found.code_type.is_none() && is_program(&file) {
            found.read_all(&file);
        }
        let (Some(code_type), false) = (found.code_type, found.evaluator.is_empty()) else { return Ok(None) };
        // A debug build's loop may have several symbols.
        found.read_all(&file);
        for range in found.evaluator.clone() {
            let code = module
                .file_offset_of(Svma(range.start))
                .zip(usize::try_from((range.end - range.start).min(MOST_CODE)).ok())
                .and_then(|(offset, length)| module.bytes_at(offset, length).ok());
            let parts = cold::parts(&file, &code.unwrap_or_default(), range.start);
            found.evaluator.extend(parts);
        }
        let version = match found.py_version {
            Some(at) => {
                let offset = module.file_offset_of(Svma(at)).ok_or("its version cannot be read")?;
                let bytes = module.bytes_at(offset, 4).map_err(|error| error.to_string())?;
                // `PY_VERSION_HEX`: major, minor, micro, level (Include/patchlevel.h).
                let [_, _, minor, major] = <[u8; 4]>::try_from(bytes).map_err(|_| "no version")?;
                (major, minor)
            }
            // The loop's name is as old as 3.6, `_PyRuntime` is one younger.
            None if found.runtime.is_none() => (3, 6),
            None => (3, found.newest_minor),
        };
        let version = Version::of(version).ok_or_else(|| {
            format!("Python {}.{} is not known to heapscope: its frames are not read", version.0, version.1)
        })?;
        let tables = found.object_malloc.zip(found.raw_malloc).and_then(|(object_malloc, raw_malloc)| {
            Tables::find(module, &file, object_malloc, raw_malloc, found.runtime)
        });
        let behind: Vec<u64> =
            found.object_malloc.into_iter().chain(tables.map(|tables| tables.object_function())).collect();
        let key = match found.runtime {
            Some(runtime) => ThreadKey::in_runtime(runtime, version),
            None => found.thread_state.and_then(|function| ThreadKey::asked_by(module, function)),
        };
        Ok(Some(Self {
            thread_key: key.ok_or("where it keeps its threads is not known: its frames are not read")?,
            pool_places: pool_code::places(module, &file, version, &found.pool_functions, &behind),
            tables,
            code_death: code_death(module, &file, code_type),
            module: Arc::clone(module),
            version,
            runtime: found.runtime.map(Svma),
            current_state: found.current_state.filter(|_| version.minor == 6).map(Svma),
            code_type: Svma(code_type),
            evaluator: found.evaluator,
        }))
    }

    /// Where the frames lie, for the walk in the kernel, once the interpreter is initialised; `bias` is what the loader
    /// added to the file's addresses.
    ///
    /// # Errors
    /// A sentence without an end.
    pub fn layout(&self, bias: u64, memory: &code::Memory) -> Result<Option<PythonLayout>, String> {
        let runtime = self.runtime.map(|runtime| bias.wrapping_add(runtime.0));
        let unreadable = "the interpreter's memory cannot be read";
        let told = match runtime.filter(|_| self.version.minor >= 13) {
            Some(runtime) => Some(Offsets::read(&memory.array(runtime).ok_or(unreadable)?, self.version)?),
            None => None,
        };
        if told.is_some_and(|told| !self.version.agrees_with(&told)) {
            return Err(format!(
                "an unknown build of Python 3.{}: its frames are not read",
                self.version.minor
            ));
        }
        let Some(key) = self.thread_key.read(bias, memory)? else { return Ok(None) };
        let layout = self.version.layout(key, told).ok_or_else(|| {
            format!("the interpreter keeps its threads under key {key}, which is not looked up")
        })?;
        let in_runtime =
            |offset: Option<u64>| runtime.zip(offset).map_or(0, |(at, offset)| at.wrapping_add(offset));
        Ok(Some(PythonLayout {
            current: match self.current_state {
                Some(at) => bias.wrapping_add(at.0),
                None => in_runtime(self.version.current()),
            },
            main: in_runtime(self.version.main()),
            ..layout
        }))
    }

    /// Whether a return address, as the file states it, is one of the interpreter's loop.
    #[must_use]
    pub fn evaluates_at(&self, return_address: Svma) -> bool {
        self.evaluator.iter().any(|range| range.contains(&return_address.0.wrapping_sub(1)))
    }

    /// The address of the type of code objects.
    #[must_use]
    pub fn code_type(&self, bias: u64) -> u64 {
        bias.wrapping_add(self.code_type.0)
    }

    /// Which allocator serves its small objects; `None` where that cannot be told.
    #[must_use]
    pub fn setting(&self, bias: u64, memory: &code::Memory) -> Option<Setting> {
        self.tables?.setting(bias, memory)
    }
}

/// Whether a file is a program, and no library.
fn is_program(file: &ElfFile<'_>) -> bool {
    file.kind() == ObjectKind::Executable || file.section_by_name(".interp").is_some()
}

/// `PyTypeObject.tp_dealloc` (`Include/cpython/object.h`), in bytes.
const TP_DEALLOC: u64 = 48;

/// The function in the type of code objects that frees one: it is handed the object.
fn code_death(module: &Module, file: &ElfFile<'_>, code_type: u64) -> Option<AllocatorFunction> {
    let entry = setting::initial_word(module, file, code_type.checked_add(TP_DEALLOC)?)?;
    let function = functions::function_at(file, entry).filter(|found| found.range.start == entry)?;
    Some(AllocatorFunction {
        name: "code_dealloc".into(),
        aliases: Vec::new(),
        entry: Svma(entry),
        size: function.range.end.saturating_sub(entry),
        call: Call::free(0),
    })
}
