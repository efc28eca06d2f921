//! Draws the state into a frame.

mod detail;
mod head;
mod list;
mod pages;
mod status;

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Paragraph, Wrap},
};

use super::{
    layout::{Areas, SMALLEST},
    state::{Page, State},
};

/// Draws everything.
pub fn draw(state: &State, frame: &mut Frame<'_>) {
    let Some(areas) = Areas::of(frame.area()) else {
        return too_small(frame);
    };
    head::draw(state, areas.head, frame);
    match state.page {
        Page::List => {
            list::draw(state, areas.list, frame);
            if areas.preview.height > 0 {
                detail::draw_preview(state, areas.preview, frame);
            }
        }
        Page::Site(_) | Page::Help | Page::Quality(_) => draw_page(state, areas.body(), frame),
    }
    status::draw(state, &areas, frame);
}

fn too_small(frame: &mut Frame<'_>) {
    let area = frame.area();
    let text = format!(
        "{} x {} is too small: heapscope top needs {} columns and {} lines. Make the terminal larger; q quits.",
        area.width, area.height, SMALLEST.0, SMALLEST.1
    );
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
}

/// The lines of the page that takes the place of the list; none where it is the list itself.
fn page_lines(state: &State, width: usize) -> Vec<Line<'static>> {
    match state.page {
        Page::List => Vec::new(),
        Page::Site(_) => detail::lines(state, width),
        Page::Help => pages::help(state),
        Page::Quality(_) => pages::quality(state, width),
    }
}

fn draw_page(state: &State, area: Rect, frame: &mut Frame<'_>) {
    let lines = page_lines(state, area.width.into());
    let first = match state.page {
        Page::Site(line) | Page::Quality(line) => line,
        Page::List | Page::Help => 0,
    };
    let last = lines.len().saturating_sub(area.height.into());
    let lines: Vec<_> = lines.into_iter().skip(first.min(last)).take(area.height.into()).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// How far the page can be scrolled down on a screen of this size.
pub(super) fn last_line(state: &State, screen: Rect) -> usize {
    let Some(areas) = Areas::of(screen) else { return 0 };
    let body = areas.body();
    page_lines(state, body.width.into()).len().saturating_sub(body.height.into())
}

/// Text of our own, or of the target after it has been cleaned.
fn span(text: impl Into<String>, style: Style) -> Span<'static> {
    Span::styled(text.into(), style)
}

/// Text without a style.
fn plain(text: impl Into<String>) -> Span<'static> {
    Span::raw(text.into())
}

/// `12,345/s`, `0.4/s`.
fn rate(per_second: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
    let whole = per_second.round() as u64;
    match per_second {
        0.0 => "0/s".to_owned(),
        ..10.0 => format!("{per_second:.1}/s"),
        _ => format!("{}/s", crate::report::units::count(whole)),
    }
}
