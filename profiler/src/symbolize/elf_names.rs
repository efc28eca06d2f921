//! Names for the addresses of one ELF file, from everything that tells them.
//!
//! The sources, best first: DWARF (functions with what was inlined, files and lines) in the file itself or, where it has
//! none, in its debug file; `.symtab` of either; `.dynsym`; `.gnu_debugdata`, a compressed table of the functions that
//! `.dynsym` lacks; the stubs of the procedure linkage table. All addresses of a file are looked up together, after which
//! nothing of it is kept.

use std::{io::Read, panic::AssertUnwindSafe, path::Path, sync::Arc};

use super::{
    budget::{Budget, Exhausted},
    debug_files::{DebugFile, DebugFiles},
    dwarf::{self, Answer, Place},
    image::{Image, Sections, build_id, has_section},
    plt,
    symbol_table::{self, SymbolName, Table},
};
use crate::target::{
    address::Svma,
    module::{Content, Module},
};

/// Bytes of a compressed `.gnu_debugdata`: it holds function symbols alone, 100 kB of them in a large library.
const MOST_DEBUGDATA: usize = 8 << 20;
/// Bytes of the same decompressed.
const MOST_DEBUGDATA_CONTENT: u64 = 64 << 20;
/// KiB that its decompression may take: `xz -9` needs 65 MiB.
const MOST_XZ_MEMORY: u32 = 128 << 10;

/// What is known of one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// The functions that were inlined here, innermost first, then the function that holds them all; symbols as the file
    /// has them, mangled.
    pub(super) functions: Vec<(String, Place)>,
}

/// Why names are missing that a file should have had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameLoss {
    /// The file could not be opened or mapped.
    #[error("it could not be read ({0}), so its functions have no names")]
    Unreadable(String),
    /// Not the file that was mapped any more, though its name and number are the same.
    #[error("it was written to since the process mapped it, so its functions have no names")]
    Changed,
    /// Cut short under our eyes.
    #[error("it was cut short while it was read, so its functions have no names")]
    Cut,
    /// The same of another file.
    #[error(
        "its debug file was cut short while it was read; its functions have names from its symbol table at most"
    )]
    DebugFileCut,
    /// DWARF that makes no sense.
    #[error("its debug information is damaged ({0}); its functions have names from its symbol table at most")]
    DamagedDebugInfo(String),
    /// A part of it makes no sense.
    #[error(
        "{0} units of its debug information are damaged; some functions have names from its symbol table at most"
    )]
    DamagedUnits(usize),
    /// Split DWARF without its files.
    #[error(
        "files with its split debug information were not found ({0}). Put them where the compiler wrote them, or in a \
         folder named by --debug-dir"
    )]
    MissingSplitUnits(String),
    /// A file made to keep us busy.
    #[error("its debug information and symbols need more work than any real file's, and were given up")]
    TooMuch,
    /// A fault in what reads it.
    #[error("reading it failed in a way that is a fault of heapscope; please report it")]
    Fault,
}

/// Names `addresses`, which are sorted and without repetition. One answer for each, in their order, and what went wrong.
pub(super) fn look_up(
    module: &Module,
    files: &DebugFiles,
    addresses: &[Svma],
) -> (Vec<Named>, Vec<NameLoss>) {
    let nothing = || vec![Named::default(); addresses.len()];
    let addresses: Vec<u64> = addresses.iter().map(|address| address.0).collect();
    let mut losses = Vec::new();
    // No input is known that makes the readers panic; if there is one, it must cost names and not the recording.
    let look_up =
        AssertUnwindSafe(|| Lookup { module, files, addresses: &addresses, losses: &mut losses }.run());
    match std::panic::catch_unwind(look_up) {
        Ok(Ok(named)) => (named, losses),
        Ok(Err(loss)) => (nothing(), vec![loss]),
        Err(_) => (nothing(), vec![NameLoss::Fault]),
    }
}

struct Lookup<'l> {
    module: &'l Module,
    files: &'l DebugFiles,
    addresses: &'l [u64],
    losses: &'l mut Vec<NameLoss>,
}

impl Lookup<'_> {
    fn run(mut self) -> Result<Vec<Named>, NameLoss> {
        let image = match &self.module.content {
            Content::File(file) => {
                Image::map(file).map_err(|error| NameLoss::Unreadable(error.to_string()))?
            }
            Content::Memory(bytes) => Image::Shared(Arc::clone(bytes)),
        };
        let Some(elf) = image.elf() else {
            return Err(NameLoss::Unreadable("it is no ELF file any more".into()));
        };
        if self.module.build_id.is_some() && build_id(&elf) != self.module.build_id {
            return Err(NameLoss::Changed);
        }
        let mut budget = Budget::for_one_file();
        let has_debug_info = has_section(&elf, ".debug_info");
        let debug_file = if has_debug_info { None } else { self.files.of_module(&self.module.path, &elf) };
        let (debug_image, debug_path) = match &debug_file {
            Some(DebugFile { image, path }) => (image, path.as_path()),
            None => (&image, self.module.path.as_path()),
        };
        let answers = self.ask_dwarf(debug_image, debug_path, &mut budget);
        let mut names = vec![None; self.addresses.len()];
        if self.ask_symbols(&image, debug_file.as_ref(), &mut names, &mut budget).is_err() {
            self.losses.push(NameLoss::TooMuch);
        }
        if image.was_cut() {
            return Err(NameLoss::Cut);
        }
        let mut answers = answers.into_iter();
        if debug_file.is_some_and(|file| file.image.was_cut()) {
            self.losses.push(NameLoss::DebugFileCut);
            answers = Vec::new().into_iter();
        }
        Ok(names.into_iter().map(|name| merge(answers.next().unwrap_or_default(), name)).collect())
    }

    fn ask_dwarf(&mut self, image: &Image, path: &Path, budget: &mut Budget) -> Vec<Answer> {
        let Some(elf) = image.elf().filter(|elf| has_section(elf, ".debug_info")) else { return Vec::new() };
        let supplement = self.files.supplement_of(path, &elf);
        let package = self.files.package_of(&self.module.path).or_else(|| self.files.package_of(path));
        let files = dwarf::Files {
            main: image,
            supplement: supplement.as_ref().map(|found| &found.image),
            package: package.as_ref().map(|found| &found.image),
            split: &|unit| self.files.split(&self.module.path, unit),
        };
        let outcome = match dwarf::look_up(&files, self.addresses, budget) {
            Ok(outcome) => outcome,
            Err(reason) => {
                self.losses.push(NameLoss::DamagedDebugInfo(reason));
                return Vec::new();
            }
        };
        if outcome.damaged_units > 0 {
            self.losses.push(NameLoss::DamagedUnits(outcome.damaged_units));
        }
        if !outcome.missing.is_empty() {
            let missing: Vec<String> = outcome.missing.into_iter().collect();
            self.losses.push(NameLoss::MissingSplitUnits(missing.join(", ")));
        }
        if outcome.exhausted {
            self.losses.push(NameLoss::TooMuch);
        }
        if supplement.is_some_and(|found| found.image.was_cut())
            || package.is_some_and(|found| found.image.was_cut())
        {
            self.losses.push(NameLoss::DebugFileCut);
            return Vec::new();
        }
        outcome.answers
    }

    fn ask_symbols(
        &self,
        image: &Image,
        debug_file: Option<&DebugFile>,
        names: &mut [Option<SymbolName>],
        budget: &mut Budget,
    ) -> Result<(), Exhausted> {
        let Some(elf) = image.elf() else { return Ok(()) };
        symbol_table::look_up(&elf, Table::Full, self.addresses, names, budget)?;
        if let Some(elf) = debug_file.and_then(|found| found.image.elf()) {
            symbol_table::look_up(&elf, Table::Full, self.addresses, names, budget)?;
        }
        symbol_table::look_up(&elf, Table::Dynamic, self.addresses, names, budget)?;
        if names.iter().any(|name| name.as_ref().is_none_or(|name| !name.sized))
            && let Some(image) = debug_data(image)
            && let Some(elf) = image.elf()
        {
            symbol_table::look_up(&elf, Table::Full, self.addresses, names, budget)?;
        }
        plt::look_up(&elf, self.addresses, names, budget)
    }
}

/// The ELF file in `.gnu_debugdata`, compressed by xz.
pub(super) fn debug_data(image: &Image) -> Option<Image> {
    let elf = image.elf()?;
    let content = Sections::of(&elf).content(".gnu_debugdata").ok()?;
    if content.is_empty() || content.len() > MOST_DEBUGDATA {
        return None;
    }
    let mut bytes = Vec::new();
    let xz = lzma_rust2::XzReader::new_mem_limit(content.as_ref(), false, MOST_XZ_MEMORY);
    xz.take(MOST_DEBUGDATA_CONTENT + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MOST_DEBUGDATA_CONTENT).then_some(Image::Owned(bytes))
}

/// What DWARF says, completed by the symbol.
fn merge(answer: Answer, symbol: Option<SymbolName>) -> Named {
    let Answer { mut functions, place } = answer;
    match (functions.last_mut(), symbol) {
        // The linker's name has the namespaces, which some compilers leave out of the debug information.
        (Some((name, _)), Some(symbol)) if symbol.sized && is_mangled(&symbol.name) && !is_mangled(name) => {
            *name = symbol.name;
        }
        // An alias that the C library keeps for itself (`__pthread_create_2_1`) is shown by the name that callers know.
        (Some((name, _)), Some(symbol))
            if symbol.sized && !is_mangled(name) && underscores(&symbol.name) < underscores(name) =>
        {
            *name = symbol.name;
        }
        (Some(_), _) => {}
        // A symbol without a size is believed only where the line table knows the address too.
        (None, Some(symbol)) if symbol.sized || place != Place::default() => {
            functions.push((symbol.name, place))
        }
        (None, _) => {}
    }
    functions.retain(|(name, _)| !name.is_empty());
    Named { functions }
}

/// How many underscores a name begins with.
fn underscores(name: &str) -> usize {
    name.bytes().take_while(|byte| *byte == b'_').count()
}

fn is_mangled(name: &str) -> bool {
    ["_Z", "_R", "$s", "$S"].iter().any(|prefix| name.starts_with(prefix))
}
