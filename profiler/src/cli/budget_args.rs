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
    /// windows (docs/budget.md). Without it, `attach` keeps 5%, or 2% of one processor if that is more, unless --exact or --sample says what to record; `run` has none
    #[arg(long, value_name = "PERCENT", value_parser = values::budget)]
    budget: Option<values::Budget>,
}

impl BudgetArgs {
    /// Whether any of them was given.
    pub(super) fn is_given(&self) -> bool {
        self.exact || self.sample.is_some() || self.budget.is_some()
    }

    /// For `attach`, or for `run`, which has no budget of its own accord.
    pub(super) fn options(&self, attaches: bool) -> BudgetOptions {
        let says_what = self.exact || self.sample.is_some();
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
        assert_eq!(percent(&["--budget", "0"], true), None);
        assert_eq!(percent(&["--budget", "100%"], true), None);
        assert_eq!(percent(&["--exact", "--sample", "1KiB"], true), None);
    }
}
