//! The rule at one instruction. The tables of a process keep rules for calls only; a probe in the midst of a function needs
//! that of its own place.

use profiler_common::tables::Rule;

use super::{cfi::Frames, elf::Image, error::UnwindError};
use crate::target::address::Svma;

/// The rule at a stated address of an ELF file; `None` where none is stated.
///
/// # Errors
/// Every case of [`UnwindError`].
pub fn rule_at(file: &[u8], address: Svma) -> Result<Option<Rule>, UnwindError> {
    let frames = Frames::read(&Image::parse(file)?);
    let span = frames.spans.iter().find(|span| (span.start..span.end).contains(&address.0));
    Ok(span.and_then(|span| {
        let rows = frames.rows.get(span.first_row..span.first_row.checked_add(span.row_count)?)?;
        rows.iter().rev().find(|row| row.start <= address).map(|row| row.rule)
    }))
}
