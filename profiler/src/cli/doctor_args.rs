//! The flags of `heapscope doctor`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::session::options::{DoctorOptions, RowsShown};

pub(super) const EXAMPLES: &str = "\
Examples:
  heapscope doctor --unwind /usr/bin/python3.11     how much of its code can be unwound, by which rules
  heapscope doctor --unwind ./server libplugin.so   several files, as one process
  heapscope doctor --unwind ./server --rows         the unwind table itself
  heapscope doctor --unwind ./server --rows=all     with the rows that no call can need";

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Look at the unwind information of these files, which stand for one process together
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    unwind: Vec<PathBuf>,

    /// List the rows, address by address
    #[arg(long, value_enum, value_name = "WHICH", num_args = 0..=1, require_equals = true,
        default_missing_value = "calls")]
    rows: Option<Rows>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rows {
    /// Those that can hold a call, which stack walks search
    Calls,
    /// All
    All,
}

impl DoctorArgs {
    pub(super) fn options(self) -> DoctorOptions {
        let rows = self.rows.map(|rows| match rows {
            Rows::Calls => RowsShown::Calls,
            Rows::All => RowsShown::All,
        });
        DoctorOptions { files: self.unwind, rows }
    }
}
