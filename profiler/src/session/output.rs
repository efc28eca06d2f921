//! Where reports go. Files are opened before anything is traced: a path that cannot be written is said at once, not
//! when the only chance to look at the process has passed.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context;

use super::options::{CommonOptions, OutputSpec};
use crate::report::{
    format::{Format, write_report},
    options::ReportOptions,
    profile::Profile,
};

/// The opened destinations.
#[derive(Debug)]
pub(super) struct Outputs {
    files: Vec<(OutputSpec, Option<File>)>,
}

impl Outputs {
    /// Opens every destination. Where none was named, a flamegraph in the current folder is one.
    pub(super) fn open(options: &CommonOptions, default_name: &str) -> anyhow::Result<Self> {
        let mut specs = options.outputs.clone();
        if specs.is_empty() {
            let format = options.fallback_format.unwrap_or(Format::Svg);
            specs.push(OutputSpec { path: format!("{default_name}.{}", format.ending()).into(), format });
        }
        let files = specs
            .into_iter()
            .map(|spec| {
                let file = if spec.is_stdout() { None } else { Some(open(&spec.path)?) };
                Ok((spec, file))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { files })
    }

    /// Whether one of them is standard output, which then belongs to it alone.
    pub(super) fn use_stdout(&self) -> bool {
        self.files.iter().any(|(_, file)| file.is_none())
    }

    /// Writes them all; the names of the files.
    pub(super) fn write(self, profile: &Profile, options: &ReportOptions) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for (spec, file) in self.files {
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
                done => done.with_context(|| format!("cannot write {}", spec.path.display()))?,
            }
        }
        Ok(names)
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
