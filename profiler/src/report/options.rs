//! What the reader asked for, common to all formats.

use super::metric::Metric;

/// How a report is made. Each format heeds what concerns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportOptions {
    /// Keep the allocator's own frames at the leaf end. JSON always does.
    pub full_stacks: bool,
    /// Width of the terminal in characters, for the table; less than [`MIN_WIDTH`] counts as that.
    pub width: usize,
    /// Sites in the table.
    pub sites: usize,
    /// What the width of frames and the order of the table stand for. Formats that hold every metric hold all.
    pub metric: Metric,
    /// Stacks grow from the leaf, in the picture and the folded lines: who asked for the memory is at the bottom, and who
    /// called that above.
    pub invert: bool,
}

/// The narrowest table that can be read.
pub const MIN_WIDTH: usize = 80;

impl Default for ReportOptions {
    fn default() -> Self {
        Self { full_stacks: false, width: 100, sites: 10, metric: Metric::InuseSpace, invert: false }
    }
}
