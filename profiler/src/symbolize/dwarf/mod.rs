//! Functions with their inlined callees, files and lines out of DWARF, for many addresses at once.
//!
//! The gimli crate decodes DWARF's encodings; here is what is asked of them. Nothing parsed is kept: the addresses are
//! sorted, each unit that holds some is read once from its start to its end, and only what concerns them is remembered.
//! So memory does not grow with the file, there is no recursion that a file could drive, and every step is paid for out
//! of a [`Budget`]. A library that keeps what it parses takes several times the memory for the same answers (see
//! `benches/symbols.rs`).
//!
//! [`units`] finds the units, [`functions`] walks one, [`entry_names`] follows references to names, [`lines`] reads line
//! tables.

mod entry_names;
mod functions;
mod lines;
mod units;

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use gimli::{DwarfPackageSections, DwarfSections, EndianSlice, LittleEndian, SectionId};

use super::{
    budget::{Budget, Exhausted},
    image::{Elf, Image, Sections},
};
use entry_names::{Names, Side};
use functions::{Level, Walk};
use lines::FileNames;
use units::UnitIndex;

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Dwarf<'a> = gimli::Dwarf<Reader<'a>>;
type Unit<'a> = gimli::Unit<Reader<'a>>;

/// Names of `.dwo` files that are kept, to say which were missing.
const MOST_MISSING: usize = 3;

/// Where in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Option<Arc<str>>,
    pub(super) line: Option<u32>,
}

/// What DWARF says of one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// The functions inlined there, innermost first, then the function that holds them; empty where only the line is
    /// known. Names as the debug information has them, mangled if possible.
    pub(super) functions: Vec<(String, Place)>,
    /// Where the instruction itself is from.
    pub(super) place: Place,
}

/// A unit whose content lies in a file of its own (split DWARF).
#[derive(Debug)]
pub(super) struct SplitUnit {
    /// The file's name as the compiler was told, relative to `directory`.
    pub(super) name: String,
    /// Where the compiler ran.
    pub(super) directory: String,
}

/// The files that hold the debug information of one module.
pub(super) struct Files<'f> {
    /// The one with `.debug_info`.
    pub(super) main: &'f Image,
    /// The file that dwz moved what several files share into.
    pub(super) supplement: Option<&'f Image>,
    /// The package (`.dwp`) of the units that were split off.
    pub(super) package: Option<&'f Image>,
    /// Finds the file of a unit that was split off. It need not be the right one: its id is compared.
    pub(super) split: &'f dyn Fn(&SplitUnit) -> Vec<Image>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// One for each address, in their order.
    pub(super) answers: Vec<Answer>,
    /// Units that could not be read to the end.
    pub(super) damaged_units: usize,
    /// Some of the `.dwo` files that were not found.
    pub(super) missing: BTreeSet<String>,
    /// Whether the work was given up because it became too much.
    pub(super) exhausted: bool,
}

/// Looks up `addresses`, which are sorted and as the file states them.
///
/// # Errors
/// What is wrong with the file as a whole.
pub(super) fn look_up(files: &Files<'_>, addresses: &[u64], budget: &mut Budget) -> Result<Outcome, String> {
    let elf = files.main.elf().ok_or("no ELF file")?;
    let sections = sections_of(&elf, false)?;
    let supplement = files.supplement.and_then(Image::elf);
    let supplement = supplement.map(|elf| sections_of(&elf, false)).transpose()?;
    let package = files.package.and_then(Image::elf);
    let package = package.map(|elf| package_of(&elf)).transpose()?;

    let mut dwarf = sections.borrow(reader);
    if let Some(supplement) = &supplement {
        dwarf.set_sup(supplement.borrow(reader));
    }
    // dwz and `ld -r` let many units share one table of abbreviations.
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    let package = package
        .as_ref()
        .map(|sections| sections.borrow(reader, Reader::new(&[], LittleEndian)))
        .transpose()
        .map_err(|error| format!("its package (.dwp): {error}"))?;

    let mut search = Search {
        files,
        package: package.as_ref(),
        addresses,
        outcome: Outcome { answers: vec![Answer::default(); addresses.len()], ..Outcome::default() },
    };
    search.outcome.exhausted = search.run(&dwarf, budget).is_err();
    Ok(search.outcome)
}

#[expect(clippy::ptr_arg, reason = "what gimli borrows sections with hands this over")]
fn reader<'a>(content: &'a Cow<'_, [u8]>) -> Reader<'a> {
    Reader::new(content, LittleEndian)
}

/// The sections that are asked for anything. A split unit's file calls them otherwise (`.debug_info.dwo`).
fn sections_of<'data>(elf: &Elf<'data>, split: bool) -> Result<DwarfSections<Cow<'data, [u8]>>, String> {
    let mut sections = Sections::of(elf);
    DwarfSections::load(|id| match if split { id.dwo_name() } else { Some(id.name()) } {
        Some(name) if is_needed(id) => sections.content(name),
        _ => Ok(Cow::Borrowed([].as_slice())),
    })
}

/// All sections of a package: its index says for each unit which part of each is its own, and a part that is not there is
/// an error, also of a section that is never read.
fn package_of<'data>(elf: &Elf<'data>) -> Result<DwarfPackageSections<Cow<'data, [u8]>>, String> {
    let mut sections = Sections::of(elf);
    DwarfPackageSections::load(|id| match id.dwo_name() {
        Some(name) => sections.content(name).map_err(PackageError),
        None => Ok(Cow::Borrowed([].as_slice())),
    })
    .map_err(|PackageError(reason)| reason)
}

/// gimli wants an error that its own can become.
struct PackageError(String);

impl From<gimli::Error> for PackageError {
    fn from(error: gimli::Error) -> Self {
        Self(error.to_string())
    }
}

/// Variables' locations, macros and types tell nothing of functions; where they are compressed they would cost much.
fn is_needed(id: SectionId) -> bool {
    use SectionId as Id;
    matches!(
        id,
        Id::DebugAbbrev
            | Id::DebugAddr
            | Id::DebugAranges
            | Id::DebugCuIndex
            | Id::DebugInfo
            | Id::DebugLine
            | Id::DebugLineStr
            | Id::DebugRanges
            | Id::DebugRngLists
            | Id::DebugStr
            | Id::DebugStrOffsets
            | Id::DebugTuIndex
    )
}

/// An address that is looked up: itself, and its place in the list.
#[derive(Clone, Copy, Debug)]
struct Probe {
    address: u64,
    index: usize,
}

struct Search<'s, 'f> {
    files: &'s Files<'f>,
    package: Option<&'s gimli::DwarfPackage<Reader<'s>>>,
    addresses: &'s [u64],
    outcome: Outcome,
}

impl Search<'_, '_> {
    fn run(&mut self, dwarf: &Dwarf<'_>, budget: &mut Budget) -> Result<(), Exhausted> {
        let index = UnitIndex::read(dwarf, budget)?;
        let supplement = match dwarf.sup() {
            Some(supplement) => Some((supplement, UnitIndex::read(supplement, budget)?)),
            None => None,
        };
        let mut names = Names::new(dwarf, &index, supplement.as_ref().map(|(dwarf, index)| (*dwarf, index)));
        let assigned = index.units_of(dwarf, self.addresses, budget)?;
        self.outcome.damaged_units += index.damaged + assigned.damaged;
        for of_unit in assigned.pairs.chunk_by(|one, other| one.unit == other.unit) {
            let Some(first) = of_unit.first() else { continue };
            let probes: Vec<Probe> = of_unit
                .iter()
                .map(|pair| pair.probe)
                .filter(|probe| self.outcome.answers[probe.index].functions.is_empty())
                .collect();
            let visited = match index.unit(dwarf, first.unit) {
                Ok(unit) => self.visit(dwarf, &unit, &probes, &mut names, budget),
                Err(error) => Err(error.into()),
            };
            match visited {
                Ok(()) => {}
                Err(Failure::Damaged) => self.outcome.damaged_units += 1,
                Err(Failure::Exhausted) => return Err(Exhausted),
            }
        }
        Ok(())
    }

    /// Looks up what lies in one unit. What was found before something damaged is kept.
    fn visit<'a>(
        &mut self,
        dwarf: &Dwarf<'a>,
        unit: &Unit<'a>,
        probes: &[Probe],
        names: &mut Names<'_, 'a>,
        budget: &mut Budget,
    ) -> Result<(), Failure> {
        let mut files = FileNames::of(dwarf, unit);
        let places = lines::places(unit, probes, &mut files, budget);
        let mut chains = vec![Vec::new(); probes.len()];
        let walked = match unit.dwo_id {
            None => {
                Walk { dwarf, unit, side: Side::Main, probes }.run(&mut chains, names, &mut files, budget)
            }
            Some(id) => self.visit_split(dwarf, unit, id, probes, &mut chains, names, &mut files, budget),
        };
        let (places, lines_read) = match places {
            Ok(places) => (places, Ok(())),
            Err(failure) => (vec![Place::default(); probes.len()], Err(failure)),
        };
        for ((probe, chain), place) in probes.iter().zip(chains).zip(places) {
            let answer = &mut self.outcome.answers[probe.index];
            if !chain.is_empty() || answer.place == Place::default() {
                *answer = Answer { functions: innermost_first(chain, &place), place };
            }
        }
        walked.and(lines_read)
    }

    /// The same where the unit's content lies elsewhere: in the package, or in a file.
    #[expect(clippy::too_many_arguments, reason = "all of it is the state of one visit")]
    fn visit_split(
        &mut self,
        dwarf: &Dwarf<'_>,
        skeleton: &Unit<'_>,
        id: gimli::DwoId,
        probes: &[Probe],
        chains: &mut [Vec<Level>],
        names: &mut Names<'_, '_>,
        files: &mut FileNames<'_, '_>,
        budget: &mut Budget,
    ) -> Result<(), Failure> {
        let mut walk = |split: &Dwarf<'_>| -> Result<bool, Failure> {
            let mut units = split.units();
            while let Some(header) = units.next()? {
                budget.spend(1)?;
                let mut unit = split.unit(header)?;
                if unit.dwo_id == Some(id) {
                    unit.copy_relocated_attributes(skeleton);
                    let walk = Walk { dwarf: split, unit: &unit, side: Side::Split, probes };
                    return walk.run(chains, names, files, budget).map(|()| true);
                }
            }
            Ok(false)
        };
        if let Some(package) = self.package
            && let Some(split) = package.find_cu(id, dwarf)?
            && walk(&split)?
        {
            return Ok(());
        }
        let text = |reader: Reader<'_>| reader.to_string_lossy().into_owned();
        let name = match skeleton.dwo_name()? {
            Some(name) => text(dwarf.attr_string(skeleton, name)?),
            None => String::new(),
        };
        let wanted = SplitUnit { name, directory: skeleton.comp_dir.map(text).unwrap_or_default() };
        for image in (self.files.split)(&wanted) {
            let Some(elf) = image.elf() else { continue };
            let Ok(sections) = sections_of(&elf, true) else { continue };
            let mut split = sections.borrow(reader);
            split.make_dwo(dwarf);
            if walk(&split)? {
                return Ok(());
            }
        }
        if self.outcome.missing.len() < MOST_MISSING {
            self.outcome.missing.insert(wanted.name);
        }
        // The compiler may have left the functions with inlined ones in the skeleton too.
        Walk { dwarf, unit: skeleton, side: Side::Split, probes }.run(chains, names, files, budget)
    }
}

/// Each function with the place where it was at that moment: the innermost at its instruction, the others where the next
/// one was inlined.
fn innermost_first(chain: Vec<Level>, place: &Place) -> Vec<(String, Place)> {
    let mut at = place.clone();
    let mut functions = Vec::with_capacity(chain.len());
    for level in chain.into_iter().rev() {
        let called_from = level.called_from;
        functions.push((level.name, std::mem::replace(&mut at, called_from)));
    }
    functions
}

/// Why a unit was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Damaged,
    Exhausted,
}

impl From<gimli::Error> for Failure {
    fn from(_: gimli::Error) -> Self {
        Self::Damaged
    }
}

impl From<Exhausted> for Failure {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

/// Whether a range begins where no code can be: linkers put 0, or 1 in range lists, in place of the address of a function
/// that they left out.
fn is_tombstone(begin: u64) -> bool {
    begin <= 1
}
