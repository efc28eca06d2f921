//! One site: beside the list in few lines, on a page of its own in full.

use std::{sync::Arc, time::Duration};

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{plain, rate, span};
use crate::{
    report::{
        history::SizeClass,
        units::{blocks, bytes, change, count, counted, percent, plus_minus, span as time},
    },
    symbolize::{
        fold::{cut_middle, fold, is_own, shorten},
        frame::{Frame as CodeFrame, FrameKind},
        label,
    },
    tui::{model::SiteNumbers, state::State},
};

/// Threads that are named for a site.
const THREADS: usize = 8;
/// Columns of the bars behind the sizes.
const BAR: u64 = 30;

/// The stack of the selected site, as far as there is room.
pub(super) fn draw_preview(state: &State, area: Rect, frame: &mut Frame<'_>) {
    let Some(site) = state.selected() else { return };
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let names = state.names_of(site.site);
    let mut title = "the stack of the selected site".to_owned();
    if let Some(named) = names {
        let frames = counted(named.stack.len() as u64, "frame", "frames");
        title = format!("{title}: {frames}, {}; Enter shows all", label::clean(&named.allocator));
    }
    let dashes = "─".repeat(width.saturating_sub(title.chars().count() + 4));
    let title = span(format!("── {title} {dashes}"), state.theme.label());
    let mut lines = vec![Line::from(title)];
    if let Some(named) = names {
        let stack = fold(&named.stack, state.full_stacks);
        let shown = shorten(&stack, width.saturating_sub(2), height.saturating_sub(1));
        lines.extend(shown.into_iter().map(|text| Line::from(plain(format!("  {text}")))));
    }
    lines.truncate(height);
    frame.render_widget(Paragraph::new(lines), area);
}

/// All that is known of the selected site.
pub(super) fn lines(state: &State, width: usize) -> Vec<Line<'static>> {
    let Some(site) = state.selected() else {
        return vec![Line::from(plain("no site is selected; Esc leads back"))];
    };
    let mut lines = numbers(state, site);
    lines.push(Line::default());
    lines.extend(blocks_of(state, site));
    lines.push(Line::default());
    lines.extend(stack(state, site, width));
    lines
}

fn numbers(state: &State, site: &SiteNumbers) -> Vec<Line<'static>> {
    let label = |text: &'static str| span(text, state.theme.label());
    let error = |of: fn(&profiler_common::records::Held) -> u64| site.error.as_ref().map(of);
    let live = format!(
        "{}{} in {}{}, {} of all that lives",
        bytes(site.live.space),
        plus_minus(error(|held| held.space), bytes),
        blocks(site.live.objects),
        plus_minus(error(|held| held.objects), count),
        percent(site.live.space, state.shown.live.space),
    );
    let mut growth = vec![
        label("growth     "),
        span(change(site.lately), state.theme.change(site.lately)),
        plain(format!(" in the last {}", whole(state.shown.lately.over))),
    ];
    if let (Some(bytes), Some(marked)) = (site.marked, &state.shown.marked) {
        growth.push(plain(", "));
        growth.push(span(change(bytes), state.theme.change(bytes)));
        let name = label::clean(&marked.name);
        growth.push(plain(format!(" since mark `{name}`, {} ago", whole(marked.growth.over))));
    }
    let allocated = format!(
        "{} in {} since attach, {} now, {} temporary",
        bytes(site.allocated.space),
        blocks(site.allocated.objects),
        rate(site.allocations_per_second),
        percent(site.temporary_objects, site.allocated.objects),
    );
    let oldest = match site.oldest.filter(|_| site.live.objects > 0) {
        Some(age) => format!("{} old", time(age)),
        None => "-".to_owned(),
    };
    vec![
        Line::from(vec![label("live       "), span(live, state.theme.strong())]),
        Line::from(growth),
        Line::from(vec![label("allocated  "), plain(allocated)]),
        Line::from(vec![label("oldest     "), plain(oldest)]),
    ]
}

/// Sizes and threads.
fn blocks_of(state: &State, site: &SiteNumbers) -> Vec<Line<'static>> {
    let Some(detail) = state.detail.as_ref().filter(|detail| detail.site == site.site) else {
        return vec![Line::from(span("sizes and threads: reading the live blocks …", state.theme.label()))];
    };
    let ago = state.shown.after.saturating_sub(detail.after);
    let title = format!("live blocks by size, as of {} ago", whole(ago));
    let mut lines = vec![Line::from(span(title, state.theme.title()))];
    let most = detail.history.sizes.iter().map(|class| class.inuse_objects).max().unwrap_or(0).max(1);
    for class in &detail.history.sizes {
        let length = usize::try_from(class.inuse_objects.saturating_mul(BAR) / most).unwrap_or(0);
        lines.push(Line::from(vec![
            plain(format!(
                "{:>21} {:>12} of {:>12} allocated ",
                range(class),
                count(class.inuse_objects),
                count(class.alloc_objects)
            )),
            span("█".repeat(length), state.theme.live()),
        ]));
    }
    lines.push(Line::default());
    lines.push(Line::from(span("live blocks by thread", state.theme.title())));
    for (name, held) in detail.history.threads.iter().take(THREADS) {
        let name = cut_middle(&label::clean(name), 20);
        lines.push(Line::from(plain(format!(
            "{name:>21} {:>12} in {}",
            bytes(held.space),
            blocks(held.objects)
        ))));
    }
    if detail.history.threads.is_empty() {
        lines.push(Line::from(plain(format!("{:>21}", "none"))));
    }
    match detail.history.threads.len().saturating_sub(THREADS) as u64 {
        0 => {}
        more => lines.push(Line::from(plain(format!("{:>21}", format!("and {} more", count(more)))))),
    }
    lines
}

fn range(class: &SizeClass) -> String {
    match class.largest {
        Some(largest) => format!("{} to {}", bytes(class.smallest), bytes(largest)),
        None => format!("{} and more", bytes(class.smallest)),
    }
}

/// The whole stack, each frame with its file and line, or its module.
fn stack(state: &State, site: &SiteNumbers, width: usize) -> Vec<Line<'static>> {
    let Some(named) = state.names_of(site.site) else {
        return vec![Line::from(span("stack: being named …", state.theme.label()))];
    };
    let title = format!(
        "stack: {}, allocated by {}",
        counted(named.stack.len() as u64, "frame", "frames"),
        label::clean(&named.allocator)
    );
    let title = Line::from(span(title, state.theme.title()));
    let frames = named.stack.iter().enumerate().map(|(number, frame)| line_of(state, number, frame, width));
    std::iter::once(title).chain(frames).collect()
}

fn line_of(state: &State, number: usize, frame: &Arc<CodeFrame>, width: usize) -> Line<'static> {
    let style = if is_own(frame) { state.theme.own() } else { ratatui::style::Style::new() };
    let mut function = label::name(frame);
    if frame.inlined {
        function.push_str(" [inlined]");
    }
    let place = match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => format!("{file}:{line}"),
        (Some(file), None, _) => file.clone(),
        (None, _, Some(module)) => format!("in {module}"),
        (None, _, None) => String::new(),
    };
    let place = if frame.kind == FrameKind::Native { label::clean(&place) } else { String::new() };
    let room = width.saturating_sub(5);
    // Two thirds for the function, if both are long.
    let for_place = place.chars().count().min(room / 3);
    let function = cut_middle(&function, room.saturating_sub(for_place + 2));
    let place = cut_middle(&place, room.saturating_sub(function.chars().count() + 2));
    let spans: [Span<'static>; 3] = [
        plain(format!("{number:>3}  ")),
        span(function, style),
        span(format!("  {place}"), state.theme.label()),
    ];
    Line::from(spans.to_vec())
}

/// Without a fraction, so that it does not flicker.
fn whole(duration: Duration) -> String {
    time(Duration::from_secs(duration.as_secs()))
}
