//! The sites as root-first lines of names, equal lines merged: what the folded file and the picture are made of.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    metric::Metric,
    options::ReportOptions,
    profile::{Profile, SiteReport},
    shown,
};
use crate::symbolize::{
    frame::{Frame, FrameKind, FrameRole},
    label,
};

/// Memory by stack.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    /// Names, root first, never empty; to bytes and blocks. In the order of the names, frame by frame, so that
    /// stacks with a common root lie side by side.
    pub(super) lines: BTreeMap<Vec<String>, Live>,
    /// What colour each name has. One name in two modules takes the colour that was seen first.
    pub(super) tints: HashMap<String, Tint>,
}

/// What the metric that was asked for counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    /// What the width stands for: bytes, or blocks where the metric counts those.
    pub(super) bytes: u64,
    pub(super) blocks: u64,
}

/// A frame's colour class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tint {
    Program,
    Python,
    Library,
    Runtime,
    Allocator,
    Jit,
    Interpreter,
    Remark,
}

impl Tint {
    pub(super) fn of(frame: &Frame) -> Self {
        match (frame.kind, frame.role) {
            (_, FrameRole::Remark) => Self::Remark,
            (FrameKind::Python, _) => Self::Python,
            (_, FrameRole::Allocator) => Self::Allocator,
            (_, FrameRole::Runtime) => Self::Runtime,
            (_, FrameRole::Library) => Self::Library,
            (_, FrameRole::Program) => Self::Program,
            (_, FrameRole::Jit) => Self::Jit,
            (_, FrameRole::Interpreter) => Self::Interpreter,
        }
    }
}

impl Stacks {
    /// The sites of `profile` that have anything of the metric.
    pub(super) fn of(profile: &Profile, options: &ReportOptions) -> Self {
        let mut stacks = Self::default();
        let live = |site: &SiteReport| Live {
            bytes: options.metric.visible(site),
            blocks: blocks_of(site, options),
        };
        for site in &profile.sites {
            stacks.add(&site.stack, live(site), options);
        }
        for (growth, site) in
            profile.growth.iter().flat_map(|growth| growth.sites.iter().map(move |site| (growth, site)))
        {
            stacks.add(&site.stack, Live { bytes: growth.shown(site), blocks: site.faults.all }, options);
        }
        stacks
    }

    fn add(&mut self, stack: &[Arc<Frame>], more: Live, options: &ReportOptions) {
        if more == Live::default() {
            return;
        }
        let mut names: Vec<String> = Vec::with_capacity(stack.len());
        let mut frames = shown::frames(stack, options);
        if !options.invert {
            frames.reverse();
        }
        for frame in &frames {
            let name = folded_name(frame);
            if !self.tints.contains_key(&name) {
                self.tints.insert(name.clone(), Tint::of(frame));
            }
            names.push(name);
        }
        let live = self.lines.entry(names).or_default();
        live.bytes = live.bytes.saturating_add(more.bytes);
        live.blocks = live.blocks.saturating_add(more.blocks);
    }

    /// Everything together; `None` where the bytes do not fit 64 bits, which no real heap does to us.
    pub(super) fn total(&self) -> Option<Live> {
        self.lines.values().try_fold(Live::default(), |sum, live| {
            Some(Live {
                bytes: sum.bytes.checked_add(live.bytes)?,
                blocks: sum.blocks.checked_add(live.blocks)?,
            })
        })
    }
}

/// The blocks that a site's part of the metric is in.
fn blocks_of(site: &SiteReport, options: &ReportOptions) -> u64 {
    match options.metric {
        Metric::InuseSpace | Metric::InuseObjects => Metric::InuseObjects.visible(site),
        Metric::AllocSpace | Metric::AllocObjects => site.totals.alloc_objects,
        Metric::Temporary => site.history.temporary_objects,
    }
}

/// The frame's name as one element of a folded line. The format has no escapes, so what would be read as structure is
/// replaced: `;` by `:` (as perf's and FlameGraph's scripts do), the blank before a last word that is a number by `_`
/// (it would be taken for a count), and a leading `# ` (it would be taken for a comment).
pub(super) fn folded_name(frame: &Frame) -> String {
    let mut name = label::name(frame).replace(';', ":");
    if let Some(blank) = name.rfind(char::is_whitespace) {
        let last_word = name[blank..].trim_start();
        if last_word.chars().all(|c| c.is_ascii_digit() || c == '.') {
            let blank_end = name.len() - last_word.len();
            name.replace_range(blank..blank_end, "_");
        }
    }
    if name.starts_with("# ") {
        name.replace_range(1..2, "_");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_be_read_as_structure() {
        let folded =
            |function: &str| folded_name(&Frame { role: FrameRole::Program, ..Frame::remark(function) });
        assert_eq!(folded("f<[u8; 8]>"), "f<[u8: 8]>");
        assert_eq!(folded("stub 12"), "stub_12");
        assert_eq!(folded("stub 1.5 12"), "stub 1.5_12");
        assert_eq!(folded("stub\u{3000}7"), "stub_7");
        assert_eq!(folded("# main"), "#_main");
        assert_eq!(folded("operator new(unsigned long)"), "operator new(unsigned long)");
    }
}
