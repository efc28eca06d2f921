//! Which function an address of a file is in, by the file's own symbols alone.
//!
//! For reports, frames are named by `symbolize`, which knows separate debug files and inlining too. Here a file is looked
//! at as it is, without a process; what it lacks is part of the finding.

use std::ops::Range;

use object::{Object, ObjectSymbol, SymbolKind};

use crate::symbolize::{demangle::demangle, label::clean};

/// Characters of a name that are shown.
const LONGEST: usize = 60;

/// The functions of a file, by address.
pub(super) struct Names<'data> {
    /// First address, one past the last, name. Sorted; of several names for an address the first of the file.
    functions: Vec<(u64, u64, &'data str)>,
}

impl<'data> Names<'data> {
    /// Reads the symbol tables. A file without any, or with damaged ones, has no names.
    pub(super) fn read(data: &'data [u8]) -> Self {
        let Ok(file) = object::File::parse(data) else { return Self { functions: Vec::new() } };
        let mut functions: Vec<_> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text)
            .filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?)))
            .filter(|(_, _, name)| !name.is_empty())
            .map(|(start, size, name)| (start, start.saturating_add(size), name))
            .collect();
        functions.sort_by_key(|(start, ..)| *start);
        functions.dedup_by_key(|(start, ..)| *start);
        // Assembler often states no size: then a function ends where the next begins.
        let starts: Vec<u64> = functions.iter().map(|(start, ..)| *start).skip(1).collect();
        for (index, (start, end, _)) in functions.iter_mut().enumerate() {
            if end == start {
                *end = starts.get(index).copied().unwrap_or(u64::MAX);
            }
        }
        Self { functions }
    }

    /// The function at an address.
    pub(super) fn at(&self, address: u64) -> Option<String> {
        self.overlapping(&(address..address.saturating_add(1))).first().map(shown)
    }

    /// The functions that have a part of the range.
    pub(super) fn within(&self, range: &Range<u64>) -> Vec<String> {
        self.overlapping(range).iter().map(shown).collect()
    }

    fn overlapping(&self, range: &Range<u64>) -> &[(u64, u64, &'data str)] {
        let first = self.functions.partition_point(|(start, ..)| *start <= range.start);
        let before =
            first.checked_sub(1).filter(|i| self.functions.get(*i).is_some_and(|f| f.1 > range.start));
        let last = self.functions.partition_point(|(start, ..)| *start < range.end);
        self.functions.get(before.unwrap_or(first)..last).unwrap_or_default()
    }
}

fn shown((_, _, name): &(u64, u64, &str)) -> String {
    let mut name = clean(&demangle(name));
    if let Some((cut, _)) = name.char_indices().nth(LONGEST) {
        name.truncate(cut);
        name.push('…');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_named_by_all_that_lie_in_it() {
        let functions = vec![(10, 20, "a"), (20, 30, "b"), (40, u64::MAX, "_ZN1c1dEv")];
        let names = Names { functions };
        let within = |range| names.within(&range).join(" ");
        assert_eq!(within(0..10), "");
        assert_eq!(within(0..11), "a");
        assert_eq!(within(19..41), "a b c::d()");
        assert_eq!(within(30..40), "");
        assert_eq!(within(35..45), "c::d()");
        assert_eq!(within(60..70), "c::d()");
        assert_eq!((names.at(29), names.at(30)), (Some("b".into()), None));
    }

    #[test]
    fn no_symbols_no_names() {
        assert!(Names::read(b"not an ELF file").at(0).is_none());
    }
}
