//! What the formats of other tools have in common: which frames of a site are shown, and how a frame is named where file
//! and line have places of their own.

use std::{
    io::{Error, ErrorKind, Result},
    sync::Arc,
};

use super::{
    options::ReportOptions,
    profile::{Profile, SiteReport, Totals},
    quality::{Weight, remarks},
    units::bytes,
};
use crate::symbolize::{fold::fold, frame::Frame, label};

/// Stands for the stack of a site that has none: every scratch slot was busy.
pub(super) const NO_STACK: &str = "[no stack]";

/// The program that wrote a file, for formats that have a place for it.
pub(super) const WRITER: &str = concat!("heapscope ", env!("CARGO_PKG_VERSION"));

/// The frames of a site, leaf first, as the flamegraph shows them; at least one.
pub(super) fn stack(site: &SiteReport, options: &ReportOptions) -> Vec<Arc<Frame>> {
    frames(&site.stack, options)
}

/// The same of a stack.
pub(super) fn frames(stack: &[Arc<Frame>], options: &ReportOptions) -> Vec<Arc<Frame>> {
    let stack = fold(stack, options.full_stacks);
    if stack.is_empty() { vec![Arc::new(Frame::remark(NO_STACK))] } else { stack }
}

/// The frames call by call, leaf first: those of functions that the compiler inlined belong to the one that holds them,
/// which is the last of its slice.
pub(super) fn calls(stack: &[Arc<Frame>]) -> impl Iterator<Item = &[Arc<Frame>]> {
    stack.chunk_by(|frame, next| frame.inlined && frame.address == next.address)
}

/// The source file of a frame, where it has one.
pub(super) fn file(frame: &Frame) -> Option<String> {
    frame.file.as_deref().map(label::clean).filter(|file| !file.is_empty())
}

/// What a reader must know, a sentence each: `warning: …` first, then `note: …`.
pub(super) fn sentences(profile: &Profile) -> Vec<String> {
    let sentence = |remark: super::quality::Remark| match remark.weight {
        Weight::Warning => format!("warning: {}", remark.text),
        Weight::Note => format!("note: {}", remark.text),
    };
    remarks(profile).into_iter().map(sentence).collect()
}

/// How the numbers came about in a few words: `exact`, or `estimates from samples, one in 512.0 KiB on average`.
pub(super) fn how(profile: &Profile) -> String {
    match profile.mode.sample_interval {
        Some(interval) => format!("estimates from samples, one in {} on average", bytes(interval)),
        None => "exact".to_owned(),
    }
}

/// The four numbers as a format with signed ones takes them, each also in the sum over all sites.
///
/// # Errors
/// When they do not fit, which no real heap does to us.
pub(super) fn check_sums(profile: &Profile) -> Result<()> {
    let numbers = |totals: &Totals| {
        [totals.inuse_space, totals.inuse_objects, totals.alloc_space, totals.alloc_objects]
    };
    let mut sums = [0_i64; 4];
    for site in &profile.sites {
        for (sum, number) in sums.iter_mut().zip(numbers(&site.totals)) {
            *sum = i64::try_from(number)
                .ok()
                .and_then(|number| sum.checked_add(number))
                .ok_or_else(too_large)?;
        }
    }
    Ok(())
}

fn too_large() -> Error {
    Error::new(ErrorKind::InvalidData, "the sums do not fit the 63 bits that the format has for a number")
}

/// A number that [`check_sums`] has seen.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
