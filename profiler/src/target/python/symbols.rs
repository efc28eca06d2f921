//! What an interpreter's file says by its symbols.

use std::ops::Range;

use object::{Object, ObjectSymbol};

use super::functions::ElfFile;

/// Symbols of a file that are looked at, at most.
const MOST_SYMBOLS: usize = 2_000_000;

/// What the symbols say.
#[derive(Default)]
pub(super) struct Symbols {
    pub(super) runtime: Option<u64>,
    pub(super) code_type: Option<u64>,
    /// `_PyThreadState_Current`, to 3.6.
    pub(super) current_state: Option<u64>,
    pub(super) py_version: Option<u64>,
    pub(super) evaluator: Vec<Range<u64>>,
    /// `PyObject_Malloc` and `PyMem_RawMalloc`.
    pub(super) object_malloc: Option<u64>,
    pub(super) raw_malloc: Option<u64>,
    /// `PyGILState_GetThisThreadState`.
    pub(super) thread_state: Option<u64>,
    /// The functions that open pools: first address and length.
    pub(super) pool_functions: Vec<(u64, u64)>,
    /// By the newest function of the stable interface that is there, for versions without `Py_Version`.
    pub(super) newest_minor: u8,
}

/// The version that brought a function ("New in version" in the C API's documentation).
const BROUGHT: [(&[u8], u8); 4] =
    [(b"PyContext_New", 7), (b"PyCode_NewWithPosOnlyArgs", 8), (b"PyFrame_GetCode", 9), (b"PyIter_Send", 10)];

/// What the functions that open pools are called; compilers add endings such as `.constprop.0`.
const OPEN_POOLS: [&[u8]; 3] = [b"allocate_from_new_pool", b"pymalloc_alloc", b"_PyObject_Alloc"];

impl Symbols {
    /// Reads the symbols that are exported.
    pub(super) fn read_dynamic(&mut self, file: &ElfFile<'_>) {
        self.read(file.dynamic_symbols());
    }

    /// Reads those that `strip` takes away.
    pub(super) fn read_all(&mut self, file: &ElfFile<'_>) {
        self.read(file.symbols());
    }

    fn read<'data>(&mut self, symbols: impl Iterator<Item = impl ObjectSymbol<'data>>) {
        for symbol in symbols.take(MOST_SYMBOLS).filter(ObjectSymbol::is_definition) {
            let (address, size) = (symbol.address(), symbol.size());
            let Ok(name) = symbol.name_bytes() else { continue };
            match name {
                b"_PyRuntime" => self.runtime = Some(address),
                b"_PyThreadState_Current" => self.current_state = Some(address),
                b"PyCode_Type" => self.code_type = Some(address),
                b"Py_Version" => self.py_version = Some(address),
                b"PyObject_Malloc" => self.object_malloc = Some(address),
                b"PyGILState_GetThisThreadState" => self.thread_state = Some(address),
                b"PyMem_RawMalloc" => self.raw_malloc = Some(address),
                name if OPEN_POOLS.iter().any(|opens| is_named(name, opens)) && size > 0 => {
                    self.pool_functions.push((address, size));
                }
                name if name.starts_with(b"_PyEval_EvalFrameDefault") && size > 0 => {
                    if let Some(end) = address.checked_add(size)
                        && !self.evaluator.contains(&(address..end))
                    {
                        self.evaluator.push(address..end);
                    }
                }
                name => {
                    if let Some((_, minor)) = BROUGHT.iter().find(|(brought, _)| *brought == name) {
                        self.newest_minor = self.newest_minor.max(*minor);
                    }
                }
            }
        }
    }
}

/// Whether a symbol is of the function with this name, or of what the compiler made of it.
fn is_named(symbol: &[u8], name: &[u8]) -> bool {
    symbol.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
}
