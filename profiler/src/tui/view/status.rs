//! The last two lines: losses and overhead, always; and the keys, a question or an answer.

use ratatui::{
    Frame,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{plain, span};
use crate::{
    report::{
        quality::Weight,
        units::{count, counted, overhead},
    },
    symbolize::{fold::cut_middle, label::clean},
    tui::{
        layout::Areas,
        state::{Page, Question, State},
    },
};

pub(super) fn draw(state: &State, areas: &Areas, frame: &mut Frame<'_>) {
    frame.render_widget(Paragraph::new(status(state)), areas.status);
    let width = usize::from(areas.keys.width);
    frame.render_widget(Paragraph::new(last_line(state, width)), areas.keys);
}

fn status(state: &State) -> Line<'static> {
    let update = &state.shown;
    let theme = state.theme;
    let mut parts: Vec<Span<'static>> = Vec::new();
    if let Some(reason) = &state.ended {
        parts.push(span(format!("{}  ", clean(reason)), theme.warning()));
    }
    if state.paused {
        parts.push(span("HELD  ", theme.warning()));
    }
    let lost = format!("lost {}", count(update.lost));
    parts.push(if update.lost > 0 { span(lost, theme.warning()) } else { plain(lost) });
    parts.push(plain(match update.overhead_percent {
        Some(percent) => format!(" | overhead {}", overhead(percent)),
        None => " | overhead not measured yet".to_owned(),
    }));
    let warnings = update.remarks.iter().filter(|remark| remark.weight == Weight::Warning).count() as u64;
    if warnings > 0 {
        let text = format!(" | {}: see !", counted(warnings, "warning", "warnings"));
        parts.push(span(text, theme.warning()));
    }
    let listed = state.order.len();
    if listed > 0 && state.page == Page::List {
        parts.push(plain(format!(" | {} of {}", count(state.cursor() as u64 + 1), count(listed as u64))));
    }
    if let Some(filter) = &state.filter {
        parts.push(plain(format!(" | filter `{}`", cut_middle(&clean(&filter.text), 24))));
        let unnamed = state.unnamed().len() as u64;
        if unnamed > 0 {
            parts.push(plain(format!(", {} not named yet", count(unnamed))));
        }
    }
    Line::from(parts)
}

/// A question, an answer, or the keys.
fn last_line(state: &State, width: usize) -> Line<'static> {
    let theme = state.theme;
    let asked = |text: &str, typed: &str| {
        // What was typed last is the part to be seen.
        let typed = clean_keeping_ends(typed);
        let room = width.saturating_sub(text.chars().count() + 1);
        let skipped = typed.chars().count().saturating_sub(room);
        let typed: String = typed.chars().skip(skipped).collect();
        Line::from(vec![span(text.to_owned(), theme.key()), plain(typed), span(" ", theme.selected())])
    };
    match &state.question {
        Some(Question::Filter(input)) => return asked("filter: ", &input.0),
        Some(Question::FileName(input)) => return asked("write to: ", &input.0),
        Some(Question::Overwrite(path)) => {
            let name = cut_middle(&clean(&path.display().to_string()), width.saturating_sub(31).max(10));
            return Line::from(span(format!("{name} exists. Replace it? y / n"), theme.warning()));
        }
        None => {}
    }
    if let Some(message) = &state.message {
        return Line::from(span(cut_middle(&clean(message), width), theme.strong()));
    }
    let keys: &[(&str, &str)] = match state.page {
        Page::List => &[
            ("?", "help"),
            ("Enter", "site"),
            ("lgrab", "sort"),
            ("/", "filter"),
            ("Space", "hold"),
            ("m", "mark"),
            ("w", "write"),
            ("q", "quit"),
        ],
        Page::Site(_) | Page::Quality(_) => {
            &[("Esc", "back"), ("↑ ↓", "scroll"), ("w", "write"), ("q", "quit")]
        }
        Page::Help => &[("Esc", "back"), ("q", "quit")],
    };
    let spans = keys.iter().flat_map(|(key, what)| [span(*key, theme.key()), plain(format!(" {what}  "))]);
    Line::from(spans.collect::<Vec<_>>())
}

/// As [`clean`], but with the blanks at the ends, which may have just been typed.
fn clean_keeping_ends(text: &str) -> String {
    let end = text.len() - text.trim_end().len();
    let begin = text.len() - text.trim_start().len();
    let cleaned = clean(text);
    if cleaned.is_empty() {
        " ".repeat(end)
    } else {
        format!("{}{cleaned}{}", " ".repeat(begin), " ".repeat(end))
    }
}
