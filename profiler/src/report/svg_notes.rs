//! What is written into inferno's finished picture: block counts in the tool tips, the legend, the warnings.
//!
//! The picture is read with an XML reader for positions only; text is inserted there and nothing else changes. Every
//! frame is a `<g>` with a `<title>` and a `<rect>` that states its first byte (`fg:x`) and its width (`fg:w`) in bytes.
//! What does not look like that is left alone.

use std::{collections::HashMap, fmt::Write as _};

use inferno::flamegraph::color::Color;
use quick_xml::{
    Reader,
    escape::escape,
    events::{BytesStart, Event},
};

use super::{
    stacks::{Live, Stacks},
    units::blocks,
};

/// A frame in the picture: depth from the bottom, first byte, width in bytes.
type Node = (usize, u64, u64);

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Live blocks of each frame.
    pub(super) blocks: HashMap<Node, u64>,
    /// Colours and their words.
    pub(super) legend: Vec<(Color, &'static str)>,
    /// Sentences, shown when the pointer rests on their number.
    pub(super) warnings: Vec<String>,
}

/// The picture with its notes.
#[derive(Debug)]
pub(super) struct Annotated {
    pub(super) svg: String,
    /// Frames in the picture, and those of them that got their block count. The tests want them equal.
    #[cfg_attr(not(test), expect(dead_code, reason = "what the tests hold against the picture"))]
    pub(super) frames: (usize, usize),
}

/// The live blocks of every frame that inferno makes of `stacks`, by the same walk over the same sorted lines.
pub(super) fn node_blocks(stacks: &Stacks) -> HashMap<Node, u64> {
    let mut closed = HashMap::new();
    // One open frame per depth: its name, first byte, blocks so far. The bottom frame holds everything.
    let mut open: Vec<(&str, u64, u64)> = vec![("", 0, 0)];
    let mut at = 0u64;
    for (names, Live { bytes, blocks }) in &stacks.lines {
        let shared = names.iter().zip(&open[1..]).take_while(|(name, (last, _, _))| name == last).count();
        close(&mut open, shared + 1, at, &mut closed);
        open.extend(names[shared..].iter().map(|name| (name.as_str(), at, 0)));
        for (_, _, sum) in &mut open {
            *sum += blocks;
        }
        at += bytes;
    }
    close(&mut open, 0, at, &mut closed);
    closed
}

/// Closes the frames from `depth` up: they end before the byte `end`.
fn close(open: &mut Vec<(&str, u64, u64)>, depth: usize, end: u64, closed: &mut HashMap<Node, u64>) {
    for (above, (_, start, blocks)) in open.drain(depth..).enumerate() {
        closed.insert((depth + above, start, end - start), blocks);
    }
}

/// Writes `notes` into the picture. A picture that cannot be read stays as it is.
pub(super) fn annotate(svg: &str, notes: &Notes) -> Annotated {
    let Some(layout) = Layout::read(svg) else {
        return Annotated { svg: svg.to_owned(), frames: (0, 0) };
    };
    let mut insertions: Vec<(usize, String)> = Vec::with_capacity(layout.frames.len() + 1);
    if let Some(subtitle) = &layout.subtitle {
        // Three lines must fit where inferno leaves room for two: the subtitle moves up, the legend goes below it.
        insertions.push((subtitle.attributes_end, String::from(r#" dy="-8""#)));
        insertions.push((subtitle.behind, legend(&notes.legend) + &warnings(&notes.warnings)));
    }
    let bottom = layout.frames.iter().map(|frame| frame.y).max().unwrap_or_default();
    let mut matched = 0;
    for frame in &layout.frames {
        let depth = bottom.saturating_sub(frame.y) / layout.frame_height().max(1);
        let Some(count) = notes.blocks.get(&(depth, frame.first, frame.width)) else { continue };
        matched += 1;
        insertions.push((frame.behind_bytes, format!(" in {}", blocks(*count))));
    }
    insertions.sort_by_key(|(at, _)| *at);
    let mut text = String::with_capacity(svg.len() + 24 * insertions.len());
    let mut done = 0;
    for (at, insertion) in &insertions {
        text.push_str(&svg[done..*at]);
        text.push_str(insertion);
        done = *at;
    }
    text.push_str(&svg[done..]);
    Annotated { svg: text, frames: (layout.frames.len(), matched) }
}

/// One frame as drawn.
#[derive(Debug)]
struct Drawn {
    y: usize,
    first: u64,
    width: u64,
    /// Position in the picture behind the word `bytes` of its tool tip.
    behind_bytes: usize,
}

/// Where things are in the picture.
#[derive(Debug, Default)]
struct Layout {
    frames: Vec<Drawn>,
    subtitle: Option<Subtitle>,
}

/// The line under the title.
#[derive(Debug)]
struct Subtitle {
    /// Position before the `>` of its start tag.
    attributes_end: usize,
    /// Position behind its end tag.
    behind: usize,
}

impl Layout {
    fn read(svg: &str) -> Option<Self> {
        let mut reader = Reader::from_str(svg);
        let mut layout = Self::default();
        let (mut title_start, mut behind_bytes, mut subtitle_tag) = (0, None, None);
        loop {
            let before = usize::try_from(reader.buffer_position()).ok()?;
            let event = reader.read_event().ok()?;
            let after = usize::try_from(reader.buffer_position()).ok()?;
            match event {
                Event::Start(tag) if tag.name().as_ref() == b"title" => title_start = after,
                Event::End(tag) if tag.name().as_ref() == b"title" => {
                    let tip = svg.get(title_start..before)?;
                    behind_bytes = tip.rfind(" bytes, ").map(|at| title_start + at + " bytes".len());
                }
                Event::Empty(tag) if tag.name().as_ref() == b"rect" => {
                    if let Some(behind_bytes) = behind_bytes.take() {
                        layout.frames.extend(Drawn::of(&tag, behind_bytes));
                    }
                }
                Event::Start(tag) if tag.name().as_ref() == b"text" => {
                    let is_subtitle = attribute(&tag, b"id").as_deref() == Some("subtitle");
                    subtitle_tag = is_subtitle.then(|| after.saturating_sub(1));
                }
                Event::End(tag) if tag.name().as_ref() == b"text" => {
                    if let Some(attributes_end) = subtitle_tag.take() {
                        layout.subtitle = Some(Subtitle { attributes_end, behind: after });
                    }
                }
                Event::Eof => return Some(layout),
                _ => {}
            }
        }
    }

    /// The distance between two rows: the smallest between any two frames.
    fn frame_height(&self) -> usize {
        let mut rows: Vec<usize> = self.frames.iter().map(|frame| frame.y).collect();
        rows.sort_unstable();
        rows.dedup();
        rows.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(1)
    }
}

impl Drawn {
    fn of(rect: &BytesStart<'_>, behind_bytes: usize) -> Option<Self> {
        Some(Self {
            y: attribute(rect, b"y")?.parse().ok()?,
            first: attribute(rect, b"fg:x")?.parse().ok()?,
            width: attribute(rect, b"fg:w")?.parse().ok()?,
            behind_bytes,
        })
    }
}

fn attribute(tag: &BytesStart<'_>, name: &[u8]) -> Option<String> {
    let found = tag.attributes().flatten().find(|attribute| attribute.key.as_ref() == name)?;
    String::from_utf8(found.value.into_owned()).ok()
}

/// Coloured squares with their words, in a line below the subtitle.
fn legend(entries: &[(Color, &'static str)]) -> String {
    let mut text = String::from(r#"<text id="legend" x="50%" y="55" text-anchor="middle">"#);
    for (Color { r, g, b }, word) in entries {
        let square = format!(r##"fill="rgb({r},{g},{b})" stroke="#777777" stroke-width="0.5""##);
        let _ = write!(text, "<tspan {square}>&#9632;</tspan>&#160;{word} &#160; ");
    }
    text.push_str("</text>");
    text
}

/// The number of warnings, left of the legend, with their text as its tool tip.
fn warnings(sentences: &[String]) -> String {
    if sentences.is_empty() {
        return String::new();
    }
    let plural = if sentences.len() == 1 { "" } else { "s" };
    format!(
        r##"<text id="warnings" x="10" y="55" fill="#b00020">{} warning{plural}: point here<title>{}</title></text>"##,
        sentences.len(),
        escape(sentences.join("\n"))
    )
}
