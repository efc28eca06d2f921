//! One HTML file that opens offline: the page (profiler/assets/html, built and committed) with the profile inside.
//!
//! The profile is JSON, compressed and in base64: no name that the target chose can be read as HTML or as script, and a
//! hundred thousand sites stay small. The page inflates it and writes names as text only.

mod columns;
mod document;
mod names;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use base64::{engine::general_purpose::STANDARD, write::EncoderWriter};
use flate2::{Compression, write::GzEncoder};

use self::document::Document;
use super::{options::ReportOptions, profile::Profile};

/// The page without a profile; docs/html.md describes it.
const PAGE: &str = include_str!("../../../assets/html/dist/page.html");
/// Where the profile goes.
const PLACE: &str = "<!--profile-->";

/// Writes the page.
///
/// # Errors
/// Those of `out`.
pub fn write(profile: &Profile, _options: &ReportOptions, out: &mut dyn Write) -> io::Result<()> {
    let (head, tail) = PAGE.split_once(PLACE).unwrap_or((PAGE, ""));
    out.write_all(head.as_bytes())?;
    {
        let text = EncoderWriter::new(&mut *out, &STANDARD);
        let mut packed = GzEncoder::new(text, Compression::new(7));
        serde_json::to_writer(&mut packed, &Document::of(profile))?;
        packed.finish()?.finish()?;
    }
    out.write_all(tail.as_bytes())
}
