//! Runs the call frame instructions of a file, entry by entry, within bounds that a damaged file cannot stretch.
//!
//! gimli reads every entry; only the way from one to the next is our own, because gimli's iterator gives up at the
//! first damaged entry and would lose all functions behind it.

use gimli::{
    CommonInformationEntry, DebugFrame, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian, Reader,
    UnwindContext, UnwindSection,
};

use super::{
    elf::{Format, FrameSection, Image, Region},
    rows::{Row, RowStatistics},
    rule::{Slice, SmallRows, Unsupported, rule_of},
};
use crate::target::address::Svma;

/// Rows kept before pruning, 16 bytes each. The largest known file (libLLVM, 129 MB) has one million.
const MAX_RAW_ROWS: usize = 8 << 20;

/// Bytes of call frame instructions that are run: those of a CIE count again for each FDE that names it, and are what a
/// hostile file would make long. Real files need one and a half times the size of their section.
fn instruction_budget(section_bytes: usize) -> usize {
    section_bytes.saturating_mul(8).clamp(1 << 16, 256 << 20)
}

/// One FDE: its rows follow each other without a gap from `start` to `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) first_row: usize,
    pub(super) row_count: usize,
}

/// All FDEs of a file and their rows, in the order of the file.
#[derive(Default)]
pub(super) struct Frames {
    pub(super) spans: Vec<Span>,
    pub(super) rows: Vec<Row>,
    pub(super) statistics: RowStatistics,
}

impl Frames {
    /// Reads all sections of `image`.
    pub(super) fn read(image: &Image<'_>) -> Self {
        let mut reader =
            FrameReader { text: &image.text, context: UnwindContext::new_in(), out: Self::default() };
        reader.out.statistics.unreadable_sections = image.unreadable;
        for section in &image.frames {
            let bytes: &[u8] = &section.bytes;
            let bases = gimli::BaseAddresses::default().set_eh_frame(section.start);
            match section.format {
                Format::EhFrame => {
                    let mut frames = EhFrame::new(bytes, LittleEndian);
                    frames.set_address_size(8);
                    reader.section(&frames, section, &bases);
                }
                Format::DebugFrame => {
                    let mut frames = DebugFrame::new(bytes, LittleEndian);
                    frames.set_address_size(8);
                    reader.section(&frames, section, &bases);
                }
            }
        }
        reader.out
    }
}

/// Where an entry lies and whether it is a CIE.
struct Entry {
    offset: usize,
    next: usize,
    is_cie: bool,
}

/// The entry at `offset`; `None` at the section's end or where an entry claims to be longer than the section.
fn entry_at(bytes: &[u8], offset: usize, format: Format) -> Option<Entry> {
    let mut input = EndianSlice::new(bytes.get(offset..)?, LittleEndian);
    let available = input.len();
    let (length, width) = input.read_initial_length().ok()?;
    if length == 0 {
        // `.eh_frame` ends with an empty entry. In `.debug_frame` it is padding.
        let next = offset + (available - input.len());
        return (format == Format::DebugFrame).then_some(Entry { offset, next, is_cie: true });
    }
    let body = offset + (available - input.len());
    let mut input = input.split(length).ok()?;
    let is_cie = match (format, width) {
        (Format::EhFrame, _) => input.read_u32().ok().is_none_or(|id| id == 0),
        (Format::DebugFrame, gimli::Format::Dwarf32) => input.read_u32().ok().is_none_or(|id| id == u32::MAX),
        (Format::DebugFrame, gimli::Format::Dwarf64) => input.read_u64().ok().is_none_or(|id| id == u64::MAX),
    };
    Some(Entry { offset, next: body + length, is_cie })
}

type Cie<'data> = CommonInformationEntry<Slice<'data>>;

struct FrameReader<'image> {
    text: &'image [Region<'image>],
    /// Reused for every FDE: making one allocates.
    context: UnwindContext<usize, SmallRows>,
    out: Frames,
}

impl<'image> FrameReader<'image> {
    fn section<S: UnwindSection<Slice<'image>>>(
        &mut self,
        frames: &S,
        section: &'image FrameSection<'image>,
        bases: &gimli::BaseAddresses,
    ) {
        let bytes: &[u8] = &section.bytes;
        let mut budget = instruction_budget(bytes.len());
        let mut last_cie: Option<Cie<'image>> = None;
        let mut fdes = 0;
        let mut offset = 0;
        while fdes < section.max_fdes
            && let Some(entry) = entry_at(bytes, offset, section.format)
        {
            offset = entry.next;
            if entry.is_cie {
                continue;
            }
            fdes += 1;
            self.out.statistics.fdes += 1;
            let fde = frames.fde_from_offset(bases, S::Offset::from(entry.offset), |frames, bases, at| {
                use gimli::UnwindOffset;
                match &last_cie {
                    Some(cie) if cie.offset() == UnwindOffset::into(at) => Ok(cie.clone()),
                    _ => frames.cie_from_offset(bases, at).inspect(|cie| last_cie = Some(cie.clone())),
                }
            });
            let cost = last_cie.as_ref().map_or(0, Cie::entry_len) + (entry.next - entry.offset);
            let Some(left) = budget.checked_sub(cost) else {
                self.out.statistics.beyond_budget = true;
                return;
            };
            budget = left;
            match fde {
                Ok(fde) => self.fde(frames, bases, &fde),
                Err(_) => self.out.statistics.damaged_fdes += 1,
            }
        }
    }

    /// Appends the rows of one FDE, all of them or, where its instructions are damaged, none.
    fn fde<S: UnwindSection<Slice<'image>>>(
        &mut self,
        frames: &S,
        bases: &gimli::BaseAddresses,
        fde: &FrameDescriptionEntry<Slice<'image>>,
    ) {
        let Some(end) = fde.initial_address().checked_add(fde.len()) else {
            self.out.statistics.damaged_fdes += 1;
            return;
        };
        let span = fde.initial_address()..end;
        if span.is_empty() || !self.is_text(span.start, span.end) {
            // What a linker discarded leaves FDEs at address 0.
            self.out.statistics.outside_text += 1;
            return;
        }
        let first_row = self.out.rows.len();
        if self.fde_rows(frames, bases, fde, end).is_none() {
            self.out.rows.truncate(first_row);
            self.out.statistics.damaged_fdes += 1;
            return;
        }
        let row_count = self.out.rows.len() - first_row;
        self.out.statistics.raw_rows += row_count as u64;
        self.out.spans.push(Span { start: span.start, end, first_row, row_count });
    }

    /// `None` if the instructions are damaged, or make more rows than there may be.
    fn fde_rows<S: UnwindSection<Slice<'image>>>(
        &mut self,
        frames: &S,
        bases: &gimli::BaseAddresses,
        fde: &FrameDescriptionEntry<Slice<'image>>,
        end: u64,
    ) -> Option<()> {
        let signal_frame = fde.is_signal_trampoline();
        let mut table = fde.rows(frames, bases, &mut self.context).ok()?;
        while let Some(row) = table.next_row().ok()? {
            // An advance of 0 leaves an empty row behind, one beyond the FDE's end a row that is not ours.
            let start = row.start_address();
            if start >= row.end_address() || start >= end {
                continue;
            }
            if self.out.rows.len() >= MAX_RAW_ROWS {
                return None;
            }
            let rule = rule_of(row, signal_frame, frames).unwrap_or_else(Unsupported::rule);
            self.out.rows.push(Row { start: Svma(start), rule });
        }
        Some(())
    }

    /// Whether the addresses lie inside one executable segment.
    fn is_text(&self, start: u64, end: u64) -> bool {
        let after = self.text.partition_point(|region| region.start <= start);
        after.checked_sub(1).and_then(|i| self.text.get(i)).is_some_and(|region| end <= region.end())
    }
}
