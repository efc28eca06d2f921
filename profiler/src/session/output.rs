//! Where reports go. Files are opened before anything is traced: a path that cannot be written is said at once, not
//! when the only chance to look at the process has passed.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context;

use super::{
    options::{CommonOptions, OutputSpec},
    recorder::Recorder,
};
use crate::report::{
    format::{Format, write_report},
    options::ReportOptions,
    profile::Profile,
};

/// The opened destinations.
#[derive(Debug)]
pub(super) struct Outputs {
    files: Vec<(OutputSpec, Option<File>)>,
    /// Whether the recording among them is written while the target is watched.
    records: bool,
}

impl Outputs {
    /// Opens every destination. Where none was named, a flamegraph in the current folder is one.
    pub(super) fn open(options: &CommonOptions, default_name: &str) -> anyhow::Result<Self> {
        let mut specs = options.outputs.clone();
        if specs.is_empty() {
            let format = options.fallback_format.unwrap_or(Format::Svg);
            specs.push(OutputSpec { path: format!("{default_name}.{}", format.ending()).into(), format });
        }
        Self::open_all(specs)
    }

    /// Opens these destinations.
    pub(super) fn open_all(specs: Vec<OutputSpec>) -> anyhow::Result<Self> {
        let files = specs
            .into_iter()
            .map(|spec| {
                let file = if spec.is_stdout() { None } else { Some(open(&spec.path)?) };
                Ok((spec, file))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { files, records: false })
    }

    /// Whether one of them is standard output, which then belongs to it alone.
    pub(super) fn use_stdout(&self) -> bool {
        self.files.iter().any(|(_, file)| file.is_none())
    }

    /// What writes the recording while the target is watched, if one is wanted in a file of its own: what goes to a pipe
    /// or a terminal is written at the end, like every report.
    pub(super) fn recorder(&mut self, options: &CommonOptions) -> Option<Recorder> {
        let wanted = self.files.iter().find(|(spec, _)| spec.format == Format::Hscope);
        let (spec, file) = wanted.and_then(|(spec, file)| Some((spec, file.as_ref()?)))?;
        let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let file = file.try_clone().ok().filter(|_| is_regular)?;
        self.records = true;
        Some(Recorder::new(spec.path.clone(), file, options.interval))
    }

    /// Writes them all, but for a recording that has been written; the names of the files. That one of them cannot be
    /// written does not keep the others from it.
    pub(super) fn write(self, profile: &Profile, options: &ReportOptions) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut failed = None;
        let mut recorded = self.records;
        for (spec, file) in self.files {
            if spec.format == Format::Hscope && std::mem::take(&mut recorded) {
                continue;
            }
            let written = match file {
                None => {
                    let mut out = BufWriter::new(io::stdout().lock());
                    write_report(spec.format, profile, options, &mut out).and_then(|()| out.flush())
                }
                Some(file) => {
                    // What was there before is replaced only now. A pipe or a device has no length.
                    let _ = file.set_len(0);
                    let mut out = BufWriter::new(file);
                    let written = write_report(spec.format, profile, options, &mut out);
                    names.push(spec.path.display().to_string());
                    written.and_then(|()| out.flush())
                }
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    failed.get_or_insert(error.context(format!("cannot write {}", spec.path.display())));
                }
                Ok(()) => {}
            }
        }
        failed.map_or(Ok(names), Err)
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path).with_context(|| {
        format!(
            "cannot write {}. Name another file with --output, or `-o - --format folded` for standard output",
            path.display()
        )
    })
}
