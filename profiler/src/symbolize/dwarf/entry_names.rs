//! The name of a function, which often stands in another entry: what was inlined refers to its abstract instance, a
//! definition to its declaration, and dwz moves shared ones to other units or to another file.

use std::{collections::HashMap, rc::Rc};

use gimli::{AttributeValue, DebugInfoOffset, UnitOffset};

use super::{Dwarf, Reader, Unit, units::UnitIndex};
use crate::symbolize::budget::{Budget, Exhausted};

/// References that are followed. Real chains have up to three.
const MOST_REFERENCES: usize = 16;
/// Units that are kept because something in them was referred to.
const MOST_KEPT: usize = 256;
/// Bytes of a name that are kept.
const MOST_BYTES: usize = 16 << 10;

/// The file that a unit is in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Side {
    Main,
    Supplement,
    /// A split unit's: references leave it for no other unit.
    Split,
}

/// Follows references to names.
#[derive(Debug)]
pub(super) struct Names<'n, 'a> {
    main: (&'n Dwarf<'a>, &'n UnitIndex<'a>),
    supplement: Option<(&'n Dwarf<'a>, &'n UnitIndex<'a>)>,
    kept: HashMap<(Side, usize), Rc<Unit<'a>>>,
}

/// What an entry says of its name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Naming<'a> {
    /// The linker's name, which has the namespaces and types in it.
    pub(super) linkage: Option<AttributeValue<Reader<'a>>>,
    /// The name in the source.
    pub(super) plain: Option<AttributeValue<Reader<'a>>>,
    /// The entry that says more.
    pub(super) origin: Option<AttributeValue<Reader<'a>>>,
}

impl<'a> Naming<'a> {
    /// Takes note of an attribute if it is about the name.
    pub(super) fn note(&mut self, name: gimli::DwAt, value: &AttributeValue<Reader<'a>>) {
        match name {
            gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => self.linkage = Some(*value),
            gimli::DW_AT_name => self.plain = Some(*value),
            gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => self.origin = Some(*value),
            _ => {}
        }
    }

    fn of_entry(unit: &Unit<'a>, at: UnitOffset) -> gimli::Result<Self> {
        let mut entries = unit.entries_raw(Some(at))?;
        let mut naming = Self::default();
        if let Some(abbreviation) = entries.read_abbreviation()? {
            for specification in abbreviation.attributes() {
                let attribute = entries.read_attribute(*specification)?;
                naming.note(attribute.name(), &attribute.value());
            }
        }
        Ok(naming)
    }
}

/// A reference that leaves the unit.
enum Reference {
    /// To the same file.
    Same(DebugInfoOffset),
    /// To the supplementary file.
    Supplement(DebugInfoOffset),
}

/// A name in the making.
struct Search<'b> {
    name: String,
    references_left: usize,
    budget: &'b mut Budget,
}

impl<'n, 'a> Names<'n, 'a> {
    pub(super) fn new(
        dwarf: &'n Dwarf<'a>,
        index: &'n UnitIndex<'a>,
        supplement: Option<(&'n Dwarf<'a>, &'n UnitIndex<'a>)>,
    ) -> Self {
        Self { main: (dwarf, index), supplement, kept: HashMap::new() }
    }

    /// The name of an entry of `unit`; empty where it has none. The linker's name is preferred, wherever it stands.
    pub(super) fn name<'b>(
        &mut self,
        dwarf: &Dwarf<'b>,
        unit: &Unit<'b>,
        mut side: Side,
        naming: Naming<'b>,
        budget: &mut Budget,
    ) -> Result<String, Exhausted> {
        let mut search = Search { name: String::new(), references_left: MOST_REFERENCES, budget };
        let mut next = search.within(dwarf, unit, naming)?;
        while let Some(reference) = next.filter(|_| side != Side::Split) {
            let (there, offset) = match reference {
                Reference::Same(offset) => (side, offset),
                Reference::Supplement(offset) => (Side::Supplement, offset),
            };
            side = there;
            let Some((dwarf, unit, at)) = self.holding(side, offset) else { break };
            let Ok(naming) = Naming::of_entry(&unit, at) else { break };
            next = search.within(dwarf, &unit, naming)?;
        }
        Ok(search.name)
    }

    /// The unit that holds this place of a file, kept for the next time.
    fn holding(
        &mut self,
        side: Side,
        offset: DebugInfoOffset,
    ) -> Option<(&'n Dwarf<'a>, Rc<Unit<'a>>, UnitOffset)> {
        let (dwarf, index) = if side == Side::Main { self.main } else { self.supplement? };
        let (number, at) = index.holding(offset)?;
        if let Some(unit) = self.kept.get(&(side, number)) {
            return Some((dwarf, Rc::clone(unit), at));
        }
        if self.kept.len() == MOST_KEPT {
            self.kept.clear();
        }
        let unit = Rc::new(index.unit(dwarf, number).ok()?);
        self.kept.insert((side, number), Rc::clone(&unit));
        Some((dwarf, unit, at))
    }
}

impl Search<'_> {
    /// Follows references as long as they stay in the unit. What leads out of it is the answer.
    fn within<'b>(
        &mut self,
        dwarf: &Dwarf<'b>,
        unit: &Unit<'b>,
        mut naming: Naming<'b>,
    ) -> Result<Option<Reference>, Exhausted> {
        loop {
            if let Some(linkage) = naming.linkage
                && let Ok(text) = dwarf.attr_string(unit, linkage)
            {
                self.name = self.text(text)?;
                return Ok(None);
            }
            if let Some(plain) = naming.plain
                && self.name.is_empty()
                && let Ok(text) = dwarf.attr_string(unit, plain)
            {
                self.name = self.text(text)?;
            }
            self.budget.spend(1)?;
            if self.references_left == 0 {
                return Ok(None);
            }
            self.references_left -= 1;
            naming = match naming.origin {
                Some(AttributeValue::UnitRef(at)) => match Naming::of_entry(unit, at) {
                    Ok(naming) => naming,
                    Err(_) => return Ok(None),
                },
                Some(AttributeValue::DebugInfoRef(at)) => return Ok(Some(Reference::Same(at))),
                Some(AttributeValue::DebugInfoRefSup(at)) => return Ok(Some(Reference::Supplement(at))),
                _ => return Ok(None),
            };
        }
    }

    fn text(&mut self, found: Reader<'_>) -> Result<String, Exhausted> {
        let bytes = &found.slice()[..found.len().min(MOST_BYTES)];
        self.budget.spend(bytes.len() as u64)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}
