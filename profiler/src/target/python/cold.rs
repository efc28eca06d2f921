//! The parts of a function that the compiler moved away, as `.cold`, in a file whose symbols were stripped.
//!
//! The function jumps to them. Where a jump out of it leads to code whose frame is there already when it begins, the call
//! frame information says so: a function's own begins with nothing but the return address on the stack.

use std::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, LittleEndian, UnwindContext, UnwindSection, X86_64,
};
use iced_x86::{Decoder, DecoderOptions, FlowControl};
use object::{Object, ObjectSection, read::elf::ElfFile64};

use crate::target::placement::near_target;

/// Parts that are looked up, at most.
const MOST: usize = 64;
/// What a call puts on the stack, in bytes.
const RETURN_ADDRESS: i64 = 8;

/// Where the parts lie that the function with this code, at this stated address, jumps to.
pub(super) fn parts(file: &ElfFile64<'_, object::LittleEndian>, code: &[u8], entry: u64) -> Vec<Range<u64>> {
    let own = entry..entry.saturating_add(code.len() as u64);
    let mut targets: Vec<u64> = Decoder::with_ip(64, code, entry, DecoderOptions::NONE)
        .into_iter()
        .filter(|i| {
            matches!(i.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
        })
        .filter_map(|instruction| near_target(&instruction))
        .filter(|target| !own.contains(target))
        .collect();
    targets.sort_unstable();
    let mut parts: Vec<Range<u64>> = Vec::new();
    let mut looked_up = 0;
    for target in targets {
        if parts.last().is_some_and(|last| target < last.end) || looked_up == MOST {
            continue;
        }
        looked_up += 1;
        parts.extend(part_at(file, target));
    }
    parts
}

/// The part of a function that has this address; `None` for a function of its own.
fn part_at(file: &ElfFile64<'_, object::LittleEndian>, address: u64) -> Option<Range<u64>> {
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
    is_part.then(|| entry.initial_address()..entry.end_address())
}
