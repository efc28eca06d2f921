//! The flags of `heapscope top`: those of `attach`, less those about what is printed and written at the end.

use anyhow::bail;
use clap::Args;

use super::{args::CommonArgs, budget_args::Watching};
use crate::{report::profile::At, session::options::AttachOptions};

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo heapscope top 1234                           the sites that hold the most memory, live
  sudo heapscope top redis-server --sample 512KiB   by name, with estimates at a fraction of the cost
  sudo heapscope top 1234 --min-size 64KiB          large blocks alone

Keys: ? shows them all, q quits.";

#[derive(Debug, Args)]
#[command(
    mut_arg("output", |arg| arg.hide(true)),
    mut_arg("format", |arg| arg.hide(true)),
    mut_arg("children", |arg| arg.hide(true)),
    mut_arg("min_age", |arg| arg.hide(true)),
    mut_arg("mode", |arg| arg.hide(true)),
    mut_arg("at", |arg| arg.hide(true)),
    mut_arg("interval", |arg| arg.hide(true)),
    mut_arg("top", |arg| arg.hide(true)),
    mut_arg("quiet", |arg| arg.hide(true)),
    mut_arg("duration", |arg| arg.help("Stop after this time (30s, 2m; a bare number is seconds); the last state stays"))
)]
pub(super) struct TopArgs {
    /// Process id, or the name of a process if only one has it
    #[arg(value_name = "PID | NAME")]
    target: String,

    #[command(flatten)]
    common: CommonArgs,
}

impl TopArgs {
    pub(super) fn options(self) -> anyhow::Result<AttachOptions> {
        let common = self.common.options(Watching::InTerminal)?;
        if common.children {
            bail!(
                "heapscope top shows one process: run it for each of the children, or use: heapscope attach {} --children",
                self.target
            );
        }
        let meaningless = [
            (
                common.growth,
                "--mode growth",
                "heapscope attach --mode growth --interval 5s prints its table again and again",
            ),
            (!common.outputs.is_empty(), "--output", "the key w writes a report"),
            (common.interval.is_some(), "--interval", "the view is brought up to date each second"),
            (common.min_age.is_some(), "--min-age", "the key a sorts by age"),
            (common.budget.percent.is_some(), "--budget", "--sample bounds its cost"),
            (common.at != At::End, "--at", "it shows the present"),
        ];
        if let Some((_, flag, instead)) = meaningless.iter().find(|(is_given, ..)| *is_given) {
            bail!("{flag} does not go with top: {instead}");
        }
        Ok(AttachOptions { target: self.target, common })
    }
}
