//! The parts of a function that the compiler moved away, as `.cold`, in a file whose symbols were stripped.
//!
//! The function jumps to them. Where a jump out of it leads to code whose frame is there already when it begins, the call
//! frame information says so: a function's own begins with nothing but the return address on the stack.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl};

use super::functions::{ElfFile, function_at};
use crate::target::placement::near_target;

/// Parts that are looked up, at most.
const MOST: usize = 64;

/// Where the parts lie that the function with this code, at this stated address, jumps to.
pub(super) fn parts(file: &ElfFile<'_>, code: &[u8], entry: u64) -> Vec<Range<u64>> {
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
        parts.extend(function_at(file, target).filter(|found| found.is_part).map(|found| found.range));
    }
    parts
}
