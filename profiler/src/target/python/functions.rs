//! Where the functions of a file begin and end, by the call frame information, which stripped files have too.

use std::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, LittleEndian, UnwindContext, UnwindSection, X86_64,
};
use object::{Object, ObjectSection, read::elf::ElfFile64};

/// An ELF file for a 64-bit little-endian machine.
pub(super) type ElfFile<'data> = ElfFile64<'data, object::LittleEndian>;

/// What a call puts on the stack, in bytes.
const RETURN_ADDRESS: i64 = 8;

/// A function, or a part of one that the compiler put elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Function {
    /// First stated address and one past the last.
    pub(super) range: Range<u64>,
    /// Whether it is a part: its frame is there already when it begins.
    pub(super) is_part: bool,
}

/// The function that has this stated address.
pub(super) fn function_at(file: &ElfFile<'_>, address: u64) -> Option<Function> {
    let section = |name| {
        let section = file.section_by_name(name)?;
        Some((section.address(), section.data().ok()?))
    };
    let ((header_at, header), (frames_at, frames)) = (section(".eh_frame_hdr")?, section(".eh_frame")?);
    let bases = BaseAddresses::default().set_eh_frame_hdr(header_at).set_eh_frame(frames_at);
    let header = EhFrameHdr::new(header, LittleEndian).parse(&bases, 8).ok()?;
    let frames = EhFrame::new(frames, LittleEndian);
    let entry = header.table()?.fde_for_address(&frames, &bases, address, EhFrame::cie_from_offset).ok()?;
    let mut context = UnwindContext::new();
    let mut rows = entry.rows(&frames, &bases, &mut context).ok()?;
    let CfaRule::RegisterAndOffset { register, offset } = rows.next_row().ok()??.cfa().clone() else {
        return None;
    };
    let is_part = (register, offset) != (X86_64::RSP, RETURN_ADDRESS);
    Some(Function { range: entry.initial_address()..entry.end_address(), is_part })
}
