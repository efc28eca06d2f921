//! The flag that says what is watched: the blocks of allocators, or growth.

use anyhow::bail;
use clap::{Args, ValueEnum};

use crate::{
    report::format::{Format, OF_GROWTH},
    session::options::OutputSpec,
};

/// What is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Watched {
    /// Every block that an allocator hands out and takes back
    Blocks,
    /// Page faults, brk and mmap by stack: who makes the process grow, without a probe on malloc (docs/growth.md)
    Growth,
}

#[derive(Debug, Args)]
pub(super) struct ModeArgs {
    /// What to watch
    #[arg(long, value_enum, default_value_t = Watched::Blocks, value_name = "MODE")]
    mode: Watched,
}

impl ModeArgs {
    /// Whether growth is to be watched. `of_blocks` are the flags that were given and make sense for blocks alone.
    pub(super) fn growth(
        &self,
        of_blocks: &[(&str, bool)],
        outputs: &[OutputSpec],
        fallback: Option<Format>,
    ) -> anyhow::Result<bool> {
        if self.mode != Watched::Growth {
            return Ok(false);
        }
        if let Some((flag, _)) = of_blocks.iter().find(|(_, given)| *given) {
            bail!("{flag} is about blocks, and --mode growth sees none: leave one of the two out");
        }
        let formats = outputs.iter().map(|output| output.format).chain(fallback);
        for format in formats {
            if !OF_GROWTH.contains(&format) {
                let there_are = OF_GROWTH.map(Format::name).join(", ");
                bail!(
                    "the format {format} is about blocks, and --mode growth sees none: it writes {there_are}, and prints a table"
                );
            }
        }
        Ok(true)
    }
}
