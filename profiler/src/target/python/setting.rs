//! Which allocator serves Python's objects: what `PYTHONMALLOC` has set, by what is in memory.
//!
//! CPython calls it through a table of a context and four functions (`PyMemAllocatorEx` of `Include/cpython/pymem.h`). Where
//! the table of objects lies is told by the code of `PyObject_Malloc`, that of the raw allocator by `PyMem_RawMalloc`. What
//! the file has in them is pymalloc and malloc; what the memory has is what is in force.

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};
use object::{Object, RelocationTarget};

use super::{code::Memory, functions::ElfFile};
use crate::target::{address::Svma, module::Module};

/// Bytes of code that are looked at: both functions begin with what is looked for. Where a compiler guessed which function is in
/// the table, the context is read only behind the code of that one, which is inlined.
const REACH: usize = 256;
/// Words of a context among which another allocator's function is looked for.
const CONTEXT_WORDS: usize = 6;

/// Which allocator serves objects of 512 bytes and less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// pymalloc; with `hooks` through functions that look after it: `PYTHONMALLOC=debug`, tracemalloc.
    Pymalloc {
        /// Whether there are such functions.
        hooks: bool,
    },
    /// malloc, likewise.
    Malloc {
        /// Whether there are such functions.
        hooks: bool,
    },
    /// Another, such as `PYTHONMALLOC=mimalloc` of 3.13.
    Other,
}

impl Setting {
    /// In words.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pymalloc { hooks: false } => "pymalloc",
            Self::Pymalloc { hooks: true } => "pymalloc behind hooks (PYTHONMALLOC=debug, or tracemalloc)",
            Self::Malloc { hooks: false } => "malloc",
            Self::Malloc { hooks: true } => "malloc behind hooks (PYTHONMALLOC=malloc_debug, or tracemalloc)",
            Self::Other => "another allocator than pymalloc and malloc",
        }
    }
}

/// The two tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tables {
    objects: Table,
    raw: Table,
}

/// A table, as the file has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Table {
    /// Stated address of the table: of its context, which is the first word.
    at: u64,
    /// Stated address of the function in its second word.
    function: u64,
}

impl Tables {
    /// Finds them. `object_malloc` and `raw_malloc` are the two functions, `runtime` is `_PyRuntime`.
    pub(super) fn find(
        module: &Module,
        file: &ElfFile<'_>,
        object_malloc: u64,
        raw_malloc: u64,
        runtime: Option<u64>,
    ) -> Option<Self> {
        let table = |function: u64| {
            let offset = module.file_offset_of(Svma(function))?;
            let length = usize::try_from(module.bytes_from(Svma(function))).unwrap_or(usize::MAX).min(REACH);
            let at = table_of(&module.bytes_at(offset, length).ok()?, function, runtime)?;
            Some(Table { at, function: initial_word(module, file, at.checked_add(8)?)? })
        };
        Some(Self { objects: table(object_malloc)?, raw: table(raw_malloc)? })
    }

    /// The function that serves objects if nothing is set.
    pub(super) fn object_function(&self) -> u64 {
        self.objects.function
    }

    /// What is in force; `None` where the memory cannot be read.
    pub(super) fn setting(&self, bias: u64, memory: &Memory) -> Option<Setting> {
        let table: [u8; 16] = memory.array(bias.wrapping_add(self.objects.at))?;
        let context = u64::from_le_bytes(table[..8].try_into().ok()?);
        let function = u64::from_le_bytes(table[8..].try_into().ok()?);
        if let Some(setting) = self.known(bias, function, false) {
            return Some(setting);
        }
        // `debug_alloc_api_t` of Objects/obmalloc.c, `tracemalloc_…` of Modules/_tracemalloc.c: their context has the
        // allocator that they call.
        let Some(words) = memory.array::<{ CONTEXT_WORDS * 8 }>(context) else { return Some(Setting::Other) };
        let behind = words
            .chunks_exact(8)
            .find_map(|word| self.known(bias, u64::from_le_bytes(word.try_into().ok()?), true));
        Some(behind.unwrap_or(Setting::Other))
    }

    fn known(&self, bias: u64, function: u64, hooks: bool) -> Option<Setting> {
        let stated = function.wrapping_sub(bias);
        // A build without pymalloc has malloc in both.
        if stated == self.raw.function {
            return Some(Setting::Malloc { hooks });
        }
        (stated == self.objects.function).then_some(Setting::Pymalloc { hooks })
    }
}

/// The stated address of the table that a function reads: two words one behind the other, the context and the function.
/// Where that is told by an entry of the global offset table, the entry is of `_PyRuntime`, which has the table from 3.12 on.
fn table_of(code: &[u8], start: u64, runtime: Option<u64>) -> Option<u64> {
    let mut through = None;
    let mut read = Vec::new();
    let instructions = Decoder::with_ip(64, code, start, DecoderOptions::NONE).into_iter();
    for instruction in instructions.take_while(|instruction| !instruction.is_invalid()) {
        let operand = (0..instruction.op_count()).find(|i| instruction.op_kind(*i) == OpKind::Memory);
        if operand.is_none() || instruction.memory_index() != Register::None {
            continue;
        }
        let address = match instruction.memory_base() {
            Register::RIP => {
                if instruction.mnemonic() == Mnemonic::Mov && instruction.op0_kind() == OpKind::Register {
                    through = Some(instruction.op0_register());
                }
                instruction.ip_rel_memory_address()
            }
            base if Some(base) == through => {
                if instruction.op0_kind() == OpKind::Register && Some(instruction.op0_register()) == through {
                    through = None;
                }
                let displacement = instruction.memory_displacement64();
                let Some(address) = runtime.and_then(|at| at.checked_add(displacement)) else { continue };
                address
            }
            _ => continue,
        };
        read.push(address);
        let both = |at: u64| read.contains(&at) && at.checked_add(8).is_some_and(|next| read.contains(&next));
        if let Some(table) =
            [Some(address), address.checked_sub(8)].into_iter().flatten().find(|at| both(*at))
        {
            return Some(table);
        }
    }
    None
}

/// The word that the loader puts at a stated address, as an address of the file.
pub(super) fn initial_word(module: &Module, file: &ElfFile<'_>, at: u64) -> Option<u64> {
    let relocated = file.dynamic_relocations().into_iter().flatten().find(|(place, _)| *place == at);
    if let Some((_, relocation)) = relocated
        && relocation.target() == RelocationTarget::Absolute
    {
        return u64::try_from(relocation.addend()).ok();
    }
    let word = module.bytes_at(module.file_offset_of(Svma(at))?, 8).ok()?;
    Some(u64::from_le_bytes(word.try_into().ok()?)).filter(|word| *word != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_that_a_function_reads() {
        // mov rsi, rdi; test rdi, rdi; mov rdi, [rip + 0x100]; jmp [rip + 0x102]
        let direct =
            [0x48, 0x89, 0xfe, 0x48, 0x85, 0xff, 0x48, 0x8b, 0x3d, 0, 1, 0, 0, 0xff, 0x25, 2, 1, 0, 0];
        assert_eq!(table_of(&direct, 0x1000, None), Some(0x110d));
        assert_eq!(table_of(&direct[..13], 0x1000, None), None);
        // mov rax, [rip + 0x100]; mov rdi, [rax + 0xb0]; jmp [rax + 0xb8]
        let through =
            [0x48, 0x8b, 0x05, 0, 1, 0, 0, 0x48, 0x8b, 0xb8, 0xb0, 0, 0, 0, 0xff, 0xa0, 0xb8, 0, 0, 0];
        assert_eq!(table_of(&through, 0x1000, Some(0x8000)), Some(0x80b0));
        assert_eq!(table_of(&through, 0x1000, None), None);
        // mov rax, [rip + 0x100], the function; mov rdx, [rip + 0xf1], the context
        let reversed = [0x48, 0x8b, 0x05, 0, 1, 0, 0, 0x48, 0x8b, 0x15, 0xf1, 0, 0, 0];
        assert_eq!(table_of(&reversed, 0x1000, None), Some(0x10ff));
        assert_eq!(table_of(&[0xc3], 0x1000, None), None);
        // mov rax, [rip + 0x100], the function, which is compared; mov rax, [rax + 0x100], of what that one reads;
        // mov rax, [rax + 0x108]; mov rdi, [rip + 0xe3], the context
        let guessed = [
            &[0x48, 0x8b, 0x05, 0, 1, 0, 0, 0x48, 0x8b, 0x80, 0, 1, 0, 0][..],
            &[0x48, 0x8b, 0x80, 8, 1, 0, 0, 0x48, 0x8b, 0x3d, 0xe3, 0, 0, 0],
        ];
        assert_eq!(table_of(&guessed.concat(), 0x1000, Some(0x8000)), Some(0x10ff));
    }
}
