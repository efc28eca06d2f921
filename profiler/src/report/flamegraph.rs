//! The flamegraph: an SVG that draws itself in any browser, with zoom and search (inferno).
//!
//! Width is live bytes. What inferno does not do is added here and in [`super::svg_notes`]: colours by the part that a
//! frame plays, the number of blocks in every tool tip, the legend, and the warnings.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use inferno::flamegraph::{
    Options, TextTruncateDirection,
    color::{BackgroundColor, Color, PaletteMap},
};
use quick_xml::escape::escape;

use super::{
    budget::whole,
    metric::Metric,
    options::ReportOptions,
    profile::{At, Profile, Totals},
    quality::{Remark, Weight, nothing_live, remarks},
    stacks::{Live, Stacks, Tint},
    svg_notes::{Notes, annotate, node_blocks},
    units::{blocks, bytes, count, counted, plus_minus, span},
};
use crate::symbolize::{fold::cut_middle, label::clean};

/// Characters of the command line that fit the title.
const COMMAND_WIDTH: usize = 70;

/// Writes the picture of the live bytes. Where there are none it is a small picture that says so.
///
/// # Errors
/// Those of `out`; `InvalidData` when the live bytes of all sites together do not fit 64 bits.
pub fn write(profile: &Profile, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    let stacks = Stacks::of(profile, options);
    let Some(total) = stacks.total() else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the live bytes of all sites exceed 64 bits"));
    };
    let remarks = remarks(profile);
    if total.bytes == 0 {
        return write_empty(profile, options, total, &remarks, out);
    }
    let picture = draw(profile, options, &stacks, total)?;
    let notes = Notes {
        // Where the width counts blocks, the tool tip says so already.
        blocks: if options.metric.unit() == "bytes" && profile.growth.is_none() {
            node_blocks(&stacks)
        } else {
            HashMap::new()
        },
        legend: legend(&stacks),
        warnings: remarks.into_iter().filter(|r| r.weight == Weight::Warning).map(|r| r.text).collect(),
    };
    out.write_all(annotate(&picture, &notes).svg.as_bytes())
}

/// inferno's picture, before the notes.
pub(super) fn draw(
    profile: &Profile,
    options: &ReportOptions,
    stacks: &Stacks,
    total: Live,
) -> io::Result<String> {
    let mut palette = PaletteMap::default();
    // The empty name is inferno's own bottom frame, `all`.
    palette.insert("", Color { r: 228, g: 228, b: 228 });
    for (name, tint) in &stacks.tints {
        palette.insert(name, shade(*tint, name));
    }
    let mut inferno = Options::default();
    inferno.title = title(profile, options);
    inferno.subtitle = Some(subtitle(profile, options, total));
    inferno.count_name = options.metric.unit().into();
    inferno.name_type = "Function:".into();
    inferno.bgcolors = Some(BackgroundColor::Flat(Color { r: 255, g: 255, b: 255 }));
    inferno.palette_map = Some(&mut palette);
    inferno.text_truncate_direction = TextTruncateDirection::Right;
    // inferno sorts lines as text, where `foo.cold;x` comes between `foo` and `foo;x`, so that `foo` would fall apart
    // into two frames. Ours are sorted frame by frame. A "flame chart" takes lines in the order given, last one first.
    inferno.flame_chart = true;
    let lines: Vec<String> = stacks
        .lines
        .iter()
        .rev()
        .map(|(names, live)| format!("{} {}", names.join(";"), live.bytes))
        .collect();
    let mut svg = Vec::new();
    inferno::flamegraph::from_lines(&mut inferno, lines.iter().map(String::as_str), &mut svg)?;
    String::from_utf8(svg).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn title(profile: &Profile, options: &ReportOptions) -> String {
    let command = cut_middle(&clean(&profile.target.command), COMMAND_WIDTH);
    let (what, inverted) =
        (options.metric.words(), if options.invert { ", who asked at the bottom" } else { "" });
    let what = match (&profile.growth, profile.windowed.is_some(), options.metric) {
        (Some(growth), ..) => growth.words(),
        (None, true, Metric::InuseSpace) => "kept bytes",
        _ => what,
    };
    format!("heapscope: {what} of {command} (pid {}){inverted}", profile.target.pid)
}

fn subtitle(profile: &Profile, options: &ReportOptions, total: Live) -> String {
    if let Some(growth) = &profile.growth {
        return growth.subtitle(profile);
    }
    let since = if profile.mode.command == "run" { "start" } else { "attach" };
    let error = |part: fn(&Totals) -> u64, unit: fn(u64) -> String| {
        plus_minus(profile.errors.as_ref().filter(|_| profile.windowed.is_none()).map(part), unit)
    };
    let sum = match options.metric {
        Metric::InuseSpace => format!(
            "{}{} in {}{}",
            bytes(total.bytes),
            error(|error| error.inuse_space, bytes),
            blocks(total.blocks),
            error(|error| error.inuse_objects, count)
        ),
        Metric::InuseObjects => {
            format!("{} live{}", blocks(total.blocks), error(|error| error.inuse_objects, count))
        }
        Metric::AllocSpace => format!(
            "{}{} in {}{}, freed or not",
            bytes(total.bytes),
            error(|error| error.alloc_space, bytes),
            blocks(total.blocks),
            error(|error| error.alloc_objects, count)
        ),
        Metric::AllocObjects => {
            format!("{}{}, freed or not", blocks(total.blocks), error(|error| error.alloc_objects, count))
        }
        Metric::Temporary => {
            format!("{} that their thread freed before it allocated another one", blocks(total.blocks))
        }
    };
    let age = profile.mode.min_age.map(|age| format!(", at least {} old", span(age))).unwrap_or_default();
    let is_of_live = matches!(options.metric, Metric::InuseSpace | Metric::InuseObjects);
    if let Some(windowed) = profile.windowed.as_ref().filter(|_| is_of_live) {
        return format!(
            "{}{}/s kept: {} in {} of {} ({} of {}) not seen freed, they may be gone{}",
            if windowed.is_slow() { "at least " } else { "" },
            bytes(whole(windowed.kept.rate)),
            bytes(windowed.kept.held.space),
            blocks(windowed.kept.held.objects),
            counted(windowed.count, "window", "windows"),
            span(windowed.observed),
            span(profile.duration),
            windowed.resident_rate().map(|rate| format!("; RSS {rate}")).unwrap_or_default()
        );
    }
    let at = match profile.mode.at {
        At::End => "",
        At::Peak => ", at its peak",
        At::Exit => ", when it called exit",
    };
    format!("{sum}{at}, allocated since {since} {} ago{age}", span(profile.duration))
}

/// The colours present, in words.
fn legend(stacks: &Stacks) -> Vec<(Color, &'static str)> {
    let mut present: Vec<Tint> = stacks.tints.values().copied().collect();
    present.sort_unstable();
    present.dedup();
    present.into_iter().map(look).collect()
}

/// Each class's middle colour, light enough for black text, and its word in the legend.
fn look(tint: Tint) -> (Color, &'static str) {
    match tint {
        Tint::Program => (Color { r: 242, g: 153, b: 74 }, "program"),
        Tint::Python => (Color { r: 110, g: 168, b: 232 }, "Python"),
        Tint::Library => (Color { r: 244, g: 213, b: 104 }, "library"),
        Tint::Runtime => (Color { r: 190, g: 194, b: 204 }, "runtime"),
        Tint::Allocator => (Color { r: 232, g: 131, b: 131 }, "allocator"),
        Tint::Jit => (Color { r: 126, g: 200, b: 140 }, "JIT"),
        Tint::Interpreter => (Color { r: 190, g: 178, b: 220 }, "interpreter"),
        Tint::Remark => (Color { r: 238, g: 238, b: 238 }, "remark"),
    }
}

/// The class's colour, a little lighter or darker by the name, so that neighbours differ and a name keeps its shade from
/// one picture to the next.
fn shade(tint: Tint, name: &str) -> Color {
    // FNV-1a: the standard library's hashes may change with the compiler.
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let shift = u8::try_from((hash >> 16) % 25).unwrap_or_default();
    let (Color { r, g, b }, _) = look(tint);
    let shifted = |channel: u8| channel.saturating_add(shift).saturating_sub(12);
    Color { r: shifted(r), g: shifted(g), b: shifted(b) }
}

fn write_empty(
    profile: &Profile,
    options: &ReportOptions,
    total: Live,
    remarks: &[Remark],
    out: &mut dyn Write,
) -> io::Result<()> {
    let why = if profile.growth.is_some() {
        String::from("No memory came by page faults.")
    } else if !matches!(options.metric, Metric::InuseSpace | Metric::InuseObjects) {
        format!("There are no {}.", options.metric.words())
    } else if total.blocks > 0 {
        format!("{} of size 0 are live, nothing else.", blocks(total.blocks))
    } else {
        nothing_live(profile)
    };
    let mut lines = vec![subtitle(profile, options, total), why];
    lines.extend(remarks.iter().map(|remark| cut_middle(&remark.text, 160)));
    let height = 60 + 20 * lines.len();
    writeln!(
        out,
        r##"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="{height}" viewBox="0 0 1200 {height}" xmlns="http://www.w3.org/2000/svg">
<rect x="0" y="0" width="100%" height="{height}" fill="#ffffff"/>
<g text-anchor="middle" font-family="monospace" font-size="12">
<text x="600" y="24" font-size="17">{}</text>"##,
        escape(title(profile, options))
    )?;
    for (i, line) in lines.iter().enumerate() {
        writeln!(out, r#"<text x="600" y="{}">{}</text>"#, 54 + 20 * i, escape(line))?;
    }
    writeln!(out, "</g>\n</svg>")
}
