//! Names out of an ELF image in memory: the vDSO, which is no file.

use object::{Object, ObjectSymbol, SymbolKind};

use crate::target::address::Svma;

/// The functions of an image, by address.
#[derive(Debug, Default)]
pub(super) struct ImageNames {
    /// First address, first address behind it, name; sorted.
    functions: Vec<(u64, u64, String)>,
}

impl ImageNames {
    /// Reads the dynamic and static symbols of `image`; an image that is not ELF has none.
    pub(super) fn new(image: &[u8]) -> Self {
        let Ok(file) = object::File::parse(image) else { return Self::default() };
        let mut functions: Vec<_> = file
            .dynamic_symbols()
            .chain(file.symbols())
            .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text && symbol.size() > 0)
            .filter_map(|symbol| {
                let end = symbol.address().checked_add(symbol.size())?;
                Some((symbol.address(), end, symbol.name().ok()?.to_owned()))
            })
            .collect();
        // The vDSO names each function twice; the exported name without underscores in front is the weak alias, and
        // `__vdso_…` is what debuggers show.
        functions.sort();
        functions.dedup_by_key(|(start, _, _)| *start);
        Self { functions }
    }

    /// The function that holds `at`.
    pub(super) fn name_of(&self, at: Svma) -> Option<&str> {
        let behind = self.functions.partition_point(|(start, _, _)| *start <= at.0);
        let (_, end, name) = self.functions.get(behind.checked_sub(1)?)?;
        (at.0 < *end).then_some(name)
    }
}
