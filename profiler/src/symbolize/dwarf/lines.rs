//! Files and lines out of a unit's line table.

use std::{collections::HashMap, sync::Arc};

use super::{Dwarf, Failure, Place, Probe, Unit, is_tombstone};
use crate::symbolize::budget::Budget;

/// Bytes of a source file's path that are kept.
const MOST_BYTES: usize = 4096;

/// The paths of the files that a unit's line table lists.
pub(super) struct FileNames<'u, 'a> {
    dwarf: &'u Dwarf<'a>,
    unit: &'u Unit<'a>,
    known: HashMap<u64, Option<Arc<str>>>,
}

impl<'u, 'a> FileNames<'u, 'a> {
    pub(super) fn of(dwarf: &'u Dwarf<'a>, unit: &'u Unit<'a>) -> Self {
        Self { dwarf, unit, known: HashMap::new() }
    }

    /// The path of the file with this number.
    pub(super) fn path(&mut self, number: u64) -> Option<Arc<str>> {
        if let Some(known) = self.known.get(&number) {
            return known.clone();
        }
        let path = self.compose(number).map(Arc::from);
        self.known.insert(number, path.clone());
        path
    }

    /// The directory where the compiler ran, the directory of the file, the file's name: each may be absolute.
    fn compose(&self, number: u64) -> Option<String> {
        let header = self.unit.line_program.as_ref()?.header();
        let file = header.file(number)?;
        let mut path =
            self.unit.comp_dir.map(|directory| directory.to_string_lossy().into_owned()).unwrap_or_default();
        for part in file.directory(header).into_iter().chain([file.path_name()]) {
            let part = self.dwarf.attr_string(self.unit, part).ok()?;
            let part = part.to_string_lossy();
            if part.starts_with('/') {
                path.clear();
            } else if !path.is_empty() && !path.ends_with('/') {
                path.push('/');
            }
            path.push_str(&part);
        }
        path.truncate(path.floor_char_boundary(MOST_BYTES));
        (!path.is_empty()).then_some(path)
    }
}

/// Where each probe's instruction is from.
pub(super) fn places(
    unit: &Unit<'_>,
    probes: &[Probe],
    files: &mut FileNames<'_, '_>,
    budget: &mut Budget,
) -> Result<Vec<Place>, Failure> {
    let mut places = vec![Place::default(); probes.len()];
    let Some(program) = unit.line_program.clone() else { return Ok(places) };
    let mut rows = program.rows();
    // A row holds good up to the address of the next one of its sequence.
    let mut last: Option<(u64, u64, Option<u32>)> = None;
    let mut dead = false;
    let mut at_start = true;
    while let Some((_, row)) = rows.next_row()? {
        budget.spend(1)?;
        if at_start {
            dead = is_tombstone(row.address());
        }
        if let Some((begin, file, line)) = last
            && begin < row.address()
            && !dead
        {
            let first = probes.partition_point(|probe| probe.address < begin);
            let covered = probes[first..].iter().take_while(|probe| probe.address < row.address()).count();
            for place in &mut places[first..first + covered] {
                budget.spend(1)?;
                if *place == Place::default() {
                    *place = Place { file: files.path(file), line };
                }
            }
        }
        at_start = row.end_sequence();
        // Line 0 is DWARF's word for code that no line made.
        let line = row.line().and_then(|line| u32::try_from(line.get()).ok());
        last = (!at_start).then(|| (row.address(), row.file_index(), line));
    }
    Ok(places)
}

/// The ranges of code that a unit's line table covers.
pub(super) fn sequences(unit: &Unit<'_>, budget: &mut Budget) -> Result<Vec<gimli::Range>, Failure> {
    let mut sequences = Vec::new();
    let Some(program) = unit.line_program.clone() else { return Ok(sequences) };
    let mut rows = program.rows();
    let mut begin = None;
    while let Some((_, row)) = rows.next_row()? {
        budget.spend(1)?;
        let start = *begin.get_or_insert(row.address());
        if row.end_sequence() {
            sequences.push(gimli::Range { begin: start, end: row.address() });
            begin = None;
        }
    }
    Ok(sequences)
}
