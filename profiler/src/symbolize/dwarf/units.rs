//! Which units a file has, and which of them hold the addresses in question.

use gimli::{DebugInfoOffset, UnitHeader, UnitOffset, UnitType};

use super::{Dwarf, Failure, Probe, Reader, Unit};
use crate::symbolize::budget::{Budget, Exhausted};

/// Units that may claim an address, on average. More than one do only where something is wrong.
const MOST_CLAIMS: usize = 16;

/// The headers of all units that can hold functions or be referred to, in the order of their offsets.
#[derive(Debug)]
pub(super) struct UnitIndex<'a> {
    headers: Vec<UnitHeader<Reader<'a>>>,
    /// 1 where the headers could not be read to the last.
    pub(super) damaged: usize,
}

/// An address and a unit that holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// For [`UnitIndex::unit`].
    pub(super) unit: usize,
    pub(super) probe: Probe,
}

/// Which units hold the addresses: sorted by unit, then by address.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) pairs: Vec<Claim>,
    /// Units whose extent could not be read.
    pub(super) damaged: usize,
}

impl<'a> UnitIndex<'a> {
    pub(super) fn read(dwarf: &Dwarf<'a>, budget: &mut Budget) -> Result<Self, Exhausted> {
        let mut index = Self { headers: Vec::new(), damaged: 0 };
        let mut units = dwarf.units();
        loop {
            budget.spend(1)?;
            match units.next() {
                Ok(Some(header)) => {
                    if !matches!(header.type_(), UnitType::Type { .. } | UnitType::SplitType { .. }) {
                        index.headers.push(header);
                    }
                }
                Ok(None) => return Ok(index),
                Err(_) => {
                    index.damaged = 1;
                    return Ok(index);
                }
            }
        }
    }

    /// The unit at this place of the index.
    pub(super) fn unit(&self, dwarf: &Dwarf<'a>, at: usize) -> gimli::Result<Unit<'a>> {
        let header = self.headers.get(at).ok_or(gimli::Error::MissingUnitDie)?;
        dwarf.unit(*header)
    }

    /// The unit that holds this place of `.debug_info`, and the place in it.
    pub(super) fn holding(&self, offset: DebugInfoOffset<usize>) -> Option<(usize, UnitOffset)> {
        let at = self.last_from(offset)?;
        Some((at, offset.to_unit_offset(self.headers.get(at)?)?))
    }

    /// The last unit that begins there or before.
    fn last_from(&self, offset: DebugInfoOffset<usize>) -> Option<usize> {
        self.headers.partition_point(|header| header.debug_info_offset() <= Some(offset)).checked_sub(1)
    }

    /// Finds the units of `addresses`, which are sorted.
    ///
    /// A unit's extent is that which `.debug_aranges` states, else that of its first entry, else that of its lines.
    pub(super) fn units_of(
        &self,
        dwarf: &Dwarf<'a>,
        addresses: &[u64],
        budget: &mut Budget,
    ) -> Result<Claims, Exhausted> {
        let mut claims = Claims::default();
        let mut known = vec![false; self.headers.len()];
        if self.by_aranges(dwarf, addresses, &mut known, &mut claims, budget)?.is_err() {
            claims.damaged += 1;
        }
        for unit in (0..self.headers.len()).filter(|unit| !known[*unit]) {
            match self.by_first_entry(dwarf, unit, addresses, &mut claims, budget) {
                Ok(()) => {}
                Err(Failure::Damaged) => claims.damaged += 1,
                Err(Failure::Exhausted) => return Err(Exhausted),
            }
        }
        claims.pairs.sort_unstable_by_key(|claim| (claim.unit, claim.probe.index));
        claims.pairs.dedup_by_key(|claim| (claim.unit, claim.probe.index));
        Ok(claims)
    }

    fn by_aranges(
        &self,
        dwarf: &Dwarf<'a>,
        addresses: &[u64],
        known: &mut [bool],
        claims: &mut Claims,
        budget: &mut Budget,
    ) -> Result<gimli::Result<()>, Exhausted> {
        let mut headers = dwarf.debug_aranges.headers();
        loop {
            budget.spend(1)?;
            let header = match headers.next() {
                Ok(Some(header)) => header,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            let Some(unit) = self.at(header.debug_info_offset()) else { continue };
            let mut entries = header.entries();
            loop {
                budget.spend(1)?;
                match entries.next() {
                    Ok(Some(entry)) => {
                        known[unit] |= entry.length() > 0;
                        claims.add(unit, entry.range(), addresses)?;
                    }
                    Ok(None) => break,
                    // An entry that overflows; the iterator ends by itself where it cannot go on.
                    Err(_) => {}
                }
            }
        }
    }

    /// The unit whose header is at this offset.
    fn at(&self, offset: DebugInfoOffset<usize>) -> Option<usize> {
        self.last_from(offset).filter(|at| self.headers[*at].debug_info_offset() == Some(offset))
    }

    fn by_first_entry(
        &self,
        dwarf: &Dwarf<'a>,
        at: usize,
        addresses: &[u64],
        claims: &mut Claims,
        budget: &mut Budget,
    ) -> Result<(), Failure> {
        let Some(header) = self.headers.get(at) else { return Ok(()) };
        if matches!(header.type_(), UnitType::Partial) {
            // dwz's: they are referred to, and hold no code.
            return Ok(());
        }
        let unit = dwarf.unit(*header)?;
        let mut any = false;
        let mut ranges = dwarf.unit_ranges(&unit)?;
        while let Some(range) = ranges.next()? {
            budget.spend(1)?;
            any |= range.begin < range.end;
            claims.add(at, range, addresses)?;
        }
        if any {
            return Ok(());
        }
        for range in super::lines::sequences(&unit, budget)? {
            claims.add(at, range, addresses)?;
        }
        Ok(())
    }
}

impl Claims {
    fn add(&mut self, unit: usize, range: gimli::Range, addresses: &[u64]) -> Result<(), Exhausted> {
        if super::is_tombstone(range.begin) || range.begin >= range.end {
            return Ok(());
        }
        let first = addresses.partition_point(|address| *address < range.begin);
        for (index, address) in addresses.iter().enumerate().skip(first) {
            if *address >= range.end {
                break;
            }
            if self.pairs.len() > MOST_CLAIMS * addresses.len() + MOST_CLAIMS {
                return Err(Exhausted);
            }
            self.pairs.push(Claim { unit, probe: Probe { address: *address, index } });
        }
        Ok(())
    }
}
