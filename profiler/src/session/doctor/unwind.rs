//! `heapscope doctor --unwind`: what the walk knows of a file, and what it does not.
//!
//! All files together stand for one process, so that the last line says what its tables take in the kernel.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{coverage, names::Names};
use crate::{
    report::units::{bytes, counted},
    session::options::{RowsShown, UnwindOptions},
    symbolize::label::clean,
    sys::mmap::MappedFile,
    unwind::{
        rows::{ModuleRows, Pruning, Row, rows, rows_with},
        table::{Capacity, TableBuilder},
        words::{CfaInWords, RbpInWords},
    },
};

/// As much room as `attach` has at most: 64 MiB of rows, 8 GiB of text.
pub(super) const CAPACITY: Capacity = Capacity { chunks: 4096, pages: 1 << 19, rules: 16384 };

/// Writes what the unwind tables of files hold. The status is that of failure where a file has no table.
///
/// # Errors
/// Where a file cannot be opened, or the output cannot be written.
pub(super) fn write(options: &UnwindOptions, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let files = options.files.iter().map(|path| Ok((path, open(path)?)));
    let files = files.collect::<anyhow::Result<Vec<_>>>()?;
    let mut process = Process { builder: TableBuilder::new(CAPACITY), files: 0, time: Duration::ZERO };
    for (path, file) in &files {
        writeln!(out, "{}", clean(&path.display().to_string()))?;
        let begun = Instant::now();
        match rows(file) {
            Ok(module) => {
                let parsed = begun.elapsed();
                coverage::write(&module, &Names::read(file), out)?;
                process.add(&module, parsed, out)?;
                match options.rows {
                    Some(RowsShown::Calls) => write_rows(&module.rows, out)?,
                    Some(RowsShown::All) => write_rows(&rows_with(file, Pruning::None)?.rows, out)?,
                    None => {}
                }
            }
            Err(error) => writeln!(out, "  no table     {error}")?,
        }
        writeln!(out)?;
    }
    process.write(out)?;
    Ok(if process.files == files.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Maps a file. A device or a pipe has no end, and is no program.
fn open(path: &Path) -> anyhow::Result<MappedFile> {
    let named = || format!("--unwind {}", path.display());
    let kind = path.metadata().with_context(named)?.file_type();
    if !kind.is_file() {
        bail!("{}: it is not a regular file: name a program or a library", named());
    }
    File::open(path).and_then(|file| MappedFile::new(&file)).with_context(named)
}

/// The tables of all files.
struct Process {
    builder: TableBuilder,
    /// Files that have a table.
    files: usize,
    /// What it took to make them.
    time: Duration,
}

impl Process {
    fn add(&mut self, module: &ModuleRows, parsed: Duration, out: &mut dyn Write) -> io::Result<()> {
        let before = self.builder.pending();
        let begun = Instant::now();
        let added = self.builder.add_module(module);
        let packed = begun.elapsed();
        self.time += parsed + packed;
        let table = match added {
            Ok(table) => table,
            Err(full) => return writeln!(out, "  no table     {full}"),
        };
        self.files += 1;
        let slots = self.builder.pending().rows.len() - before.rows.len();
        let size = slots as u64 * 4 + u64::from(table.pages) * 8;
        writeln!(
            out,
            "  table        {} and {}: {}, read in {parsed:.1?} and packed in {packed:.1?}",
            counted(slots as u64, "row", "rows"),
            counted(table.pages.into(), "page of text", "pages of text"),
            bytes(size),
        )
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let pending = self.builder.pending();
        writeln!(
            out,
            "together       {}, {}, {}, {}: {} in the kernel, made in {:.1?}",
            counted(self.files as u64, "table", "tables"),
            counted(pending.chunks().len() as u64, "chunk of rows", "chunks of rows"),
            counted(pending.pages.len() as u64, "page", "pages"),
            counted(pending.rules.len() as u64, "rule", "rules"),
            bytes(self.builder.kernel_bytes()),
            self.time,
        )?;
        let (rules, pages) = (self.builder.refused_rules(), self.builder.crowded_pages());
        if rules + pages > 0 {
            writeln!(
                out,
                "no room for    {} of further rules, and the end of {}: stacks end there",
                counted(rules, "row", "rows"),
                counted(pages, "crowded page", "crowded pages"),
            )?;
        }
        Ok(())
    }
}

/// One line for each row: where it begins, how the CFA is found, how the caller's rbp.
fn write_rows(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "  {:<18}  {:<24}  rbp", "address", "CFA")?;
    for Row { start, rule } in rows {
        let cfa = CfaInWords(*rule).to_string();
        writeln!(out, "  {:#018x}  {cfa:<24}  {}", start.0, RbpInWords(*rule))?;
    }
    Ok(())
}
