//! The file formats, told from a file's ending or a name.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
};

use super::{flamegraph, folded, json, options::ReportOptions, profile::Profile, recording};

/// A file format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Format {
    /// A flamegraph to look at in a browser.
    Svg,
    /// Folded stacks, for other flamegraph tools.
    Folded,
    /// Everything, for programs.
    Json,
    /// A recording, from which every other format can be made later.
    Hscope,
}

/// Why no format could be told.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FormatError {
    /// The file has another ending, or none.
    #[error(
        "cannot tell a format from `{0}`: the file must end in .svg, .folded, .json or .hscope, or name the format"
    )]
    UnknownEnding(String),
    /// There is no format of that name.
    #[error("there is no format `{0}`: choose svg, folded, json or hscope")]
    UnknownName(String),
    /// The format is known, but this version does not write it.
    #[error("`{0}` is not written by this version: choose .svg, .folded, .json or .hscope")]
    NotYet(String),
}

/// Endings that other tools' users will try. They must not be taken for one of ours: `x.speedscope.json` ends in `.json`.
const NOT_YET: &[&str] = &[".pb.gz", ".pb", ".html", ".speedscope.json"];

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Svg, Self::Folded, Self::Json, Self::Hscope];

    /// Its name, which is also the files' ending.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Folded => "folded",
            Self::Json => "json",
            Self::Hscope => "hscope",
        }
    }

    /// The format for a file with this path, by its ending.
    ///
    /// # Errors
    /// When the ending is not one of ours.
    pub fn from_path(path: &Path) -> Result<Self, FormatError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let lower = name.to_ascii_lowercase();
        if NOT_YET.iter().any(|ending| lower.ends_with(ending)) {
            return Err(FormatError::NotYet(name.into_owned()));
        }
        let ending = lower.rsplit_once('.').map(|(_, ending)| ending);
        Self::ALL
            .into_iter()
            .find(|format| ending == Some(format.name()))
            .ok_or_else(|| FormatError::UnknownEnding(name.into_owned()))
    }

    /// The format with this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn from_name(name: &str) -> Result<Self, FormatError> {
        let lower = name.to_ascii_lowercase();
        match Self::ALL.into_iter().find(|format| lower == format.name()) {
            Some(format) => Ok(format),
            None if matches!(lower.as_str(), "pprof" | "pb" | "pb.gz" | "html" | "speedscope") => {
                Err(FormatError::NotYet(name.to_owned()))
            }
            None => Err(FormatError::UnknownName(name.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Writes `profile` in `format`.
///
/// # Errors
/// Those of `out`, a broken pipe among them; for the picture also when the live bytes do not fit 64 bits.
pub fn write_report(
    format: Format,
    profile: &Profile,
    options: &ReportOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Svg => flamegraph::write(profile, options, out),
        Format::Folded => folded::write(profile, options, out),
        Format::Json => json::write(profile, options, out),
        Format::Hscope => recording::write(profile, options, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        let of = |path: &str| Format::from_path(Path::new(path));
        assert_eq!(of("/tmp/x.svg"), Ok(Format::Svg));
        assert_eq!(of("a.b.folded"), Ok(Format::Folded));
        assert_eq!(of("OUT.JSON"), Ok(Format::Json));
        assert_eq!(of("x.speedscope.json"), Err(FormatError::NotYet("x.speedscope.json".into())));
        assert_eq!(of("x.pb.gz"), Err(FormatError::NotYet("x.pb.gz".into())));
        for unknown in ["x", "svg", "x.txt", "", "/", "x.svg.gz", "dir.svg/x"] {
            assert!(matches!(of(unknown), Err(FormatError::UnknownEnding(_))), "{unknown}");
        }
        assert!(
            FormatError::UnknownEnding("x.txt".into())
                .to_string()
                .contains(".svg, .folded, .json or .hscope")
        );
    }

    #[test]
    fn names() {
        assert!(Format::ALL.into_iter().all(|format| Format::from_name(format.name()) == Ok(format)));
        assert_eq!(Format::from_name("speedscope"), Err(FormatError::NotYet("speedscope".into())));
        assert_eq!(Format::from_name("xml"), Err(FormatError::UnknownName("xml".into())));
    }
}
