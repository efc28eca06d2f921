//! `heapscope diff`: two recordings, or two moments of one.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context, anyhow, bail};

use super::{
    open::{Opened, profile_at},
    options::DiffOptions,
    report_options,
};
use crate::report::{
    diff::{DiffFormat, Pair, print, write},
    profile::Profile,
    view::moment::When,
};

/// Prints or writes what two moments differ in.
///
/// # Errors
/// What and what to do, in one sentence each.
pub fn diff(options: &DiffOptions, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let outputs = options
        .outputs
        .iter()
        .map(|path| Ok((path.as_path(), format(path, options.format.as_deref())?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let before = profile(&options.before, options)?;
    let after = profile(&options.after, options)?;
    let pair =
        Pair { before: &before, before_name: &options.before, after: &after, after_name: &options.after };
    let (by, shaped) = (options.view.by, report_options(&options.view));
    if outputs.is_empty() {
        print(&pair, by, &shaped, out)?;
    }
    for (path, format) in outputs {
        let named = || format!("cannot write {}", path.display());
        if path == Path::new("-") {
            write(format, &pair, by, &shaped, out).with_context(named)?;
            continue;
        }
        let mut file = BufWriter::new(File::create(path).with_context(named)?);
        write(format, &pair, by, &shaped, &mut file).with_context(named)?;
        file.flush().with_context(named)?;
        writeln!(out, "wrote {}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn format(path: &Path, fallback: Option<&str>) -> anyhow::Result<DiffFormat> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    let Some(format) = ending.as_deref().or(fallback).and_then(DiffFormat::of) else {
        bail!("--output {}: a difference is written as .svg, .folded or .json", path.display())
    };
    Ok(format)
}

/// The profile of `FILE` or `FILE@MOMENT`.
fn profile(name: &str, options: &DiffOptions) -> anyhow::Result<Profile> {
    let (file, when) = match name.rsplit_once('@').filter(|_| !Path::new(name).exists()) {
        Some((file, when)) => (file, Some(When::from_str(when).map_err(|what| anyhow!("{name}: {what}"))?)),
        None => (name, None),
    };
    let opened = Opened::read(Path::new(file))?;
    opened.tell_damage();
    let profile = profile_at(&opened.recording, when.as_ref()).map_err(|what| anyhow!("{name}: {what}"))?;
    Ok(options.view.filter.apply(profile))
}
