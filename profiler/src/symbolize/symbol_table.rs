//! Functions out of an ELF file's symbol tables, for many addresses at once.
//!
//! A table is read once, in its order, and only the symbols that hold one of the addresses are remembered: a large library
//! has a million, and sorting them costs more time and memory than they are worth.

use object::{LittleEndian, Object, ObjectSymbol, SymbolKind, read::elf::ElfSymbol64};

use super::{
    budget::{Budget, Exhausted},
    image::Elf,
};

/// Bytes of a name that are kept.
const MOST_BYTES: usize = 16 << 10;

/// Which symbols are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Table {
    /// `.symtab`: all functions.
    Full,
    /// `.dynsym`: those that other files can use.
    Dynamic,
}

/// What the tables say of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SymbolName {
    pub(super) name: String,
    /// Whether the symbol says that it reaches this far. One without a size claims everything up to the next symbol,
    /// which in a half-stripped file may be megabytes away.
    pub(super) sized: bool,
}

type Symbol<'data, 'elf> = ElfSymbol64<'data, 'elf, LittleEndian>;

/// Names those of `addresses` (sorted) in `names` that have no name yet, or one from a symbol without size.
pub(super) fn look_up(
    elf: &Elf<'_>,
    table: Table,
    addresses: &[u64],
    names: &mut [Option<SymbolName>],
    budget: &mut Budget,
) -> Result<(), Exhausted> {
    let mut best: Vec<Option<(u64, Rank<'_>)>> = vec![None; addresses.len()];
    let mut sizeless = false;
    for symbol in functions(elf, table) {
        budget.spend(1)?;
        let start = symbol.address();
        if symbol.size() == 0 {
            sizeless = true;
            continue;
        }
        // A symbol that ends beyond the address space is damaged, and would claim whatever has no name.
        let Some(end) = start.checked_add(symbol.size()) else { continue };
        let first = addresses.partition_point(|address| *address < start);
        let held = addresses[first..].partition_point(|address| *address < end);
        if held == 0 {
            continue;
        }
        let Some(rank) = Rank::of(&symbol) else { continue };
        budget.spend(held as u64)?;
        for best in &mut best[first..first + held] {
            // The innermost symbol, and of its names the best.
            if best.is_none_or(|(other, other_rank)| (other, other_rank) < (start, rank)) {
                *best = Some((start, rank));
            }
        }
    }
    for (name, best) in names.iter_mut().zip(&best) {
        if let Some((_, rank)) = best
            && name.as_ref().is_none_or(|name| !name.sized)
        {
            *name = Some(SymbolName { name: rank.text(), sized: true });
        }
    }
    if sizeless && names.iter().any(Option::is_none) {
        look_up_sizeless(elf, table, addresses, names, budget)?;
    }
    Ok(())
}

/// The same for functions written in assembler without a size: the nearest symbol before the address, if it is such a
/// one.
fn look_up_sizeless(
    elf: &Elf<'_>,
    table: Table,
    addresses: &[u64],
    names: &mut [Option<SymbolName>],
    budget: &mut Budget,
) -> Result<(), Exhausted> {
    let mut starts: Vec<(u64, Option<Rank<'_>>)> = functions(elf, table)
        .map(|symbol| (symbol.address(), if symbol.size() == 0 { Rank::of(&symbol) } else { None }))
        .collect();
    budget.spend(starts.len() as u64)?;
    starts.sort_unstable();
    for (address, name) in addresses.iter().zip(names).filter(|(_, name)| name.is_none()) {
        let behind = starts.partition_point(|(start, _)| start <= address);
        if let Some((_, Some(rank))) = behind.checked_sub(1).and_then(|at| starts.get(at)) {
            *name = Some(SymbolName { name: rank.text(), sized: false });
        }
    }
    Ok(())
}

fn functions<'elf, 'data>(elf: &'elf Elf<'data>, table: Table) -> impl Iterator<Item = Symbol<'data, 'elf>> {
    let symbols = match table {
        Table::Full => elf.symbols(),
        Table::Dynamic => elf.dynamic_symbols(),
    };
    symbols.filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text)
}

/// Which of several names at one place is shown: the greatest. `malloc` rather than `__libc_malloc`, a global one rather
/// than a weak or local one, then the shortest, then by the alphabet, so that every run shows the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank<'data> {
    fewest_underscores: std::cmp::Reverse<usize>,
    binding: u8,
    shortest: std::cmp::Reverse<usize>,
    name: std::cmp::Reverse<&'data [u8]>,
}

impl<'data> Rank<'data> {
    fn of(symbol: &Symbol<'data, '_>) -> Option<Self> {
        let name = symbol.name_bytes().ok().filter(|name| !name.is_empty())?;
        let name = &name[..name.len().min(MOST_BYTES)];
        let underscores = name.iter().take_while(|byte| **byte == b'_').count();
        Some(Self {
            fewest_underscores: std::cmp::Reverse(underscores),
            binding: if symbol.is_local() { 0 } else { 1 + u8::from(!symbol.is_weak()) },
            shortest: std::cmp::Reverse(name.len()),
            name: std::cmp::Reverse(name),
        })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(self.name.0).into_owned()
    }
}
