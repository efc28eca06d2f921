//! Names for the stubs through which a file calls other files' functions: `malloc@plt`.
//!
//! No symbol names a stub. Its jump goes through a slot, and the dynamic relocation of that slot has the function's name
//! (System V ABI, AMD64 supplement, section 5.2).

use iced_x86::{Decoder, DecoderOptions, OpKind, Register};
use object::{Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, RelocationTarget, elf::SHF_EXECINSTR};

use super::{
    budget::{Budget, Exhausted},
    image::Elf,
    symbol_table::SymbolName,
};

/// The sections of stubs: lazily bound, bound at the start, and those with `endbr64` of their own.
const SECTIONS: [&str; 3] = [".plt", ".plt.got", ".plt.sec"];
/// Bytes of a stub where the section does not say.
const USUAL_SIZE: u64 = 16;

/// Names those of `addresses` that lie in stubs and have no name of a symbol with a size.
pub(super) fn look_up(
    elf: &Elf<'_>,
    addresses: &[u64],
    names: &mut [Option<SymbolName>],
    budget: &mut Budget,
) -> Result<(), Exhausted> {
    let mut slots: Vec<(u64, usize)> = Vec::new();
    for section in SECTIONS.iter().filter_map(|name| elf.section_by_name(name)) {
        let object::SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(SHF_EXECINSTR) == 0 {
            continue;
        }
        let (begin, end) = (section.address(), section.address().saturating_add(section.size()));
        let size = section.elf_section_header().sh_entsize.get(object::LittleEndian);
        let size = if (8..=64).contains(&size) { size } else { USUAL_SIZE };
        let Ok(code) = section.data() else { continue };
        let first = addresses.partition_point(|address| *address < begin);
        for (at, address) in addresses.iter().enumerate().skip(first) {
            if *address >= end {
                break;
            }
            budget.spend(1)?;
            let stub = (address - begin) / size * size;
            if names[at].as_ref().is_none_or(|name| !name.sized)
                && let Some(slot) = slot_of(code, stub, size, begin)
            {
                slots.push((slot, at));
            }
        }
    }
    if slots.is_empty() {
        return Ok(());
    }
    slots.sort_unstable();
    let (Some(relocations), Some(symbols)) = (elf.dynamic_relocations(), elf.dynamic_symbol_table()) else {
        return Ok(());
    };
    for (place, relocation) in relocations {
        budget.spend(1)?;
        let first = slots.partition_point(|(slot, _)| *slot < place);
        let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
        for (_, at) in slots[first..].iter().take_while(|(slot, _)| *slot == place) {
            budget.spend(1)?;
            if let Ok(symbol) = symbols.symbol_by_index(symbol)
                && let Ok(name) = symbol.name()
                && !name.is_empty()
            {
                names[*at] = Some(SymbolName { name: format!("{name}@plt"), sized: true });
            }
        }
    }
    Ok(())
}

/// The slot that the stub at this offset of `code`, which begins at `begin`, jumps through.
fn slot_of(code: &[u8], stub: u64, size: u64, begin: u64) -> Option<u64> {
    let bytes = code.get(usize::try_from(stub).ok()?..)?;
    let bytes = &bytes[..bytes.len().min(usize::try_from(size).ok()?)];
    let instructions = Decoder::with_ip(64, bytes, begin.wrapping_add(stub), DecoderOptions::NONE);
    instructions
        .into_iter()
        .find(|instruction| {
            instruction.is_jmp_near_indirect()
                && instruction.op0_kind() == OpKind::Memory
                && instruction.memory_base() == Register::RIP
        })
        .map(|instruction| instruction.memory_displacement64())
}
