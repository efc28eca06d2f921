//! The flags that say how much is recorded, and what that may cost.

use clap::Args;

use super::values;
use crate::{
    report::{
        format::{Format, OF_WINDOWS},
        profile::At,
    },
    session::options::BudgetOptions,
};

/// What `attach` may take of a process's CPU time, where the user does not say: a twentieth is not noticed in production, and
/// leaves most programs recorded block by block or by samples.
const DEFAULT_PERCENT: f64 = 5.0;
/// Part of one processor that it may take all the same, where the user does not say: of a process that is mostly idle, that
/// is less than it takes to see anything, and more is not felt.
const DEFAULT_AT_LEAST: f64 = 0.02;
/// What `run` may take, where the user does not say: who starts a program to watch it waits for it, but not several times as
/// long. It runs 1.2 times as long by that, and what is given in advance; under a tracer in the process, one that allocates much
/// takes twice as long.
const DEFAULT_PERCENT_OF_RUN: f64 = 15.0;
/// Seconds of CPU time for which `run` is paid in advance, so that a short program, and the beginning of a long one, are
/// recorded block by block: with 15%, 0.45 s, which last for a second or so where traps take half of the time.
const ADVANCE: f64 = 3.0;

/// What is watched, as far as the budget depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Watching {
    /// `attach`.
    Running,
    /// `run`.
    Started {
        /// Whether something was asked for that only every block can tell.
        whole: bool,
    },
    /// `top`, which keeps no budget.
    InTerminal,
}

impl Watching {
    /// The same for reports about this moment in these formats: windows know neither the peak nor the exit, and some files
    /// have no place for what windows know.
    pub(super) fn for_reports(self, at: At, mut formats: impl Iterator<Item = Format>) -> Self {
        match self {
            Self::Started { whole } => Self::Started {
                whole: whole || at != At::End || formats.any(|format| !OF_WINDOWS.contains(&format)),
            },
            other => other,
        }
    }
}

/// What page faults may cost where growth is watched and the user does not say: percent of the process's CPU time, and the part
/// of one processor that they may take all the same. It is for a first look.
const GROWTH_PERCENT: f64 = 1.0;
const GROWTH_AT_LEAST: f64 = 0.01;

#[derive(Debug, Args)]
pub(super) struct BudgetArgs {
    /// Record every block, whatever it costs; with --budget, or let go of the process
    #[arg(long, conflicts_with = "sample")]
    exact: bool,

    /// Record one block in so many bytes on average and show estimates with their errors: a fraction of the cost (512KiB is
    /// what other samplers take; docs/sampling.md). With --budget, or more rarely
    #[arg(long, value_name = "SIZE", value_parser = values::sample_interval)]
    sample: Option<u64>,

    /// What the probes may take of the process's CPU time: `5%`, or `off`. To keep it, less is recorded: samples, then
    /// windows (docs/budget.md). Without it, `attach` keeps 5%, or 2% of one processor if that is more, and `run` 15%, unless
    /// --exact or --sample says what to record. With --mode growth, both keep 1%, or 1% of one processor
    #[arg(long, value_name = "PERCENT", value_parser = values::budget)]
    budget: Option<values::Budget>,
}

impl BudgetArgs {
    /// Whether it was said which blocks to record.
    pub(super) fn says_which_blocks(&self) -> bool {
        self.exact || self.sample.is_some()
    }

    /// Where growth is watched: page faults are all recorded, or those of a sample of pages.
    pub(super) fn of_growth(&self) -> BudgetOptions {
        let (percent, at_least) = match self.budget {
            Some(budget) => (budget.0, 0.0),
            None => (Some(GROWTH_PERCENT), GROWTH_AT_LEAST),
        };
        BudgetOptions { percent, at_least, ..BudgetOptions::default() }
    }

    /// What they say, and where they say nothing, what is usual there.
    pub(super) fn options(&self, watching: Watching) -> BudgetOptions {
        let says_what = self.says_which_blocks();
        let usual = match watching {
            Watching::Running => (Some(DEFAULT_PERCENT), DEFAULT_AT_LEAST),
            Watching::Started { whole: false } => (Some(DEFAULT_PERCENT_OF_RUN), 0.0),
            Watching::Started { whole: true } | Watching::InTerminal => (None, 0.0),
        };
        let (percent, at_least) = match self.budget {
            Some(budget) => (budget.0, 0.0),
            None if says_what => (None, 0.0),
            None => usual,
        };
        let is_started = matches!(watching, Watching::Started { .. });
        BudgetOptions {
            percent,
            at_least,
            exact: self.exact,
            sample: self.sample,
            measure_first: watching == Watching::Running,
            advance: if is_started && !self.exact { ADVANCE } else { 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BudgetArgs,
    }

    #[test]
    fn a_budget_is_kept_where_the_user_does_not_say_what_to_record() {
        use Watching::{InTerminal, Running, Started};
        let options = |line: &[&str], watching| {
            let line = Line::try_parse_from([&["heapscope"], line].concat());
            line.ok().map(|line| line.args.options(watching))
        };
        let percent = |line: &[&str], watching| options(line, watching).map(|options| options.percent);
        for (watching, usual) in [
            (Running, Some(5.0)),
            (Started { whole: false }, Some(15.0)),
            (Started { whole: true }, None),
            (InTerminal, None),
        ] {
            assert_eq!(percent(&[], watching), Some(usual));
            assert_eq!(percent(&["--exact"], watching), Some(None));
            assert_eq!(percent(&["--sample", "1KiB"], watching), Some(None));
            assert_eq!(percent(&["--budget", "off"], watching), Some(None));
            assert_eq!(percent(&["--budget", "2.5%", "--exact"], watching), Some(Some(2.5)));
            assert_eq!(percent(&["--budget", "2.5%"], watching), Some(Some(2.5)));
            assert_eq!(percent(&["--budget", "0"], watching), None);
            assert_eq!(percent(&["--budget", "100%"], watching), None);
            assert_eq!(percent(&["--exact", "--sample", "1KiB"], watching), None);
        }
    }

    #[test]
    fn what_windows_cannot_tell_is_recorded_whole() {
        let whole = |at, formats: &[Format]| {
            let watching = Watching::Started { whole: false }.for_reports(at, formats.iter().copied());
            watching == Watching::Started { whole: true }
        };
        assert!(!whole(At::End, &[]) && !whole(At::End, &[Format::Svg, Format::Json, Format::Hscope]));
        assert!(whole(At::Peak, &[]) && whole(At::Exit, &[Format::Svg]));
        assert!(whole(At::End, &[Format::Svg, Format::Pprof]));
        let attached = Watching::Running.for_reports(At::Peak, [Format::Pprof].into_iter());
        assert_eq!(attached, Watching::Running);
    }

    #[test]
    fn only_what_is_started_gets_something_in_advance() {
        let advance = |line: &[&str], watching| {
            let line = Line::try_parse_from([&["heapscope"], line].concat());
            line.ok().map(|line| line.args.options(watching).advance > 0.0)
        };
        assert_eq!(advance(&[], Watching::Started { whole: false }), Some(true));
        assert_eq!(advance(&["--budget", "5%"], Watching::Started { whole: true }), Some(true));
        assert_eq!(advance(&["--budget", "5%", "--exact"], Watching::Started { whole: false }), Some(false));
        assert_eq!(advance(&["--budget", "5%"], Watching::Running), Some(false));
    }

    #[test]
    fn growth_has_a_budget_of_its_own() {
        let limits = |line: &[&str]| {
            let line = Line::try_parse_from([&["heapscope"], line].concat()).ok()?;
            let budget = line.args.of_growth();
            Some((budget.percent, budget.at_least))
        };
        assert_eq!(limits(&[]), Some((Some(1.0), 0.01)));
        assert_eq!(limits(&["--budget", "0.2%"]), Some((Some(0.2), 0.0)));
        assert_eq!(limits(&["--budget", "off"]), Some((None, 0.0)));
    }
}
