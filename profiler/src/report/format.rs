//! The file formats, told from a file's ending or a name.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
};

use super::{
    csv, dhat, firefox, flamegraph, folded, heaptrack, html, json, options::ReportOptions, pprof,
    profile::Profile, recording, speedscope,
};

/// A file format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Format {
    /// A flamegraph to look at in a browser.
    Svg,
    /// A page to explore in a browser.
    Html,
    /// Folded stacks, for other flamegraph tools.
    Folded,
    /// Everything, for programs.
    Json,
    /// For pprof and the profile stores that read its format.
    Pprof,
    /// For speedscope.
    Speedscope,
    /// For the Firefox Profiler.
    Firefox,
    /// For heaptrack's programs.
    Heaptrack,
    /// For the viewer of valgrind's DHAT.
    Dhat,
    /// A table for spreadsheets and data frames.
    Csv,
    /// A recording, from which every other format can be made later.
    Hscope,
}

/// Why no format could be told.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FormatError {
    /// The file has another ending, or none.
    #[error("cannot tell a format from `{0}`: the file must end in {endings}, or name the format", endings = endings())]
    UnknownEnding(String),
    /// There is no format of that name.
    #[error("there is no format `{0}`: choose {names}", names = names())]
    UnknownName(String),
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Svg,
        Self::Html,
        Self::Folded,
        Self::Json,
        Self::Pprof,
        Self::Speedscope,
        Self::Firefox,
        Self::Heaptrack,
        Self::Dhat,
        Self::Csv,
        Self::Hscope,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Html => "html",
            Self::Folded => "folded",
            Self::Json => "json",
            Self::Pprof => "pprof",
            Self::Speedscope => "speedscope",
            Self::Firefox => "firefox",
            Self::Heaptrack => "heaptrack",
            Self::Dhat => "dhat",
            Self::Csv => "csv",
            Self::Hscope => "hscope",
        }
    }

    /// The ending of its files, without the point before it.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Html => "html",
            Self::Folded => "folded",
            Self::Json => "json",
            Self::Pprof => "pb.gz",
            Self::Speedscope => "speedscope.json",
            Self::Firefox => "firefox.json",
            Self::Heaptrack => "heaptrack.gz",
            Self::Dhat => "dhat.json",
            Self::Csv => "csv",
            Self::Hscope => "hscope",
        }
    }

    /// The format for a file with this path, by its ending; the longest one counts, for `x.dhat.json` is not ours.
    ///
    /// # Errors
    /// When the ending is not one of ours.
    pub fn from_path(path: &Path) -> Result<Self, FormatError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let lower = name.to_ascii_lowercase();
        let has_ending = |format: &Self| {
            lower.strip_suffix(format.ending()).is_some_and(|beginning| beginning.ends_with('.'))
        };
        Self::ALL
            .into_iter()
            .filter(has_ending)
            .max_by_key(|format| format.ending().len())
            .ok_or_else(|| FormatError::UnknownEnding(name.into_owned()))
    }

    /// The format with this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn from_name(name: &str) -> Result<Self, FormatError> {
        let lower = name.to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(|format| lower == format.name());
        found.ok_or_else(|| FormatError::UnknownName(name.to_owned()))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `.svg, .folded or .json`, with all that there are.
fn endings() -> String {
    one_of(Format::ALL.map(|format| format!(".{}", format.ending())))
}

fn names() -> String {
    one_of(Format::ALL.map(|format| format.name().to_owned()))
}

fn one_of<const COUNT: usize>(words: [String; COUNT]) -> String {
    match words.as_slice() {
        [all @ .., last] => format!("{} or {last}", all.join(", ")),
        [] => String::new(),
    }
}

/// The formats that growth has. The others have columns for blocks, which are not seen then.
pub const OF_GROWTH: [Format; 3] = [Format::Svg, Format::Folded, Format::Json];

/// The formats that tell what was kept of windows. The others have a place for what lives alone, which is not known then.
pub const OF_WINDOWS: [Format; 5] = [Format::Svg, Format::Html, Format::Folded, Format::Json, Format::Hscope];

/// Writes `profile` in `format`.
///
/// # Errors
/// Those of `out`, a broken pipe among them; for some formats also when the sums do not fit 63 or 64 bits; `InvalidInput` for
/// growth in a format that has none.
pub fn write_report(
    format: Format,
    profile: &Profile,
    options: &ReportOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    if profile.growth.is_some() && !OF_GROWTH.contains(&format) {
        let what = format!("the format {format} is about blocks, and growth sees none");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    match format {
        Format::Svg => flamegraph::write(profile, options, out),
        Format::Html => html::write(profile, options, out),
        Format::Folded => folded::write(profile, options, out),
        Format::Json => json::write(profile, options, out),
        Format::Pprof => pprof::write(profile, options, out),
        Format::Speedscope => speedscope::write(profile, options, out),
        Format::Firefox => firefox::write(profile, options, out),
        Format::Heaptrack => heaptrack::write(profile, options, out),
        Format::Dhat => dhat::write(profile, options, out),
        Format::Csv => csv::write(profile, options, out),
        Format::Hscope => recording::write(profile, options, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_of_files() {
        let of = |path: &str| Format::from_path(Path::new(path));
        assert_eq!(of("/tmp/x.svg"), Ok(Format::Svg));
        assert_eq!(of("a.b.folded"), Ok(Format::Folded));
        assert_eq!(of("OUT.JSON"), Ok(Format::Json));
        for format in Format::ALL {
            assert_eq!(of(&format!("a.b.{}", format.ending())), Ok(format));
        }
        for unknown in ["x", "svg", "x.txt", "", "/", "x.svg.gz", "dir.svg/x", "xpb.gz", "x.pb"] {
            assert!(matches!(of(unknown), Err(FormatError::UnknownEnding(_))), "{unknown}");
        }
        let refusal = FormatError::UnknownEnding("x.txt".into()).to_string();
        assert!(Format::ALL.iter().all(|format| refusal.contains(format.ending())), "{refusal}");
    }

    #[test]
    fn names_of_formats() {
        assert!(Format::ALL.into_iter().all(|format| Format::from_name(format.name()) == Ok(format)));
        let refusal = FormatError::UnknownName("xml".into());
        assert_eq!(Format::from_name("xml").as_ref(), Err(&refusal));
        assert!(Format::ALL.iter().all(|format| refusal.to_string().contains(format.name())));
    }
}
