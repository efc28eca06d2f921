//! The flags of `report` and `diff`.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use regex::Regex;

use crate::{
    report::{
        format::Format,
        metric::Metric,
        profile::At,
        view::{
            filter::{Filter, Glob},
            group::By,
            moment::When,
        },
    },
    session::{
        options::OutputSpec,
        report::options::{DiffOptions, FileReportOptions, ViewOptions},
    },
};

pub(super) const REPORT_EXAMPLES: &str = "\
Examples:
  heapscope report leak.hscope                      the table of its end
  heapscope report leak.hscope -o leak.svg          every format, from the same recording
  heapscope report leak.hscope --at peak --by function
  heapscope report leak.hscope --between warm after --focus 'parse_|json'
  heapscope report app.hscope --by line --include '*/shop/*.py'
  heapscope report app.hscope --annotate app.py     the source, with what each line holds";

pub(super) const DIFF_EXAMPLES: &str = "\
Examples:
  heapscope diff monday.hscope friday.hscope        what has grown, line by line
  heapscope diff leak.hscope@10s leak.hscope        two moments of one recording
  heapscope diff leak.hscope@warm leak.hscope@after --by traceback
  heapscope diff a.hscope b.hscope -o growth.svg    as a differential flamegraph";

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum MetricName {
    /// Live bytes
    InuseSpace,
    /// Live blocks
    InuseObjects,
    /// Bytes allocated, freed or not
    AllocSpace,
    /// Blocks allocated, freed or not
    AllocObjects,
    /// Blocks that their thread freed before it allocated another one
    Temporary,
    /// Live bytes at the peak: the same as --at peak
    Peak,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ByName {
    /// Each stack by itself
    Site,
    /// The function that asked for the memory
    Function,
    /// Its line, in tracemalloc's words
    Line,
    /// The program or library that it is in
    Module,
    /// The type of the blocks, where it is known
    Type,
    /// The thread that allocated what lives
    Thread,
    /// The size of blocks
    Size,
    /// The source file, in tracemalloc's words
    File,
    /// All lines of the stack, in tracemalloc's words
    Traceback,
}

impl ByName {
    fn by(self) -> By {
        match self {
            Self::Site => By::Site,
            Self::Function => By::Function,
            Self::Line => By::Line,
            Self::Module => By::Module,
            Self::Type => By::Type,
            Self::Thread => By::Thread,
            Self::Size => By::Size,
            Self::File => By::File,
            Self::Traceback => By::Traceback,
        }
    }
}

#[derive(Debug, Args)]
struct ViewArgs {
    /// What the width of frames and the order of the table stand for
    #[arg(long, value_enum, value_name = "METRIC", default_value = "inuse_space")]
    metric: MetricName,

    /// Only stacks with a frame whose function, file or module this finds
    #[arg(long, value_name = "REGEX")]
    focus: Option<Regex>,

    /// No stacks with such a frame
    #[arg(long, value_name = "REGEX")]
    ignore: Option<Regex>,

    /// Only memory that lines of such files asked for, as tracemalloc's filters have it (may be given several times)
    #[arg(long, value_name = "GLOB", value_parser = Glob::new)]
    include: Vec<Glob>,

    /// No memory that lines of such files asked for (may be given several times)
    #[arg(long, value_name = "GLOB", value_parser = Glob::new)]
    exclude: Vec<Glob>,

    /// Stacks from the leaf, in the flamegraph and the folded stacks: who asked for the memory at the bottom
    #[arg(long)]
    invert: bool,

    /// Lines of the table
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    top: usize,

    /// Show the allocator's own frames too
    #[arg(long)]
    full_stacks: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Write a report in the format that the ending says; may be given several times; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Vec<PathBuf>,

    /// Format of outputs whose ending does not say it; alone, the report is printed in it
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Show this moment: end, peak, exit, a time since attach (90s), or a mark's name
    #[arg(long, value_name = "MOMENT", value_parser = When::from_str)]
    at: Option<When>,

    /// Only what was born between two marks and still lives; `start` and `end` are marks too
    #[arg(long, num_args = 2, value_names = ["MARK", "MARK"], conflicts_with = "at")]
    between: Vec<String>,

    #[command(flatten)]
    view: ViewArgs,

    /// How the printed table groups the memory
    #[arg(long, value_enum, value_name = "WHAT", default_value = "site")]
    by: ByName,

    /// Put sites with less than this share together
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    min_percent: Option<f64>,

    /// Print a source file with live bytes, blocks and growth beside each line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "format", "by"])]
    annotate: Option<String>,

    /// Where that source file is now, if not where it was
    #[arg(long, value_name = "FILE", requires = "annotate")]
    source: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The earlier recording, or FILE@MOMENT: a time since attach, a mark, peak, exit
    #[arg(value_name = "BEFORE")]
    before: String,

    /// The later one
    #[arg(value_name = "AFTER")]
    after: String,

    /// Write the difference: .svg flamegraph, .folded stacks with two numbers, or .json; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Vec<PathBuf>,

    /// Format of outputs whose ending does not say it
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    #[command(flatten)]
    view: ViewArgs,

    /// What is compared: line, file, traceback, function or site
    #[arg(long, value_enum, value_name = "WHAT", default_value = "line")]
    by: ByName,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("a share is from 0 to 100 percent".into()) }
}

impl ViewArgs {
    fn options(self, by: ByName, min_percent: Option<f64>) -> ViewOptions {
        ViewOptions {
            filter: Filter {
                focus: self.focus,
                ignore: self.ignore,
                include: self.include,
                exclude: self.exclude,
            },
            metric: match self.metric {
                MetricName::InuseSpace | MetricName::Peak => Metric::InuseSpace,
                MetricName::InuseObjects => Metric::InuseObjects,
                MetricName::AllocSpace => Metric::AllocSpace,
                MetricName::AllocObjects => Metric::AllocObjects,
                MetricName::Temporary => Metric::Temporary,
            },
            by: by.by(),
            invert: self.invert,
            min_percent,
            top: self.top,
            full_stacks: self.full_stacks,
        }
    }
}

impl ReportArgs {
    pub(super) fn options(self) -> anyhow::Result<FileReportOptions> {
        let peak = matches!(self.view.metric, MetricName::Peak);
        if peak && (self.at.is_some() || !self.between.is_empty()) {
            bail!("--metric peak is a moment of its own: leave out --at and --between");
        }
        let named = self.format.as_deref();
        let format = named
            .map(|name| Format::from_name(name).with_context(|| format!("--format {name}")))
            .transpose()?;
        let paths = if self.output.is_empty() && format.is_some() { vec!["-".into()] } else { self.output };
        let outputs = paths.into_iter().map(|path| OutputSpec::new(path, format));
        let between = <[String; 2]>::try_from(self.between).ok().map(|[from, to]| (from, to));
        Ok(FileReportOptions {
            file: self.file,
            outputs: outputs.collect::<anyhow::Result<_>>()?,
            at: if peak { Some(When::At(At::Peak)) } else { self.at },
            between,
            view: self.view.options(self.by, self.min_percent),
            annotate: self.annotate,
            source: self.source,
        })
    }
}

impl DiffArgs {
    pub(super) fn options(self) -> anyhow::Result<DiffOptions> {
        if matches!(self.view.metric, MetricName::Peak) {
            bail!("name the moment behind the file: {}@peak", self.after);
        }
        if matches!(self.by, ByName::Module | ByName::Type | ByName::Thread | ByName::Size) {
            bail!("--by: differences are told by line, file, traceback, function or site");
        }
        Ok(DiffOptions {
            before: self.before,
            after: self.after,
            outputs: self.output,
            format: self.format,
            view: self.view.options(self.by, None),
        })
    }
}
