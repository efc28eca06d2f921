//! Folded stacks: `root;…;leaf bytes`, one line a stack, read by every flamegraph tool.

use std::io::{self, Write};

use super::{
    options::ReportOptions,
    profile::Profile,
    quality::{Weight, remarks},
    stacks::Stacks,
};

/// Writes the live bytes of each stack, equal stacks merged, in the order of their names.
///
/// Losses and warnings stand at the head as comments (`# warning: …`), which tools skip. Stacks whose live blocks are all
/// of size 0 have no line. docs/flamegraph.md has the details.
///
/// # Errors
/// Those of `out`.
pub fn write(profile: &Profile, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    for remark in remarks(profile).iter().filter(|remark| remark.weight == Weight::Warning) {
        writeln!(out, "# warning: {}", remark.text)?;
    }
    for (names, live) in &Stacks::of(profile, options).lines {
        if live.bytes > 0 {
            writeln!(out, "{} {}", names.join(";"), live.bytes)?;
        }
    }
    Ok(())
}
