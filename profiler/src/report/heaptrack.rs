//! heaptrack's data file, version 3, gzipped: what heaptrack_print and heaptrack_gui read.
//!
//! A line that begins with a letter defines something, by the order of its kind from 1 on (0 means none), with numbers in
//! hexadecimal digits: `s` a text, `i` a call, `t` a call with its caller, `a` a size with its stack. `+` and `-` are the
//! birth and the death of a block by its `a`, which count from 0. So the file grows with the blocks, not with the sites.

mod lives;
mod tables;

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use profiler_common::records::Held;

use self::{lives::Lives, tables::Tables};
use super::{options::ReportOptions, profile::Profile, shown, units::counted};
use crate::symbolize::label;

/// A version of heaptrack that reads version 3 of the format: 1.4.0.
const HEAPTRACK_VERSION: u32 = 0x01_04_00;
const FILE_VERSION: u32 = 3;
/// Blocks that were live neither at the peak nor at the end are told up to so many: 800 MB of text, a few seconds.
const MOST_GONE: u64 = 50_000_000;
/// Live blocks of which a file can be made.
const MOST_LIVE: u64 = 200_000_000;
/// Bytes of a page, the unit of resident memory.
const PAGE: u64 = 4096;
/// A size of no bytes: its death between a block's birth and death says that this block was not temporary.
const NOT_TEMPORARY: u64 = 1;

/// The blocks of one site by their sizes: index of an `a` line, and how many.
type Blocks = Vec<(u64, u64)>;

/// What happens to the blocks of one site.
struct Events {
    both: Blocks,
    peak: Blocks,
    end: Blocks,
    gone: Blocks,
    temporary: u64,
}

/// Writes the file. docs/formats.md tells what is lost.
///
/// # Errors
/// Those of `out`, when a sum does not fit 63 bits, and when there are too many live blocks to tell them one by one.
pub fn write(profile: &Profile, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    shown::check_sums(profile)?;
    let lives: Vec<Lives> = profile.sites.iter().map(Lives::of).collect();
    let gone = lives.iter().fold(0_u64, |sum, lives| sum.saturating_add(lives.gone.objects));
    let with_gone = gone <= MOST_GONE;
    let live = |lives: &Lives| [lives.both, lives.peak, lives.end].map(|held| held.objects);
    let live = lives.iter().flat_map(live).fold(0_u64, u64::saturating_add);
    if live > MOST_LIVE {
        let live = counted(live, "live block is", "live blocks are");
        let reason = format!("heaptrack's format has a line for each block, and {live} too many");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let mut gzip = GzEncoder::new(out, Compression::fast());
    writeln!(gzip, "v {HEAPTRACK_VERSION:x} {FILE_VERSION:x}")?;
    let left_out = if with_gone { 0 } else { gone };
    writeln!(gzip, "X {}", debuggee(profile, &lives, left_out))?;
    for sentence in shown::sentences(profile) {
        writeln!(gzip, "# {sentence}")?;
    }
    if profile.mode.command == "attach" {
        writeln!(gzip, "A")?;
    }
    writeln!(gzip, "I {PAGE:x} 0")?;

    let mut tables = Tables::default();
    let mut events = Vec::with_capacity(lives.len());
    for (site, lives) in profile.sites.iter().zip(&lives) {
        let trace = tables.trace(&shown::stack(site, options));
        let mut blocks = |held| sizes(held, |size| tables.size(size, trace));
        events.push(Events {
            both: blocks(lives.both),
            peak: blocks(lives.peak),
            end: blocks(lives.end),
            gone: if with_gone { blocks(lives.gone) } else { Blocks::new() },
            temporary: lives.temporary,
        });
    }
    gzip.write_all(tables.text().as_bytes())?;
    tell(profile, &events, &mut gzip)?;
    gzip.finish().map(drop)
}

/// The command, with what must be known of the numbers: heaptrack shows no other text of a file.
fn debuggee(profile: &Profile, lives: &[Lives], left_out: u64) -> String {
    let mut text = label::clean(&profile.target.command);
    let _ = write!(text, " [{}, process {}: {}", shown::WRITER, profile.target.pid, shown::how(profile));
    if let Some(errors) = &profile.errors {
        let _ = write!(text, ", leaked ± {} bytes", errors.inuse_space);
    }
    let _ = write!(text, "; leaked means live at the {}", profile.mode.at.label());
    if left_out > 0 {
        let blocks = counted(left_out, "block", "blocks");
        let _ = write!(text, "; {blocks} that were live neither at the peak nor then are left out");
    }
    let without_peak = lives.iter().filter(|lives| lives.without_peak).count() as u64;
    if without_peak > 0 {
        let _ = write!(text, "; {} not part of the peak", counted(without_peak, "site is", "sites are"));
    }
    let losses = profile.quality.lost.values().filter(|lost| **lost > 0).count() as u64;
    if losses > 0 {
        let _ = write!(
            text,
            "; {}, told in the file's comments",
            counted(losses, "kind of loss", "kinds of losses")
        );
    }
    text + "]"
}

/// Blocks of the mean size, or of the two sizes next to it, so that they add up.
fn sizes(held: Held, mut index_of: impl FnMut(u64) -> u64) -> Blocks {
    let (Some(size), Some(larger)) =
        (held.space.checked_div(held.objects), held.space.checked_rem(held.objects))
    else {
        return Blocks::new();
    };
    let mut blocks = Blocks::new();
    if larger > 0 {
        blocks.push((index_of(size + 1), larger));
    }
    blocks.push((index_of(size), held.objects - larger));
    blocks
}

/// The events in three moments: all that was live at neither moment, one block after the other, so that no more than one
/// of them is live at a time; the peak; the end. The resident memory lies in between.
fn tell(profile: &Profile, events: &[Events], out: &mut dyn Write) -> io::Result<()> {
    let peak = profile.history.peak.map_or(Duration::ZERO, |peak| peak.after).min(profile.duration);
    let mut moments: Vec<(Duration, Option<u64>)> =
        profile.history.snapshots.iter().map(|snapshot| (snapshot.after, snapshot.rss)).collect();
    moments.extend([(peak, None), (Duration::ZERO, None)]);
    moments.retain(|(after, _)| *after <= profile.duration);
    moments.sort();
    stamp(Duration::ZERO, out)?;
    for events in events {
        live_and_die(events, out)?;
    }
    let mut at_peak = false;
    for (after, rss) in moments {
        stamp(after, out)?;
        if after >= peak && !at_peak {
            at_peak = true;
            for (size, blocks) in events.iter().flat_map(|events| events.both.iter().chain(&events.peak)) {
                repeat(&format!("+ {size:x}\n"), *blocks, out)?;
            }
        }
        if let Some(rss) = rss {
            writeln!(out, "R {:x}", rss / PAGE)?;
        }
    }
    stamp(profile.duration, out)?;
    for (size, blocks) in events.iter().flat_map(|events| &events.peak) {
        repeat(&format!("- {NOT_TEMPORARY:x}\n- {size:x}\n"), *blocks, out)?;
    }
    for (size, blocks) in events.iter().flat_map(|events| &events.end) {
        repeat(&format!("+ {size:x}\n"), *blocks, out)?;
    }
    Ok(())
}

/// Milliseconds since the beginning.
fn stamp(after: Duration, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "c {:x}", after.as_millis())
}

/// heaptrack takes a block for temporary when its death follows its birth.
fn live_and_die(events: &Events, out: &mut dyn Write) -> io::Result<()> {
    let mut temporary = events.temporary;
    for (size, blocks) in &events.gone {
        let now = temporary.min(*blocks);
        temporary -= now;
        repeat(&format!("+ {size:x}\n- {size:x}\n"), now, out)?;
        repeat(&format!("+ {size:x}\n- {NOT_TEMPORARY:x}\n- {size:x}\n"), blocks - now, out)?;
    }
    Ok(())
}

/// Writes the same lines so many times.
fn repeat(lines: &str, times: u64, out: &mut dyn Write) -> io::Result<()> {
    const AT_ONCE: u64 = 1000;
    let many = lines.repeat(usize::try_from(times.min(AT_ONCE)).unwrap_or(0));
    for _ in 0..times / AT_ONCE {
        out.write_all(many.as_bytes())?;
    }
    for _ in 0..times % AT_ONCE {
        out.write_all(lines.as_bytes())?;
    }
    Ok(())
}
