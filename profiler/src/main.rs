//! The `heapscope` command: a thin shell around the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    heapscope::cli::main()
}
