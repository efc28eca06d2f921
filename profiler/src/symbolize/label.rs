//! How one frame is written for people: in the table, the folded lines and the picture.
//!
//! Names come from the target's files and are hostile: they may hold terminal escapes, newlines or text that runs
//! backwards. What is written here is one line of harmless text. JSON keeps the names as they are.

use super::frame::{Frame, FrameKind, FrameRole};

/// Put behind the name of a frame that was found by a frame-pointer guess.
pub const GUESS_MARK: &str = " [guess]";

/// The frame's name: the function, else `module+0xoffset`, else the bare address; never just "unknown".
///
/// A Python function alone says little (`__init__`, `<module>`), so its file and line belong to its name.
#[must_use]
pub fn name(frame: &Frame) -> String {
    let mut text = match clean(frame.function.as_deref().unwrap_or_default()) {
        function if function.is_empty() => place_in_module(frame),
        function => function,
    };
    if frame.kind == FrameKind::Python {
        push_source(&mut text, frame);
    }
    if frame.guessed {
        text.push_str(GUESS_MARK);
    }
    text
}

/// The frame's name with `(file:line)` where known.
#[must_use]
pub fn described(frame: &Frame) -> String {
    let mut text = name(frame);
    if frame.kind == FrameKind::Native && frame.function.is_some() {
        push_source(&mut text, frame);
    }
    text
}

/// The frame's name for formats that have places of their own for file and line. A Python function has its file's name,
/// which tells apart what many files call `__init__`.
#[must_use]
pub fn function(frame: &Frame) -> String {
    match frame.kind {
        FrameKind::Native => name(frame),
        FrameKind::Python => name(&Frame { line: None, ..frame.clone() }),
    }
}

fn place_in_module(frame: &Frame) -> String {
    if frame.role == FrameRole::Remark {
        return String::from("[remark]");
    }
    match (&frame.module, frame.module_offset) {
        (Some(module), Some(offset)) => format!("{}+{offset:#x}", clean(last_part(module))),
        (Some(module), None) => format!("{} {:#x}", clean(last_part(module)), frame.address),
        (None, _) => format!("{:#x}", frame.address),
    }
}

fn push_source(text: &mut String, frame: &Frame) {
    let Some(file) = &frame.file else { return };
    // Every other Python file is called `__init__.py`: its folder tells them apart.
    let parts = if frame.kind == FrameKind::Python { 2 } else { 1 };
    let short = file.rmatch_indices('/').nth(parts - 1).map_or(file.as_str(), |(at, _)| &file[at + 1..]);
    let short = clean(short);
    match frame.line {
        _ if short.is_empty() => {}
        Some(line) => text.push_str(&format!(" ({short}:{line})")),
        None => text.push_str(&format!(" ({short})")),
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path)
}

/// `text` as one line that neither a terminal nor an XML reader trips over: what must not be written becomes `?`.
#[must_use]
pub fn clean(text: &str) -> String {
    text.trim().chars().map(|c| if is_harmful(c) { '?' } else { c }).collect()
}

/// Control characters; Unicode's line ends; marks that turn the direction of writing, so that a name looks like another
/// one; and code points that XML 1.0 does not allow (section 2.2).
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            function: Some("grow".into()),
            file: Some("/src/lib/table.c".into()),
            line: Some(12),
            module: Some("/usr/lib/libfoo.so.1".into()),
            address: 0x7f00_1234,
            module_offset: Some(0x1234),
            kind: FrameKind::Native,
            inlined: false,
            guessed: false,
            role: FrameRole::Library,
        }
    }

    #[test]
    fn named_and_unnamed() {
        assert_eq!(name(&frame()), "grow");
        assert_eq!(described(&frame()), "grow (table.c:12)");
        let unnamed = Frame { function: None, file: None, line: None, ..frame() };
        assert_eq!(name(&unnamed), "libfoo.so.1+0x1234");
        let blank = Frame { function: Some(" \t".into()), ..unnamed.clone() };
        assert_eq!(name(&blank), "libfoo.so.1+0x1234");
        let jit = Frame { module: None, module_offset: None, guessed: true, ..unnamed };
        assert_eq!(name(&jit), "0x7f001234 [guess]");
    }

    #[test]
    fn python_carries_its_place() {
        let python = Frame { file: Some("/app/aiohttp/web.py".into()), kind: FrameKind::Python, ..frame() };
        assert_eq!(name(&python), "grow (aiohttp/web.py:12)");
        assert_eq!(described(&python), "grow (aiohttp/web.py:12)");
        assert_eq!(function(&python), "grow (aiohttp/web.py)");
        assert_eq!(function(&frame()), "grow");
    }

    #[test]
    fn hostile_names_become_harmless() {
        let hostile = Frame { function: Some("a\u{1b}[2Jb\nc\u{202e}d\u{85}".into()), ..frame() };
        assert_eq!(name(&hostile), "a?[2Jb?c?d");
    }
}
