//! The flags that say how much is recorded, and what that may cost.

use clap::Args;

use super::values;
use crate::session::options::BudgetOptions;

/// What `attach` may take of a process's CPU time, where the user does not say: a twentieth is not noticed in production, and
/// leaves most programs recorded block by block or by samples.
const DEFAULT_PERCENT: f64 = 5.0;
/// Part of one processor that it may take all the same, where the user does not say: of a process that is mostly idle, that
/// is less than it takes to see anything, and more is not felt.
const DEFAULT_AT_LEAST: f64 = 0.02;

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
    /// windows (docs/budget.md). Without it, `attach` keeps 5%, or 2% of one processor if that is more, unless --exact or --sample says what to record; `run` has none. With --mode growth, both keep 1%, or 1% of one processor
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

    /// For `attach`, or for `run`, which has no budget of its own accord.
    pub(super) fn options(&self, attaches: bool) -> BudgetOptions {
        let says_what = self.says_which_blocks();
        let (percent, at_least) = match self.budget {
            Some(budget) => (budget.0, 0.0),
            None => (Some(DEFAULT_PERCENT).filter(|_| attaches && !says_what), DEFAULT_AT_LEAST),
        };
        BudgetOptions { percent, at_least, exact: self.exact, sample: self.sample, measure_first: attaches }
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
        let percent = |line: &[&str], attaches| {
            let line = Line::try_parse_from([&["heapscope"], line].concat());
            line.ok().map(|line| line.args.options(attaches).percent)
        };
        assert_eq!(percent(&[], true), Some(Some(5.0)));
        assert_eq!(percent(&[], false), Some(None));
        assert_eq!(percent(&["--exact"], true), Some(None));
        assert_eq!(percent(&["--sample", "1KiB"], true), Some(None));
        assert_eq!(percent(&["--budget", "off"], true), Some(None));
        assert_eq!(percent(&["--budget", "2.5%", "--exact"], false), Some(Some(2.5)));
        let of_growth = |line: &[&str]| {
            Line::try_parse_from([&["heapscope"], line].concat()).ok().map(|line| line.args.of_growth())
        };
        let limits = |line: &[&str]| of_growth(line).map(|budget| (budget.percent, budget.at_least));
        assert_eq!(limits(&[]), Some((Some(1.0), 0.01)));
        assert_eq!(limits(&["--budget", "0.2%"]), Some((Some(0.2), 0.0)));
        assert_eq!(limits(&["--budget", "off"]), Some((None, 0.0)));
        assert_eq!(percent(&["--budget", "0"], true), None);
        assert_eq!(percent(&["--budget", "100%"], true), None);
        assert_eq!(percent(&["--exact", "--sample", "1KiB"], true), None);
    }
}
