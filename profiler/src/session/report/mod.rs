//! `heapscope report` and `heapscope diff`: from recordings to reports. Nothing but files is read, so that it needs no
//! rights and works on any machine.

mod diff;
mod open;
pub mod options;

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{anyhow, bail};

pub use self::diff::diff;
use self::{
    open::{Opened, profile_at},
    options::{FileReportOptions, ViewOptions},
};
use super::{options::OutputSpec, output::Outputs, watch::width};
use crate::{
    report::{
        annotate,
        format::Format,
        grouped,
        metric::Metric,
        options::ReportOptions,
        profile::Profile,
        view::{filter::join_small, group::By, moment},
    },
    symbolize::label::clean,
};

/// The largest source file that is printed, in bytes.
const MAX_SOURCE: u64 = 16 << 20;

/// Makes reports of a recording.
///
/// # Errors
/// What and what to do, in one sentence each.
pub fn report(options: &FileReportOptions, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let opened = Opened::read(&options.file)?;
    opened.tell_damage();
    let named = || options.file.display().to_string();
    let profile =
        profile_at(&opened.recording, options.at.as_ref()).map_err(|what| anyhow!("{}: {what}", named()))?;
    let profile = match &options.between {
        Some((from, to)) => {
            moment::between(profile, from, to).map_err(|what| anyhow!("{}: {what}", named()))?
        }
        None => profile,
    };
    let profile = options.view.filter.apply(profile);
    if let Some(name) = &options.annotate {
        return print_annotation(&profile, name, options.source.as_deref(), out);
    }
    let shaped = report_options(&options.view);
    let joined = match options.view.min_percent {
        Some(percent) => join_small(profile, options.view.metric, percent),
        None => profile,
    };
    let written = write_files(&options.outputs, &joined, &shaped)?;
    if options.outputs.is_empty() || options.view.by != By::Site {
        print(&joined, options.view.by, &shaped, out)?;
    }
    // What goes to standard output stands alone there.
    if !options.outputs.iter().any(OutputSpec::is_stdout) {
        written.iter().try_for_each(|name| writeln!(out, "wrote {name}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the table; what cannot be grouped is an error of the user's.
fn print(profile: &Profile, by: By, options: &ReportOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    match grouped::write(profile, by, options, out) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => bail!("--by: {error}"),
        done => Ok(done?),
    }
}

fn report_options(view: &ViewOptions) -> ReportOptions {
    ReportOptions {
        full_stacks: view.full_stacks,
        width: width(),
        sites: view.top,
        metric: view.metric,
        invert: view.invert,
    }
}

fn write_files(
    outputs: &[OutputSpec],
    profile: &Profile,
    options: &ReportOptions,
) -> anyhow::Result<Vec<String>> {
    if outputs.is_empty() {
        return Ok(Vec::new());
    }
    for output in outputs {
        let heeds = matches!(output.format, Format::Svg | Format::Folded);
        if !heeds && (options.invert || options.metric != Metric::InuseSpace) {
            eprintln!(
                "heapscope: {} is written with all its metrics and with stacks as they are: --metric and --invert shape the \
                 flamegraph, the folded stacks and the printed table",
                output.path.display()
            );
        }
    }
    Outputs::open_all(outputs.to_vec())?.write(profile, options)
}

fn print_annotation(
    profile: &Profile,
    name: &str,
    source: Option<&Path>,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let annotation = annotate::annotate(profile, name).map_err(|what| anyhow!("--annotate: {what}"))?;
    let path = source.unwrap_or(Path::new(&annotation.file));
    let (text, said) = read_source(path, profile);
    if let Some(said) = said {
        writeln!(out, "{}", clean(&said))?;
    }
    annotate::write(profile, &annotation, text.as_deref(), out)?;
    Ok(ExitCode::SUCCESS)
}

/// The source, and what must be said of it: it is read now, from this machine, and may be another one than ran.
fn read_source(path: &Path, profile: &Profile) -> (Option<String>, Option<String>) {
    let shown = path.display();
    let read = || -> anyhow::Result<(String, SystemTime)> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() || metadata.len() > MAX_SOURCE {
            bail!("it is no source file");
        }
        Ok((String::from_utf8_lossy(&fs::read(path)?).into_owned(), metadata.modified()?))
    };
    match read() {
        Ok((text, changed)) => {
            let newer = profile.started.checked_add(profile.duration).is_some_and(|end| changed > end);
            let said = newer.then(|| {
                format!("warning: {shown} was changed after the recording: lines may be others than those that ran.")
            });
            (Some(text), said)
        }
        Err(error) => {
            let said = format!(
                "warning: the source {shown} cannot be read ({error}); only numbers are shown. Name it with --source FILE."
            );
            (None, Some(said))
        }
    }
}
