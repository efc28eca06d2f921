//! A source file with what each of its lines holds: live bytes, blocks, and how they have grown.
//!
//! Memory counts for the line of this file through which it was asked for: the innermost call in the file, whatever that
//! calls in turn, so that each site counts once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    time::Duration,
};

use super::{
    profile::{Profile, SiteReport},
    units::{bytes, count, plus_minus, span},
    view::Sums,
};
use crate::symbolize::{fold::fold, frame::Frame, label::clean};

/// Characters of a source line that are shown.
const WIDTH: usize = 120;

/// What a line holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineSums {
    /// Live, and allocated.
    pub sums: Sums,
    /// How many live bytes more it holds at the end than at half time; `None` where that is not known.
    pub growth: Option<i128>,
}

/// A file of the profile, by its lines.
#[derive(Clone, Debug)]
pub struct Annotation {
    /// The file as the profile names it.
    pub file: String,
    /// Lines that hold or have allocated something, from 1; 0 for code of the file whose line is not known.
    pub lines: BTreeMap<u32, LineSums>,
    /// From when on growth is told.
    pub since: Option<Duration>,
}

/// Whether the path ends in these parts: `app.py` and `shop/app.py` name `/srv/shop/app.py`.
fn is_named(path: &str, name: &str) -> bool {
    path == name || path.strip_suffix(name).is_some_and(|before| before.ends_with('/'))
}

/// The annotation of the one file with this name.
///
/// # Errors
/// A sentence, where no file or more than one has it.
pub fn annotate(profile: &Profile, name: &str) -> Result<Annotation, String> {
    let files = profile.sites.iter().flat_map(|site| &site.stack).filter_map(|frame| frame.file.as_deref());
    let found: BTreeSet<&str> = files.filter(|file| is_named(file, name)).collect();
    let mut found = found.into_iter();
    let file = match (found.next(), found.next()) {
        (Some(file), None) => file,
        (None, _) => {
            return Err(format!(
                "no line of a file `{}` has allocated anything here: `heapscope report --by file` lists the files",
                clean(name)
            ));
        }
        (Some(first), Some(second)) => {
            return Err(format!(
                "several files are called `{}`: write more of the path, as in {} or {}",
                clean(name),
                clean(first),
                clean(second)
            ));
        }
    };
    let half = half_time(profile);
    let mut lines: BTreeMap<u32, LineSums> = BTreeMap::new();
    for site in &profile.sites {
        let folded = fold(&site.stack, false);
        let Some(frame) = folded.iter().find(|frame| is_in(frame, file)) else { continue };
        let line = lines.entry(frame.line.unwrap_or(0)).or_default();
        line.sums.add(&site.totals, site.errors.as_ref());
        if let Some((half, last, _)) = half {
            let more = i128::from(held_at(site, last)) - i128::from(held_at(site, half));
            line.growth = Some(line.growth.unwrap_or(0) + more);
        }
    }
    Ok(Annotation { file: file.to_owned(), lines, since: half.map(|(.., after)| after) })
}

fn is_in(frame: &Frame, file: &str) -> bool {
    frame.file.as_deref() == Some(file)
}

/// The last snapshot of the first half, the last of all, and when the first of them was.
fn half_time(profile: &Profile) -> Option<(usize, usize, Duration)> {
    let snapshots = &profile.history.snapshots;
    let last = snapshots.len().checked_sub(1).filter(|last| *last > 0)?;
    let half = snapshots.get(last)?.after / 2;
    let at = snapshots.iter().rposition(|snapshot| snapshot.after <= half)?;
    Some((at, last, snapshots.get(at)?.after))
}

/// Live bytes of a site at a snapshot.
fn held_at(site: &SiteReport, snapshot: usize) -> u64 {
    site.history.over_time.iter().rev().find(|(at, _)| *at <= snapshot).map_or(0, |(_, space)| *space)
}

/// `+9.0 MiB`.
fn signed(growth: i128) -> String {
    let sign = if growth < 0 { '-' } else { '+' };
    format!("{sign}{}", bytes(u64::try_from(growth.unsigned_abs()).unwrap_or(u64::MAX)))
}

/// Writes the lines of the source with their numbers beside them; without a source, the lines that have numbers.
///
/// # Errors
/// Those of `out`.
pub fn write(
    profile: &Profile,
    annotation: &Annotation,
    source: Option<&str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let since =
        annotation.since.map_or_else(|| "growth".to_owned(), |after| format!("since {}", span(after)));
    let wide = if profile.errors.is_some() { 22 } else { 10 };
    writeln!(out, "{}", clean(&annotation.file))?;
    writeln!(out, "{:>wide$}  {:>10}  {since:>12}  {:>5}  source", "live", "blocks", "line")?;
    let numbers = |line: Option<&LineSums>| {
        let Some(LineSums { sums, growth }) = line else {
            return format!("{:>wide$}  {:>10}  {:>12}", "", "", "");
        };
        let error = plus_minus(sums.errors().map(|errors| errors.inuse_space), bytes);
        let live = format!("{}{error}", bytes(sums.totals.inuse_space));
        let growth = growth.map_or_else(|| "-".to_owned(), signed);
        format!("{live:>wide$}  {:>10}  {growth:>12}", count(sums.totals.inuse_objects))
    };
    let shown =
        |text: &str| text.chars().take(WIDTH).map(|c| if c == '\t' { ' ' } else { c }).collect::<String>();
    let mut last = 0;
    for (number, text) in (1..).zip(source.into_iter().flat_map(str::lines)) {
        let text = shown(text);
        let indent = text.len() - text.trim_start().len();
        let line = format!(
            "{}  {number:>5}  {:indent$}{}",
            numbers(annotation.lines.get(&number)),
            "",
            clean(&text)
        );
        writeln!(out, "{}", line.trim_end())?;
        last = number;
    }
    let beyond = annotation.lines.iter().filter(|(number, _)| **number > last || **number == 0);
    for (number, line) in beyond {
        let what = match (source, number) {
            (_, 0) => "[line not known]",
            (Some(_), _) => "[the source has no such line]",
            (None, _) => "",
        };
        writeln!(out, "{}", format!("{}  {number:>5}  {what}", numbers(Some(line))).trim_end())?;
    }
    Ok(())
}
