//! The symbol tables of a file, read with bounds: a damaged one costs neither time nor memory beyond its own size.

use object::{
    LittleEndian as LE, SectionIndex,
    elf::{
        FileHeader64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, SHN_ABS, SHN_UNDEF, STB_GLOBAL, STB_WEAK,
        STT_FUNC, STT_GNU_IFUNC, Sym64,
    },
    read::elf::{ElfFile64, ProgramHeader, SectionHeader, SymbolTable},
    read::{Object, RelocationFlags, RelocationTarget},
};

/// Bytes of a name that we look at. Every name that we know is shorter; users may name longer ones.
const MAX_NAME: usize = 512;

type Table<'data> = SymbolTable<'data, FileHeader64<LE>>;

/// A symbol that the file defines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol<'data> {
    pub(super) name: &'data str,
    /// Stated address.
    pub(super) address: u64,
    /// Bytes; 0 where the file does not say.
    pub(super) size: u64,
    pub(super) is_function: bool,
    /// Visible beyond its source file.
    pub(super) is_global: bool,
}

/// The symbols of one file.
pub(super) struct Symbols<'data> {
    file: ElfFile64<'data, LE>,
    data: &'data [u8],
}

impl<'data> Symbols<'data> {
    /// Parses the headers; the error says what is wrong with the file.
    pub(super) fn parse(data: &'data [u8]) -> Result<Self, String> {
        let file = ElfFile64::parse(data).map_err(|error| error.to_string())?;
        Ok(Self { file, data })
    }

    /// Every symbol that is defined in the file, of `.dynsym`, then of `.symtab`. Functions chosen when the program is
    /// loaded (`STT_GNU_IFUNC`) are left out: their symbol is the chooser's.
    pub(super) fn defined(&self) -> impl Iterator<Item = Symbol<'data>> {
        let tables = [self.file.elf_dynamic_symbol_table(), self.file.elf_symbol_table()];
        tables.into_iter().flat_map(|table| {
            let strings = self.strings(table);
            table.iter().filter_map(move |symbol| defined(symbol, strings))
        })
    }

    /// Whether the file asks for a dynamic loader.
    pub(super) fn has_interpreter(&self) -> bool {
        self.file
            .elf_program_headers()
            .iter()
            .any(|header| matches!(header.interpreter(LE, self.data), Ok(Some(_))))
    }

    /// The slots that the dynamic loader fills with the address of a function, and the function's name: what a PLT stub
    /// jumps through.
    pub(super) fn function_slots(&self) -> impl Iterator<Item = (u64, &'data str)> {
        let table = self.file.elf_dynamic_symbol_table();
        let strings = self.strings(table);
        self.file.dynamic_relocations().into_iter().flatten().filter_map(move |(slot, relocation)| {
            let RelocationFlags::Elf { r_type: R_X86_64_JUMP_SLOT | R_X86_64_GLOB_DAT } = relocation.flags()
            else {
                return None;
            };
            let RelocationTarget::Symbol(index) = relocation.target() else { return None };
            Some((slot, name(table.symbol(index).ok()?, strings)?))
        })
    }

    fn strings(&self, table: &Table<'data>) -> &'data [u8] {
        if table.string_section() == SectionIndex(0) {
            return &[];
        }
        let section = self.file.elf_section_table().section(table.string_section());
        section.ok().and_then(|section| section.data(LE, self.data).ok()).unwrap_or_default()
    }
}

fn defined<'data>(symbol: &Sym64<LE>, strings: &'data [u8]) -> Option<Symbol<'data>> {
    let section = symbol.st_shndx.get(LE);
    let kind = symbol.st_type();
    if section == SHN_UNDEF || section == SHN_ABS || kind == STT_GNU_IFUNC {
        return None;
    }
    Some(Symbol {
        name: name(symbol, strings)?,
        address: symbol.st_value.get(LE),
        size: symbol.st_size.get(LE),
        is_function: kind == STT_FUNC,
        is_global: matches!(symbol.st_bind(), STB_GLOBAL | STB_WEAK),
    })
}

/// The name, without searching a damaged table of strings to its end for each symbol.
fn name<'data>(symbol: &Sym64<LE>, strings: &'data [u8]) -> Option<&'data str> {
    let bytes = strings.get(usize::try_from(symbol.st_name.get(LE)).ok()?..)?;
    let bytes = bytes.get(..MAX_NAME.min(bytes.len()))?;
    let end = bytes.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(bytes.get(..end)?).ok().filter(|name| !name.is_empty())
}
