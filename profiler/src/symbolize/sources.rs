//! Where the names in a file's code would come from, without looking any up.

use std::{path::PathBuf, sync::Arc};

use object::{Object, ObjectSymbol, SymbolKind};

use super::{
    debug_files::DebugFiles,
    image::{Elf, Image, has_section},
};
use crate::target::module::{Content, Module};

/// Symbols of a file that are counted, at most.
const MOST_SYMBOLS: usize = 4_000_000;

/// What names the functions of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// Whether the file has debug information of its own: functions with what was inlined, files and lines.
    pub debug_info: bool,
    /// The separate file with its debug information, where it was found.
    pub debug_file: Option<PathBuf>,
    /// Whether there is a compressed table of further functions (`.gnu_debugdata`).
    pub debug_data: bool,
    /// Functions in its symbol table, 0 in a stripped file.
    pub functions: u64,
    /// Functions that it exports.
    pub exported: u64,
    /// Why nothing is known, if the file could not be read.
    pub unreadable: Option<String>,
}

impl Sources {
    /// Looks at the file's headers and symbol tables, and for its debug file.
    pub(super) fn of(module: &Module, files: &DebugFiles) -> Self {
        let unreadable = |reason: String| Self { unreadable: Some(reason), ..Self::default() };
        let image = match &module.content {
            Content::File(file) => match Image::map(file) {
                Ok(image) => image,
                Err(error) => return unreadable(error.to_string()),
            },
            Content::Memory(bytes) => Image::Shared(Arc::clone(bytes)),
        };
        let Some(elf) = image.elf() else { return unreadable("it is no ELF file any more".into()) };
        let debug_info = has_section(&elf, ".debug_info");
        let debug_file = if debug_info { None } else { files.of_module(&module.path, &elf) };
        let sources = Self {
            debug_info,
            debug_data: has_section(&elf, ".gnu_debugdata"),
            functions: functions(elf.symbols()),
            exported: functions(elf.dynamic_symbols()),
            debug_file: debug_file.map(|found| found.path),
            unreadable: None,
        };
        if image.was_cut() { unreadable("it was cut short while it was read".into()) } else { sources }
    }

    /// Whether file and line are known.
    #[must_use]
    pub const fn has_lines(&self) -> bool {
        self.debug_info || self.debug_file.is_some()
    }

    /// Whether functions that are not exported have names.
    #[must_use]
    pub const fn has_functions(&self) -> bool {
        self.has_lines() || self.functions > 0 || self.debug_data
    }
}

fn functions<'data>(symbols: <Elf<'data> as Object<'data>>::SymbolIterator<'_>) -> u64 {
    let is_function = |symbol: &object::read::elf::ElfSymbol64<'_, '_, object::LittleEndian>| {
        symbol.is_definition() && symbol.kind() == SymbolKind::Text
    };
    symbols.take(MOST_SYMBOLS).filter(is_function).count() as u64
}
