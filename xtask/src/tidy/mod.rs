//! What the compiler does not check: the layer table, who may name what, and the shape of the files.
//!
//! The rules themselves are tables in [`rules`]; [`names`] says what a source file names. A finding is printed as
//! `file:line: what and why`, so that editors jump to it.

mod names;
mod rules;
#[cfg(test)]
mod tests;

use std::{fmt, fs, path::Path, process::ExitCode};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Lines that one file may have, tests included: more than that is more than one concept.
const LINE_LIMIT: usize = 400;

/// One broken rule.
#[derive(PartialEq, Eq, Debug)]
struct Finding {
    /// From the tree's root, with `/`.
    file: String,
    /// From 1.
    line: usize,
    /// The rule, with what broke it.
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Runs `cargo xtask tidy`.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let mut files = Vec::new();
    collect(&workspace.root, "", &mut files)?;
    files.sort();

    let mut findings = Vec::new();
    for file in &files {
        let text =
            fs::read_to_string(workspace.root.join(file)).with_context(|| format!("reading {file}"))?;
        findings.extend(examine(file, &text));
    }
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing found", files.len());
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!("error: tidy found {} broken rules", findings.len());
        Ok(ExitCode::FAILURE)
    }
}

/// The Rust files below `root/folder`, but for what cargo and git keep there.
fn collect(root: &Path, folder: &str, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(folder)).with_context(|| format!("reading {folder}"))? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a file name is not UTF-8")?;
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, files)?;
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Everything that is wrong with one file. `file` is its path from the tree's root.
fn examine(file: &str, text: &str) -> Vec<Finding> {
    let finding = |line: usize, what: String| Finding { file: file.to_owned(), line, what };
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(finding(1, "opens without `//!`: say why the file exists".to_owned()));
    }
    let lines = text.lines().count();
    if lines > LINE_LIMIT {
        findings.push(finding(
            LINE_LIMIT + 1,
            format!("{lines} lines, {LINE_LIMIT} are allowed: which part is a concept of its own?"),
        ));
    }
    match names::of(text) {
        Ok(names) => {
            let broken = rules::broken(file, &names);
            findings.extend(broken.into_iter().map(|(line, what)| finding(line, what)));
        }
        Err(error) => {
            findings.push(finding(error.span().start().line, format!("does not parse: {error}")));
        }
    }
    findings
}
