//! The differential flamegraph: as wide as what lives after, red where it has grown, blue where it has shrunk.

use std::io::{self, Write};

use inferno::flamegraph::{
    Options, TextTruncateDirection,
    color::{BackgroundColor, Color},
};
use quick_xml::escape::escape;

use super::{Pair, folded};
use crate::{
    report::{options::ReportOptions, units::bytes},
    symbolize::{fold::cut_middle, label::clean},
};

/// Characters of a name that fit the title.
const NAME_WIDTH: usize = 50;

/// Writes the picture. Where nothing lives after, it says so.
///
/// # Errors
/// Those of `out`.
pub(super) fn write(pair: &Pair<'_>, options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    let metric = options.metric;
    let [before, after] =
        [pair.before_name, pair.after_name].map(|name| cut_middle(&clean(name), NAME_WIDTH));
    let title = format!("heapscope: growth of {} from {before} to {after}", metric.words());
    let sums = [pair.before, pair.after].map(|profile| metric.shown(metric.sum(profile)));
    let shrunk = "what has shrunk to nothing has no width: the printed list has it";
    let subtitle = format!("{} before, {} after; red has grown, blue has shrunk; {shrunk}", sums[0], sums[1]);
    let lines = folded(pair, options);
    if !lines.iter().any(|line| !line.ends_with(" 0")) {
        return writeln!(
            out,
            r##"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="90" viewBox="0 0 1200 90" xmlns="http://www.w3.org/2000/svg">
<rect x="0" y="0" width="100%" height="90" fill="#ffffff"/>
<g text-anchor="middle" font-family="monospace" font-size="12">
<text x="600" y="24" font-size="17">{}</text>
<text x="600" y="54">{}</text>
</g>
</svg>"##,
            escape(title),
            escape(format!("Nothing lives after: {} before, {}.", sums[0], bytes(0)))
        );
    }
    let mut inferno = Options::default();
    inferno.title = title;
    inferno.subtitle = Some(subtitle);
    inferno.count_name = metric.unit().into();
    inferno.name_type = "Function:".into();
    inferno.bgcolors = Some(BackgroundColor::Flat(Color { r: 255, g: 255, b: 255 }));
    inferno.text_truncate_direction = TextTruncateDirection::Right;
    // As in the other picture: our order of lines, the last one first.
    inferno.flame_chart = true;
    inferno::flamegraph::from_lines(&mut inferno, lines.iter().rev().map(String::as_str), out)
}
