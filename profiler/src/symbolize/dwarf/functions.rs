//! The functions of one unit, and what was inlined into them, at given addresses.
//!
//! The unit's entries are read in one pass. Most of them describe types; where the compiler wrote how far an entry with
//! all that is below it reaches (`DW_AT_sibling`, as gcc does), it is leapt over. Functions can be hidden in what was
//! leapt over (a function inside another one, a method of a local class), so addresses that have no function after the
//! first pass get a second one without leaps.

use gimli::{Abbreviation, AttributeValue, EntriesRaw, UnitOffset};

use super::{
    Dwarf, Failure, Place, Probe, Reader, Unit,
    entry_names::{Names, Naming, Side},
    is_tombstone,
    lines::FileNames,
};
use crate::symbolize::budget::Budget;

/// Functions inlined into each other at one address that are kept. Real ones reach 40.
const MOST_INLINED: usize = 64;

/// One function of a chain that goes from the function that holds an address inwards.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) name: String,
    /// Where the function further out called it; nothing for the outermost.
    pub(super) called_from: Place,
}

/// One unit, and the addresses that it holds, sorted.
pub(super) struct Walk<'w, 'a> {
    pub(super) dwarf: &'w Dwarf<'a>,
    pub(super) unit: &'w Unit<'a>,
    pub(super) side: Side,
    pub(super) probes: &'w [Probe],
}

/// An entry that holds addresses, while those below it are read.
struct Open {
    depth: isize,
    /// Which of the probes it holds.
    probes: Vec<usize>,
}

/// The attributes of a function's entry that tell something here.
#[derive(Default)]
struct Function<'a> {
    low: Option<u64>,
    high: Option<u64>,
    length: Option<u64>,
    ranges: Option<AttributeValue<Reader<'a>>>,
    naming: Naming<'a>,
    call_file: Option<u64>,
    call_line: Option<u64>,
    sibling: Option<UnitOffset>,
}

impl<'a> Walk<'_, 'a> {
    /// Finds the chain of functions for each probe, outermost first. What was found before a failure is in `chains`.
    pub(super) fn run(
        &self,
        chains: &mut [Vec<Level>],
        names: &mut Names<'_, '_>,
        files: &mut FileNames<'_, '_>,
        budget: &mut Budget,
    ) -> Result<(), Failure> {
        if self.pass(false, chains, names, files, budget)? && chains.iter().any(Vec::is_empty) {
            self.pass(true, chains, names, files, budget)?;
        }
        Ok(())
    }

    /// One pass. The answer is whether anything was leapt over.
    fn pass(
        &self,
        thorough: bool,
        chains: &mut [Vec<Level>],
        names: &mut Names<'_, '_>,
        files: &mut FileNames<'_, '_>,
        budget: &mut Budget,
    ) -> Result<bool, Failure> {
        let wanted: Vec<usize> = (0..chains.len()).filter(|at| chains[*at].is_empty()).collect();
        let mut open: Vec<Open> = Vec::new();
        let mut leapt = false;
        let mut entries = self.unit.entries_raw(None)?;
        let mut base = 0;
        while !entries.is_empty() {
            budget.spend(1)?;
            let depth = base + entries.next_depth();
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            while open.last().is_some_and(|scope| scope.depth >= depth) {
                open.pop();
            }
            let inside: &[usize] = open.last().map_or(&[], |scope| &scope.probes);
            let candidates = match abbreviation.tag() {
                gimli::DW_TAG_subprogram if has_code(abbreviation) => wanted.as_slice(),
                gimli::DW_TAG_inlined_subroutine => inside,
                _ => &[],
            };
            let mut sibling = None;
            if candidates.is_empty() {
                if leaps_over(abbreviation, inside, thorough) {
                    sibling = read_sibling(&mut entries, abbreviation)?;
                } else {
                    entries.skip_attributes(abbreviation.attributes())?;
                }
            } else {
                let function = self.read(&mut entries, abbreviation)?;
                let mut held = self.held_by(&function, candidates, budget)?;
                // A function is the outermost of its chain; two that claim an address are one, folded by the linker.
                let outermost = abbreviation.tag() == gimli::DW_TAG_subprogram;
                held.retain(|at| {
                    if outermost { chains[*at].is_empty() } else { chains[*at].len() < MOST_INLINED }
                });
                if held.is_empty() {
                    sibling = function.sibling.filter(|_| !thorough);
                } else {
                    let name = names.name(self.dwarf, self.unit, self.side, function.naming, budget)?;
                    let called_from = Place {
                        file: function.call_file.and_then(|file| files.path(file)),
                        line: function.call_line.and_then(line_number),
                    };
                    for at in &held {
                        budget.spend(1 + name.len() as u64)?;
                        chains[*at].push(Level { name: name.clone(), called_from: called_from.clone() });
                    }
                }
                if abbreviation.has_children() && (!held.is_empty() || !inside.is_empty()) {
                    open.push(Open { depth, probes: held });
                }
            }
            if let Some(sibling) =
                sibling.filter(|at| *at > entries.next_offset() && abbreviation.has_children())
            {
                // What the leap leads to is as deep as what it started from.
                entries = self.unit.entries_raw(Some(sibling))?;
                base = depth;
                leapt = true;
            }
        }
        Ok(leapt)
    }

    fn read(
        &self,
        entries: &mut EntriesRaw<'_, Reader<'a>>,
        abbreviation: &Abbreviation,
    ) -> gimli::Result<Function<'a>> {
        let mut function = Function::default();
        for specification in abbreviation.attributes() {
            let attribute = entries.read_attribute(*specification)?;
            let value = attribute.value();
            match attribute.name() {
                gimli::DW_AT_low_pc => function.low = self.dwarf.attr_address(self.unit, value)?,
                gimli::DW_AT_high_pc => match value {
                    AttributeValue::Udata(length) => function.length = Some(length),
                    value => function.high = self.dwarf.attr_address(self.unit, value)?,
                },
                gimli::DW_AT_ranges => function.ranges = Some(value),
                gimli::DW_AT_call_file => match value {
                    // 0 means no file before version 5, and the unit's own since.
                    AttributeValue::FileIndex(0) if self.unit.header.version() < 5 => {}
                    AttributeValue::FileIndex(file) => function.call_file = Some(file),
                    _ => {}
                },
                gimli::DW_AT_call_line => function.call_line = attribute.udata_value(),
                gimli::DW_AT_sibling => function.sibling = as_sibling(&value),
                name => function.naming.note(name, &value),
            }
        }
        Ok(function)
    }

    /// Which of the candidates the function's code holds.
    fn held_by(
        &self,
        function: &Function<'_>,
        candidates: &[usize],
        budget: &mut Budget,
    ) -> Result<Vec<usize>, Failure> {
        let mut held = Vec::new();
        let mut add = |begin: u64, end: u64| {
            if is_tombstone(begin) {
                return;
            }
            let first = candidates.partition_point(|at| self.probes[*at].address < begin);
            let within = candidates[first..].iter().take_while(|at| self.probes[**at].address < end);
            held.extend(within);
        };
        if let Some(ranges) = function.ranges {
            if let Some(mut ranges) = self.dwarf.attr_ranges(self.unit, ranges)? {
                while let Some(range) = ranges.next()? {
                    budget.spend(1)?;
                    add(range.begin, range.end);
                }
            }
            held.sort_unstable();
            held.dedup();
        } else if let (Some(low), Some(length)) = (function.low, function.length) {
            add(low, low.saturating_add(length));
        } else if let (Some(low), Some(high)) = (function.low, function.high) {
            add(low, high);
        }
        budget.spend(held.len() as u64)?;
        Ok(held)
    }
}

fn line_number(line: u64) -> Option<u32> {
    u32::try_from(line).ok().filter(|line| *line > 0)
}

/// Whether entries of this shape have code: a declaration has none.
fn has_code(abbreviation: &Abbreviation) -> bool {
    abbreviation
        .attributes()
        .iter()
        .any(|attribute| matches!(attribute.name(), gimli::DW_AT_low_pc | gimli::DW_AT_ranges))
}

/// Whether nothing below such an entry is of interest.
fn leaps_over(abbreviation: &Abbreviation, inside: &[usize], thorough: bool) -> bool {
    if thorough || !abbreviation.has_children() {
        return false;
    }
    match abbreviation.tag() {
        gimli::DW_TAG_compile_unit
        | gimli::DW_TAG_partial_unit
        | gimli::DW_TAG_skeleton_unit
        | gimli::DW_TAG_namespace
        | gimli::DW_TAG_module => false,
        gimli::DW_TAG_lexical_block | gimli::DW_TAG_try_block | gimli::DW_TAG_catch_block => {
            inside.is_empty()
        }
        _ => true,
    }
}

fn read_sibling(
    entries: &mut EntriesRaw<'_, Reader<'_>>,
    abbreviation: &Abbreviation,
) -> gimli::Result<Option<UnitOffset>> {
    let is_sibling = |name| name == gimli::DW_AT_sibling;
    let Some(at) = abbreviation.attributes().iter().position(|attribute| is_sibling(attribute.name())) else {
        entries.skip_attributes(abbreviation.attributes())?;
        return Ok(None);
    };
    let (before, from) = abbreviation.attributes().split_at(at);
    entries.skip_attributes(before)?;
    let mut sibling = None;
    for specification in from {
        let attribute = entries.read_attribute(*specification)?;
        if is_sibling(attribute.name()) {
            sibling = as_sibling(&attribute.value());
        }
    }
    Ok(sibling)
}

fn as_sibling(value: &AttributeValue<Reader<'_>>) -> Option<UnitOffset> {
    match value {
        AttributeValue::UnitRef(at) => Some(*at),
        _ => None,
    }
}
