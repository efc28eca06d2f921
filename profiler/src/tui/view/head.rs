//! The lines above the list: whom it is of, what lives, what is resident, how fast it goes.

use std::collections::VecDeque;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Paragraph, Sparkline},
};

use super::{plain, rate, span};
use crate::{
    report::units::{blocks, bytes, change, count, counted, percent, plus_minus, span as time},
    symbolize::{fold::cut_middle, label::clean},
    tui::state::State,
};

/// Columns of the numbers beside the lines of history.
const NUMBERS: u16 = 58;
/// Columns that a line of history has at least.
const SPARK: u16 = 12;

pub(super) fn draw(state: &State, area: Rect, frame: &mut Frame<'_>) {
    let rows = Layout::vertical([Constraint::Length(1); 4]).split(area);
    let [title, live, rss, rates] = [0, 1, 2, 3].map(|at| rows.get(at).copied().unwrap_or_default());
    draw_title(state, title, frame);
    let (live_line, rss_line) = (live_line(state), rss_line(state));
    let numbers = u16::try_from(live_line.width().max(rss_line.width())).unwrap_or(u16::MAX);
    let numbers = numbers.max(NUMBERS.min(area.width)).saturating_add(1);
    draw_series(live_line, &state.live_series, state.theme.live(), numbers, live, frame);
    draw_series(rss_line, &state.rss_series, state.theme.rss(), numbers, rss, frame);
    frame.render_widget(Paragraph::new(rates_line(state)), rates);
}

fn draw_title(state: &State, area: Rect, frame: &mut Frame<'_>) {
    let target = &state.target;
    let how = match target.sample_interval {
        Some(interval) => format!("sampled once in {}", bytes(interval)),
        None if target.told => "told by the program".to_owned(),
        None => "exact".to_owned(),
    };
    let right = format!("{}, {how}, {}", time(state.shown.after), target.probes);
    let who = format!("{} (pid {})  ", cut_middle(&clean(&target.name), 15), target.pid);
    let left = usize::from(area.width).saturating_sub(right.chars().count() + who.chars().count() + 12);
    let command = if left < 10 { String::new() } else { cut_middle(&clean(&target.command), left) };
    let line = Line::from(vec![
        span("heapscope ", state.theme.title()),
        span(who, state.theme.strong()),
        span(command, state.theme.label()),
    ]);
    frame.render_widget(Paragraph::new(line), area);
    frame.render_widget(Paragraph::new(Line::from(right).right_aligned()), area);
}

/// Numbers in the columns at the left, their history at the right, if there is room for it.
fn draw_series(
    line: Line<'static>,
    series: &VecDeque<u64>,
    style: Style,
    numbers: u16,
    area: Rect,
    frame: &mut Frame<'_>,
) {
    frame.render_widget(Paragraph::new(line), area);
    let Some(width) = area.width.checked_sub(numbers).filter(|width| *width >= SPARK) else { return };
    let area = Rect { x: area.x + numbers, width, ..area };
    // The newest stands at the right end; each line is as high as its own maximum.
    let shown: Vec<u64> = series.iter().skip(series.len().saturating_sub(width.into())).copied().collect();
    let pad = usize::from(width) - shown.len();
    let data: Vec<u64> = std::iter::repeat_n(0, pad).chain(shown).collect();
    frame.render_widget(Sparkline::default().data(&data).style(style), area);
}

fn live_line(state: &State) -> Line<'static> {
    let update = &state.shown;
    let error = update.live_error;
    Line::from(vec![
        span("live ", state.theme.label()),
        span(
            format!("{}{}", bytes(update.live.space), plus_minus(error.map(|e| e.space), bytes)),
            state.theme.strong(),
        ),
        plain(format!(" in {}", blocks(update.live.objects))),
        plain(plus_minus(error.map(|e| e.objects), count)),
        plain(", "),
        growth(state, |growth| Some(growth.live)),
    ])
}

fn rss_line(state: &State) -> Line<'static> {
    let update = &state.shown;
    let Some(rss) = update.rss else {
        return Line::from(vec![span("rss  ", state.theme.label()), plain("-")]);
    };
    let mut spans = vec![span("rss  ", state.theme.label()), span(bytes(rss), state.theme.strong())];
    if rss > 0 {
        spans.push(plain(format!(", live is {} of it", percent(update.live.space, rss))));
    }
    spans.extend([plain(", "), growth(state, |growth| growth.rss)]);
    Line::from(spans)
}

/// `+1.2 MiB in 58 s`.
fn growth(state: &State, of: impl Fn(&crate::tui::model::Growth) -> Option<i64>) -> Span<'static> {
    let growth = match &state.shown.marked {
        Some(marked) if state.counts_since_mark() => &marked.growth,
        _ => &state.shown.lately,
    };
    let Some(bytes) = of(growth) else { return plain("growth unknown") };
    span(
        format!("{} in {}", change(bytes), time(std::time::Duration::from_secs(growth.over.as_secs()))),
        state.theme.change(bytes),
    )
}

fn rates_line(state: &State) -> Line<'static> {
    let update = &state.shown;
    let allocators = match state.target.allocators.as_slice() {
        [] => "no allocator found yet".to_owned(),
        found => clean(&found.join(", ")),
    };
    Line::from(vec![
        span("rate ", state.theme.label()),
        plain(format!(
            "{} allocs, {} frees; {} allocated; {}; {allocators}",
            rate(update.allocations_per_second),
            rate(update.frees_per_second),
            bytes(update.allocated.space),
            counted(update.sites.len() as u64, "site", "sites"),
        )),
    ])
}
