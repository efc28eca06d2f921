//! The sites, one a line.

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    text::Line,
    widgets::{Cell, Paragraph, Row, Table},
};

use super::{rate, span};
use crate::{
    report::units::{bytes, change, count, percent, span as time},
    symbolize::{
        fold::{cut_middle, fold, is_own},
        label,
    },
    tui::{
        model::{Named, SiteNumbers},
        state::{Sort, State},
    },
};

/// Columns of the numbers: live, error, growth, rate, age, blocks.
const WIDTHS: [u16; 6] = [10, 6, 10, 9, 10, 9];

pub(super) fn draw(state: &State, area: Rect, frame: &mut Frame<'_>) {
    let sampled = state.target.sample_interval.is_some();
    let columns = |all: [String; 6]| {
        let kept = all.into_iter().enumerate().filter(move |(at, _)| *at != 1 || sampled);
        kept.map(|(_, text)| Cell::from(Line::from(text).right_aligned()))
    };
    let widths = WIDTHS.iter().enumerate().filter(|(at, _)| *at != 1 || sampled).map(|(_, width)| *width);
    let numbers: u16 = widths.clone().map(|width| width + 1).sum();
    let names = usize::from(area.width.saturating_sub(numbers));
    let arrow = |sort| match (state.sort == sort, state.ascending) {
        (false, _) => "",
        (true, false) => "▼",
        (true, true) => "▲",
    };
    let growth = match &state.shown.marked {
        Some(_) if state.counts_since_mark() => "since mark",
        _ => "growth",
    };
    let head = [
        format!("live{}", arrow(Sort::Live)),
        "error".to_owned(),
        format!("{growth}{}", arrow(Sort::Growth)),
        format!("allocs{}", arrow(Sort::Rate)),
        format!("oldest{}", arrow(Sort::Age)),
        format!("blocks{}", arrow(Sort::Blocks)),
    ];
    let head = columns(head).chain([Cell::from("site: function ← its callers")]);
    let cursor = state.cursor();
    let shown = state.order.iter().enumerate().skip(state.top).take(state.rows());
    let rows = shown.filter_map(|(line, index)| {
        let site = state.shown.sites.get(*index)?;
        let growth = state.growth_of(site);
        let numbers = [
            bytes(site.live.space),
            site.error.map_or_else(String::new, |e| format!("±{}", percent(e.space, site.live.space))),
            change(growth),
            rate(site.allocations_per_second),
            site.oldest.filter(|_| site.live.objects > 0).map_or_else(|| "-".to_owned(), time),
            count(site.live.objects),
        ];
        let name = name(state, site, names);
        let mut cells: Vec<Cell<'_>> = columns(numbers).collect();
        let growth_at = if sampled { 2 } else { 1 };
        if line != cursor
            && let Some(cell) = cells.get_mut(growth_at)
        {
            *cell = std::mem::take(cell).style(state.theme.change(growth));
        }
        let row = Row::new(cells.into_iter().chain([Cell::from(name)]));
        Some(if line == cursor { row.style(state.theme.selected()) } else { row })
    });
    let constraints: Vec<_> = widths.map(Constraint::Length).chain([Constraint::Fill(1)]).collect();
    let table =
        Table::new(rows, constraints).header(Row::new(head).style(state.theme.header())).column_spacing(1);
    frame.render_widget(table, area);
    if state.order.is_empty() && area.height > 1 {
        let area = Rect { y: area.y + 1, height: 1, ..area };
        frame.render_widget(Paragraph::new(span(nothing(state), state.theme.label())), area);
    }
}

/// Why there is no line.
fn nothing(state: &State) -> String {
    match &state.filter {
        Some(filter) if !state.unnamed().is_empty() => {
            format!("naming the sites to compare them with `{}` …", label::clean(&filter.text))
        }
        Some(filter) => format!("no site has a frame that matches `{}`", label::clean(&filter.text)),
        None if state.shown.allocated.objects > 0 => {
            "nothing lives: all that was allocated was freed again".to_owned()
        }
        None if state.target.sample_interval.is_some() => "no allocation was sampled yet".to_owned(),
        None => "no allocation was seen yet".to_owned(),
    }
}

/// A stack in one line.
fn name(state: &State, site: &SiteNumbers, width: usize) -> String {
    match state.names_of(site.site) {
        Some(named) => one_line(named, state.full_stacks, width),
        None => "…".to_owned(),
    }
}

/// The program's own first frame, and who called it; where a library's function stands before it, that at the end of an
/// arrow. What does not fit is cut at the right.
fn one_line(named: &Named, full: bool, width: usize) -> String {
    let stack = fold(&named.stack, full);
    let own = stack.iter().position(|frame| is_own(frame)).unwrap_or(0);
    let Some(first) = stack.get(own) else { return "[no stack]".to_owned() };
    let mut text = label::described(first);
    if let Some(leaf) = stack.first().filter(|_| own > 0) {
        text = format!("{text} → {}", label::name(leaf));
    }
    for caller in stack.iter().skip(own + 1) {
        text = format!("{text} ← {}", label::name(caller));
        if text.chars().count() > width {
            break;
        }
    }
    if text.chars().count() <= width {
        return text;
    }
    let described = label::described(first);
    // A name that does not fit by itself loses its middle, where it says the least.
    if described.chars().count() > width {
        return cut_middle(&described, width);
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
