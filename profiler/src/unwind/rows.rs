//! One ELF file becomes a sorted list of rows: from this address on, this rule.
//!
//! A walk that starts at an allocator call only looks up addresses of calls. Three quarters of the rows of a file hold
//! no call (they are prologues and epilogues) and are left out: the address of a call still finds the row that was made
//! for it, any other address may find the row of a neighbour. See [`Pruning`].

use std::{ops::Range, sync::Arc};

use profiler_common::tables::{Rule, cfa};

use super::{
    UnwindError,
    cfi::{Frames, Span},
    elf::{Image, Region},
    goroutine,
    rule::END,
};
use crate::target::{
    address::Svma,
    usdt::{self, MEMORY_PROVIDER},
};

/// From `start` up to the next row's start, `rule` holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// First address.
    pub start: Svma,
    /// How to find the caller from there.
    pub rule: Rule,
}

/// Which rows are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pruning {
    /// Only those whose text can hold a call (has a byte `E8` or `FF`) or a system call (`0F 05`), the signal
    /// trampoline, and where the program has probes of its own that tell of its memory. A return address minus one finds the right rule. So does a thread that a signal interrupted in a
    /// system call; one interrupted elsewhere may find the rule of a neighbouring row.
    #[default]
    CallSites,
    /// All: every address finds the right rule.
    None,
}

/// The rows of one file, cheap to clone.
#[derive(Clone, Debug)]
pub struct ModuleRows {
    /// Sorted by `start`, no two neighbours with the same rule. Where no FDE describes the text, there is a row with
    /// the rule `Rule::default()` ([`cfa::NONE`]); the last row always is one.
    pub rows: Arc<[Row]>,
    /// First address of the lowest executable segment. No row starts below it.
    pub text_start: Svma,
    /// What was seen on the way.
    pub statistics: RowStatistics,
    /// How much of the text can be unwound.
    pub coverage: Coverage,
    /// The text that no FDE describes although a call could be in it, in the order of addresses.
    pub undescribed: Arc<[Range<Svma>]>,
}

/// What was seen while the rows of a file were made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowStatistics {
    /// Frame description entries, about one a function.
    pub fdes: u64,
    /// Of those, left out because they or their CIE cannot be read to the end.
    pub damaged_fdes: u64,
    /// Of those, left out because they describe no executable byte of the file.
    pub outside_text: u64,
    /// Of those, left out or cut short because an FDE before them in the text describes the same bytes.
    pub overlapping_fdes: u64,
    /// Rows before anything was left out or merged.
    pub raw_rows: u64,
    /// Rows that remain.
    pub kept_rows: u64,
    /// Sections of call frame information that are compressed in a way that is not read.
    pub unreadable_sections: u64,
    /// Whether reading stopped early, because the file makes more work than any real one.
    pub beyond_budget: bool,
}

/// How much of a file's text can be unwound, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Coverage {
    /// All bytes of the executable segments; old linkers put headers and constants there too.
    pub text: u64,
    /// Those that an FDE describes.
    pub described: u64,
    /// Those that none describes although a call could be among them.
    pub undescribed: u64,
}

/// The rows of an ELF file for walks that start at a call.
///
/// # Errors
/// When the file is not an x86-64 ELF file, has no code, or has no call frame information. Damage inside that
/// information is no error: what is left is used, and [`RowStatistics`] counts the rest.
pub fn rows(elf_bytes: &[u8]) -> Result<ModuleRows, UnwindError> {
    rows_with(elf_bytes, Pruning::CallSites)
}

/// As [`rows`], with a choice of what is kept.
///
/// # Errors
/// As [`rows`].
pub fn rows_with(elf_bytes: &[u8], pruning: Pruning) -> Result<ModuleRows, UnwindError> {
    let image = Image::parse(elf_bytes)?;
    let probes = usdt::find_in_bytes(elf_bytes, MEMORY_PROVIDER);
    let places: Vec<u64> = probes.iter().map(|probe| probe.address.0).collect();
    Ok(assemble(&image, pruning, &places))
}

/// Corrections of a file that are made. Go's runtime needs seven.
const MAX_CORRECTIONS: usize = 64;

/// Whether text can hold a call (`E8` or an `FF /2`, with or without prefixes), or a system call: that is where a
/// thread sits when a signal interrupts it in the kernel. Short of disassembly this errs on the side of "yes".
fn can_hold_a_call(text: &[u8]) -> bool {
    text.len() >= 2
        && (text.iter().any(|byte| matches!(byte, 0xE8 | 0xFF))
            || text.windows(2).any(|pair| pair == [0x0F, 0x05]))
}

pub(super) fn assemble(image: &Image<'_>, pruning: Pruning, places: &[u64]) -> ModuleRows {
    let mut frames = Frames::read(image);
    // Stable: of two FDEs for one address the first of the file wins.
    frames.spans.sort_by_key(|span| span.start);
    let mut assembly = Assembly {
        rows: Vec::new(),
        pruning,
        places,
        statistics: frames.statistics,
        coverage: Coverage::default(),
        undescribed: Vec::new(),
        entry: image.entry,
    };
    let mut spans = frames.spans.as_slice();
    for segment in &image.text {
        let here = spans.partition_point(|span| span.start < segment.end());
        let (inside, later) = spans.split_at(here);
        assembly.segment(segment, inside, &frames.rows);
        spans = later;
    }
    if image.is_go {
        let corrections: Vec<_> =
            image.text.iter().flat_map(goroutine::corrections).take(MAX_CORRECTIONS).collect();
        goroutine::correct(&mut assembly.rows, &corrections);
    }
    assembly.statistics.kept_rows = assembly.rows.len() as u64;
    ModuleRows {
        rows: assembly.rows.into(),
        text_start: Svma(image.text.first().map_or(0, |region| region.start)),
        statistics: assembly.statistics,
        coverage: assembly.coverage,
        undescribed: assembly.undescribed.into(),
    }
}

struct Assembly<'p> {
    rows: Vec<Row>,
    pruning: Pruning,
    /// Addresses whose rows are kept.
    places: &'p [u64],
    statistics: RowStatistics,
    coverage: Coverage,
    undescribed: Vec<Range<Svma>>,
    entry: u64,
}

/// Bytes of undescribed text at a file's entry point that are taken for the thread's first function. The dynamic
/// loader's `_start`, which has no FDE in glibc before 2.37, is 61 bytes long.
const ENTRY_CODE: u64 = 128;

impl Assembly<'_> {
    /// One executable segment with its FDEs, sorted.
    fn segment(&mut self, text: &Region<'_>, spans: &[Span], raw: &[Row]) {
        self.coverage.text += text.bytes.len() as u64;
        let mut done = text.start;
        for span in spans {
            if span.start < done {
                self.statistics.overlapping_fdes += 1;
            } else {
                self.gap(text, done, span.start);
            }
            let start = span.start.max(done);
            if start < span.end {
                let rows = raw.get(span.first_row..span.first_row + span.row_count).unwrap_or_default();
                self.described(text, start, span.end, rows);
                done = span.end;
            }
        }
        self.gap(text, done, text.end());
        // An address behind the segment must not be taken for the last function's.
        self.push(text.end(), Rule::default());
    }

    /// Text from `start` to `end` without an FDE. Padding between functions is not worth a row.
    fn gap(&mut self, text: &Region<'_>, start: u64, end: u64) {
        let undescribed = match self.pruning {
            Pruning::CallSites => text.slice(start, end).is_some_and(can_hold_a_call),
            Pruning::None => start < end,
        };
        if undescribed {
            self.coverage.undescribed += end - start;
            self.undescribed.push(Svma(start)..Svma(end));
            if (start..end).contains(&self.entry) {
                // Nobody called the code at the entry point: a stack that leads there is whole.
                if start < self.entry {
                    self.push(start, Rule::default());
                }
                self.push(self.entry, END);
                let after = self.entry.saturating_add(ENTRY_CODE);
                if after < end {
                    self.push(after, Rule::default());
                }
            } else {
                self.push(start, Rule::default());
            }
        }
    }

    /// Text from `start` to `end` with an FDE that starts there or earlier.
    fn described(&mut self, text: &Region<'_>, start: u64, end: u64, rows: &[Row]) {
        self.coverage.described += end - start;
        for (index, row) in rows.iter().enumerate() {
            let from = row.start.0.max(start);
            let to = rows.get(index + 1).map_or(end, |next| next.start.0);
            let kept = self.pruning == Pruning::None
                || row.rule.cfa_kind == cfa::SIGNAL
                || self.places.iter().any(|place| (from..to).contains(place))
                || text.slice(from, to).is_some_and(can_hold_a_call);
            if from < to && kept {
                self.push(from, row.rule);
            }
        }
    }

    fn push(&mut self, start: u64, rule: Rule) {
        if self.rows.last().is_none_or(|last| last.rule != rule) {
            self.rows.push(Row { start: Svma(start), rule });
        }
    }
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod tests;
