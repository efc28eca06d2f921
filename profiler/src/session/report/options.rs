//! What `heapscope report` and `heapscope diff` were asked for, checked and plain.

use std::path::PathBuf;

use crate::{
    report::{
        metric::Metric,
        view::{filter::Filter, group::By, moment::When},
    },
    session::options::OutputSpec,
};

/// `heapscope report`.
#[derive(Clone, Debug)]
pub struct FileReportOptions {
    /// The recording.
    pub file: PathBuf,
    /// Reports to write; without any, the table is printed.
    pub outputs: Vec<OutputSpec>,
    /// The moment that is shown.
    pub at: Option<When>,
    /// Only what was born between these marks.
    pub between: Option<(String, String)>,
    /// How the report is shaped.
    pub view: ViewOptions,
    /// Print this source file with what its lines hold, instead of the table.
    pub annotate: Option<String>,
    /// Where that source file is, if not where the recording says.
    pub source: Option<PathBuf>,
}

/// What both commands share.
#[derive(Clone, Debug)]
pub struct ViewOptions {
    /// Which sites.
    pub filter: Filter,
    /// What the width of frames and the order of the table stand for.
    pub metric: Metric,
    /// How the printed table groups them.
    pub by: By,
    /// Stacks from the leaf.
    pub invert: bool,
    /// Put sites of less than so many percent together.
    pub min_percent: Option<f64>,
    /// Lines of the table at most.
    pub top: usize,
    /// Show the allocator's own frames too.
    pub full_stacks: bool,
}

/// `heapscope diff`.
#[derive(Clone, Debug)]
pub struct DiffOptions {
    /// The earlier recording, with `@` and a moment behind it if not its end is meant.
    pub before: String,
    /// The later one.
    pub after: String,
    /// Files to write; without any, the difference is printed.
    pub outputs: Vec<PathBuf>,
    /// The format of outputs whose ending does not say it.
    pub format: Option<String>,
    /// How it is shaped.
    pub view: ViewOptions,
}
