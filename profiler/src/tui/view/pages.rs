//! The pages that are not of a site: the keys, and how far the numbers can be trusted.

use ratatui::text::Line;

use super::{plain, span};
use crate::{
    report::{quality::Weight, wrap::wrapped},
    tui::{keys::HELP, state::State},
};

pub(super) fn help(state: &State) -> Vec<Line<'static>> {
    let key = |(key, what): &(&'static str, &'static str)| {
        Line::from(vec![span(format!("  {key:<9}"), state.theme.key()), plain(*what)])
    };
    HELP.iter().map(key).collect()
}

/// Every loss and warning, in sentences.
pub(super) fn quality(state: &State, width: usize) -> Vec<Line<'static>> {
    let remarks = &state.shown.remarks;
    let mut lines = vec![Line::from(span("How far the numbers can be trusted", state.theme.title()))];
    if remarks.is_empty() {
        lines.push(Line::from(plain("  Nothing was lost, and there is nothing to warn of.")));
    }
    for remark in remarks {
        let (head, style) = match remark.weight {
            Weight::Warning => ("warning: ", state.theme.warning()),
            Weight::Note => ("note: ", state.theme.label()),
        };
        for (index, line) in
            wrapped(&remark.text, width.saturating_sub(head.len() + 2)).into_iter().enumerate()
        {
            let head = if index == 0 { head.to_owned() } else { " ".repeat(head.len()) };
            lines.push(Line::from(vec![span(format!("  {head}"), style), plain(line)]));
        }
    }
    lines
}
