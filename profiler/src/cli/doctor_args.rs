//! The flags of `heapscope doctor`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::session::options::{DoctorOptions, RowsShown, UnwindOptions};

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo heapscope doctor                             what this machine allows, by trial on heapscope itself
  sudo heapscope doctor 1234                        and what process 1234 does, before anything is attached
  sudo heapscope doctor redis-server --json         the same for programs
  heapscope doctor --unwind /usr/bin/python3.11     how much of its code can be unwound, by which rules
  heapscope doctor --unwind ./server libplugin.so   several files, as one process
  heapscope doctor --unwind ./server --rows         the unwind table itself
  heapscope doctor --unwind ./server --rows=all     with the rows that no call can need

Exit status: 0 if attach will work, 1 if it will not, 2 for wrong usage.";

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Process id, or the name of a process if only one has it; without it, the machine alone
    #[arg(value_name = "PID | NAME", conflicts_with = "unwind")]
    target: Option<String>,

    /// Print JSON (docs/doctor.md says what is in it)
    #[arg(long, conflicts_with = "unwind")]
    json: bool,

    /// Look for separate debug files here too (may be given several times)
    #[arg(long, value_name = "DIR", conflicts_with = "unwind")]
    debug_dir: Vec<PathBuf>,

    /// Look at the unwind information of these files instead, which stand for one process together
    #[arg(long, num_args = 1.., value_name = "FILE")]
    unwind: Vec<PathBuf>,

    /// List the rows, address by address
    #[arg(long, value_enum, value_name = "WHICH", num_args = 0..=1, require_equals = true,
        default_missing_value = "calls", requires = "unwind")]
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
        if self.unwind.is_empty() {
            return DoctorOptions::Machine {
                target: self.target,
                json: self.json,
                debug_dirs: self.debug_dir,
            };
        }
        let rows = self.rows.map(|rows| match rows {
            Rows::Calls => RowsShown::Calls,
            Rows::All => RowsShown::All,
        });
        DoctorOptions::Unwind(UnwindOptions { files: self.unwind, rows })
    }
}
