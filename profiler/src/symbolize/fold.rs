//! What of a stack is shown: the allocator's own frames are folded away, and a table shows the interesting ends.

use std::sync::Arc;

use super::{
    frame::{Frame, FrameKind, FrameRole},
    label,
};

/// The stack without the allocator's frames at its leaf end, and where it has frames of Python, without the interpreter's
/// that run them; `full` keeps them all. Nothing else is left out.
///
/// Everybody's memory comes from `operator new` and `finish_grow`: who called them is the question. Which of the
/// interpreter's functions asked for the memory is kept. A stack of allocator frames alone keeps its outermost one.
#[must_use]
pub fn fold(stack: &[Arc<Frame>], full: bool) -> Vec<Arc<Frame>> {
    if full {
        return stack.to_vec();
    }
    let layers = stack.iter().take_while(|frame| frame.role == FrameRole::Allocator).count();
    let shown = &stack[layers.min(stack.len().saturating_sub(1))..];
    let has_python = shown.iter().any(|frame| frame.kind == FrameKind::Python);
    let is_shown = |(index, frame): &(usize, &Arc<Frame>)| {
        *index == 0 || !has_python || frame.role != FrameRole::Interpreter
    };
    shown.iter().enumerate().filter(is_shown).map(|(_, frame)| Arc::clone(frame)).collect()
}

/// The stack in at most `lines` lines of `width` characters, leaf first.
///
/// Shown are the frames at the leaf end; where they are all a library's and the program's own first frame lies further
/// out, it takes the last line. What is left out is counted: `… 12 more …`.
#[must_use]
pub fn shorten(stack: &[Arc<Frame>], width: usize, lines: usize) -> Vec<String> {
    let line = |frame: &Arc<Frame>| cut_middle(&label::described(frame), width);
    if stack.len() <= lines {
        return stack.iter().map(line).collect();
    }
    // One line goes to the count of what is left out.
    let shown = lines.saturating_sub(1).max(1);
    let own = stack.iter().position(|frame| is_own(frame));
    let leafward = match own {
        Some(at) if at >= shown => shown.saturating_sub(1),
        _ => shown,
    };
    let mut text: Vec<String> = stack[..leafward].iter().map(line).collect();
    let mut rest = leafward;
    if let Some(own) = own.filter(|own| *own >= shown) {
        if own > rest {
            text.push(format!("… {} more …", own - rest));
        }
        text.push(line(&stack[own]));
        rest = own + 1;
        if rest < stack.len() && text.len() < lines {
            text.push(format!("… {} more …", stack.len() - rest));
        }
    } else if text.len() < lines {
        text.push(format!("… {} more …", stack.len() - rest));
    }
    text
}

/// Whether the frame is what the program's authors wrote, as opposed to the libraries that they use.
#[must_use]
pub fn is_own(frame: &Frame) -> bool {
    frame.role == FrameRole::Program || frame.kind == FrameKind::Python
}

/// `text` in at most `width` characters; the middle gives way, because a C++ name begins with its namespace and ends with
/// its line. At least the three characters `ab…` are left.
#[must_use]
pub fn cut_middle(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let width = width.max(3);
    let tail = (width - 1) / 3;
    let head = width - 1 - tail;
    text.chars().take(head).chain(std::iter::once('…')).chain(text.chars().skip(count - tail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, role: FrameRole) -> Frame {
        Frame {
            function: Some(function.into()),
            file: None,
            line: None,
            module: None,
            address: 1,
            module_offset: None,
            kind: FrameKind::Native,
            inlined: false,
            guessed: false,
            role,
        }
    }

    fn stack(pattern: &str) -> Vec<Arc<Frame>> {
        pattern
            .chars()
            .enumerate()
            .map(|(i, c)| {
                let role = match c {
                    'a' => FrameRole::Allocator,
                    'p' | 'y' => FrameRole::Program,
                    'i' => FrameRole::Interpreter,
                    _ => FrameRole::Library,
                };
                let kind = if c == 'y' { FrameKind::Python } else { FrameKind::Native };
                Arc::new(Frame { kind, ..frame(&format!("{c}{i}"), role) })
            })
            .collect()
    }

    #[test]
    fn allocator_frames_go_at_the_leaf_only() {
        let whole = stack("aalap");
        assert_eq!(fold(&whole, false), &whole[2..]);
        assert_eq!(fold(&whole, true), &whole[..]);
        let alone = stack("aa");
        assert_eq!(fold(&alone, false), &alone[1..]);
        assert!(fold(&[], false).is_empty());
    }

    #[test]
    fn the_interpreter_goes_where_its_program_is_seen() {
        let whole = stack("aiiyiyiil");
        assert_eq!(fold(&whole, false), [1, 3, 5, 8].map(|at| Arc::clone(&whole[at])));
        assert_eq!(fold(&whole, true), &whole[..]);
        let alone = stack("aiil");
        assert_eq!(fold(&alone, false), &alone[1..]);
    }

    #[test]
    fn a_short_stack_is_whole() {
        assert_eq!(shorten(&stack("lp"), 80, 6), ["l0", "p1"]);
        assert!(shorten(&[], 80, 6).is_empty());
    }

    #[test]
    fn the_programs_first_frame_is_always_there() {
        assert_eq!(shorten(&stack("lplllll"), 80, 4), ["l0", "p1", "l2", "… 4 more …"]);
        assert_eq!(shorten(&stack("llllllpll"), 80, 4), ["l0", "l1", "… 4 more …", "p6"]);
        assert_eq!(shorten(&stack("lllpll"), 80, 4), ["l0", "l1", "… 1 more …", "p3"]);
        assert_eq!(shorten(&stack("lllllll"), 80, 4), ["l0", "l1", "l2", "… 4 more …"]);
        for lines in 0..9 {
            assert!(shorten(&stack("llllllpll"), 80, lines).len() <= lines.max(2), "{lines}");
        }
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(cut_middle("abcdefghij", 7), "abcd…ij");
        assert_eq!(cut_middle("abc", 3), "abc");
        assert_eq!(cut_middle("ééééé", 0), "éé…");
        assert_eq!(cut_middle("short", 80), "short");
    }
}
