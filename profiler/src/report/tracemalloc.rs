//! Python's tracemalloc in its own words: what `Snapshot.statistics()` and `compare_to()` print, in their order
//! (Lib/tracemalloc.py of CPython 3.11, `Statistic`, `StatisticDiff`). Estimates have their standard errors behind them.

use std::{cmp::Ordering, fmt};

use super::{
    units::plus_minus,
    view::{
        Sums,
        group::{By, lines},
        place::Line,
    },
};
use crate::report::profile::Profile;

/// A size as tracemalloc writes it (`_format_size`).
#[must_use]
pub fn size(bytes: f64, sign: bool) -> String {
    let mut size = bytes;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        let decimals = if size.abs() < 100.0 && unit != "B" {
            1
        } else if size.abs() < 10.0 * 1024.0 || unit == "TiB" {
            0
        } else {
            size /= 1024.0;
            continue;
        };
        return if sign { format!("{size:+.decimals$} {unit}") } else { format!("{size:.decimals$} {unit}") };
    }
    String::new()
}

fn bytes(bytes: u64) -> String {
    size(bytes as f64, false)
}

/// What the sites of one place hold: by a line, a file, a traceback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statistic {
    /// The oldest call first.
    pub traceback: Vec<Line>,
    /// Live bytes.
    pub size: u64,
    /// Live blocks.
    pub count: u64,
    /// Their standard errors, where they are estimates: bytes, blocks.
    pub errors: Option<(u64, u64)>,
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of_size, of_count) = self.errors.unzip();
        write!(f, "{}: size={}", first(&self.traceback), bytes(self.size))?;
        write!(f, "{}, count={}", plus_minus(of_size, bytes), self.count)?;
        write!(f, "{}", plus_minus(of_count, |error| error.to_string()))?;
        average(self.size, self.count, f)
    }
}

/// A traceback is named by its oldest frame, as tracemalloc does since Python 3.7.
fn first(traceback: &[Line]) -> String {
    traceback.first().map(ToString::to_string).unwrap_or_default()
}

fn average(bytes: u64, blocks: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if blocks > 0 {
        write!(f, ", average={}", size(bytes as f64 / blocks as f64, false))?;
    }
    Ok(())
}

/// What tracemalloc sorts tracebacks by: the frames, as pairs of file and line.
fn order(a: &[Line], b: &[Line]) -> Ordering {
    a.cmp(b)
}

/// What each place holds, largest first; places that hold nothing are left out, as tracemalloc does not know them.
#[must_use]
pub fn statistics(profile: &Profile, by: By) -> Option<Vec<Statistic>> {
    let statistic = |(traceback, sums): (Vec<Line>, Sums)| Statistic {
        traceback,
        size: sums.totals.inuse_space,
        count: sums.totals.inuse_objects,
        errors: errors(&sums),
    };
    let holds = |statistic: &Statistic| statistic.size > 0 || statistic.count > 0;
    let mut all: Vec<_> = lines(profile, by)?.into_iter().map(statistic).filter(holds).collect();
    all.sort_by(|a, b| {
        (b.size, b.count).cmp(&(a.size, a.count)).then_with(|| order(&b.traceback, &a.traceback))
    });
    Some(all)
}

fn errors(sums: &Sums) -> Option<(u64, u64)> {
    sums.errors().map(|errors| (errors.inuse_space, errors.inuse_objects))
}

/// How much more or less a place holds than before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The oldest call first.
    pub traceback: Vec<Line>,
    /// Live bytes, and how many more than before.
    pub size: (u64, i128),
    /// Live blocks, and how many more than before.
    pub count: (u64, i128),
    /// The standard errors of the differences, where they are estimates: bytes, blocks.
    pub errors: Option<(u64, u64)>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((now, more), (blocks, more_blocks)) = (self.size, self.count);
        let (of_size, of_count) = self.errors.unzip();
        write!(f, "{}: size={} ({}", first(&self.traceback), bytes(now), size(more as f64, true))?;
        write!(f, "{}), count={blocks} ({more_blocks:+}", plus_minus(of_size, bytes))?;
        write!(f, "{})", plus_minus(of_count, |error| error.to_string()))?;
        average(now, blocks, f)
    }
}

/// How the places differ, largest change first. The two profiles are sampled independently of one another, or share
/// samples, which makes the errors smaller: what is told is the most they can be.
#[must_use]
pub fn compare(before: &Profile, after: &Profile, by: By) -> Option<Vec<Difference>> {
    let (mut old, new) = (lines(before, by)?, lines(after, by)?);
    let mut all = Vec::new();
    let mut push = |traceback: Vec<Line>, old: Option<Sums>, new: Option<Sums>| {
        let numbers = |sums: &Option<Sums>| {
            sums.as_ref().map_or((0, 0), |sums| (sums.totals.inuse_space, sums.totals.inuse_objects))
        };
        let ((old_size, old_count), (size, count)) = (numbers(&old), numbers(&new));
        // What is not there at all has no error.
        let parts: Option<Vec<_>> = [&old, &new].into_iter().flatten().map(errors).collect();
        let errors = parts.map(|parts| {
            (together(parts.iter().map(|(size, _)| *size)), together(parts.iter().map(|(_, count)| *count)))
        });
        all.push(Difference {
            traceback,
            size: (size, i128::from(size) - i128::from(old_size)),
            count: (count, i128::from(count) - i128::from(old_count)),
            errors,
        });
    };
    for (traceback, sums) in new {
        let previous = old.remove(&traceback);
        push(traceback, previous, Some(sums));
    }
    for (traceback, sums) in old {
        push(traceback, Some(sums), None);
    }
    // tracemalloc does not know places that hold nothing, before or after.
    all.retain(|one| one.size != (0, 0) || one.count != (0, 0));
    all.sort_by(|a, b| {
        let key = |of: &Difference| (of.size.1.abs(), of.size.0, of.count.1.abs(), of.count.0);
        key(b).cmp(&key(a)).then_with(|| order(&b.traceback, &a.traceback))
    });
    Some(all)
}

/// The standard error of a sum or a difference of independent numbers.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn together(errors: impl Iterator<Item = u64>) -> u64 {
    errors.map(|error| error as f64 * error as f64).sum::<f64>().sqrt().ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As CPython 3.11 writes them.
    #[test]
    fn sizes() {
        for (bytes, plain, signed) in [
            (0.0, "0 B", "+0 B"),
            (99.0, "99 B", "+99 B"),
            (10_239.0, "10239 B", "+10239 B"),
            (10_240.0, "10.0 KiB", "+10.0 KiB"),
            (-10_240.0, "-10.0 KiB", "-10.0 KiB"),
            (102_400.0, "100 KiB", "+100 KiB"),
            (10_485_760.0, "10.0 MiB", "+10.0 MiB"),
            (1e15, "909 TiB", "+909 TiB"),
            (1e18, "909495 TiB", "+909495 TiB"),
        ] {
            assert_eq!((size(bytes, false).as_str(), size(bytes, true).as_str()), (plain, signed));
        }
    }

    #[test]
    fn sentences() {
        let traceback = vec![Line { name: "app.py".into(), number: Some(7) }];
        let statistic = Statistic { traceback: traceback.clone(), size: 1000, count: 3, errors: None };
        assert_eq!(statistic.to_string(), "app.py:7: size=1000 B, count=3, average=333 B");
        let difference = Difference { traceback, size: (1000, -24), count: (3, 1), errors: Some((100, 2)) };
        assert_eq!(
            difference.to_string(),
            "app.py:7: size=1000 B (-24 B ± 100 B), count=3 (+1 ± 2), average=333 B"
        );
    }
}
