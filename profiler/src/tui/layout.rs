//! Which part of the screen shows what, by its size alone.

use ratatui::layout::{Constraint, Layout, Rect};

/// The smallest screen on which there is something to see.
pub(super) const SMALLEST: (u16, u16) = (60, 10);
/// Below that height, the stack of the selected site is not shown beside the list.
const WITH_PREVIEW: u16 = 18;
/// Lines above the list: title, live, resident, rates.
const HEAD: u16 = 4;

/// The parts, top down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Areas {
    pub(super) head: Rect,
    /// With a line of headings.
    pub(super) list: Rect,
    /// The selected site's stack; of no height where there is no room.
    pub(super) preview: Rect,
    pub(super) status: Rect,
    pub(super) keys: Rect,
}

impl Areas {
    /// Divides the screen; `None` where it is too small.
    pub(super) fn of(screen: Rect) -> Option<Self> {
        if screen.width < SMALLEST.0 || screen.height < SMALLEST.1 {
            return None;
        }
        let preview = if screen.height < WITH_PREVIEW { 0 } else { 2 + (screen.height - HEAD) / 4 };
        let rows = [HEAD, 0, preview, 1, 1].map(Constraint::Length);
        let [head, _, preview_rows, status, keys] = rows;
        let [head, list, preview, status, keys] =
            Layout::vertical([head, Constraint::Fill(1), preview_rows, status, keys]).areas(screen);
        Some(Self { head, list, preview, status, keys })
    }

    /// Sites that the list has room for.
    pub(super) fn rows(&self) -> usize {
        usize::from(self.list.height.saturating_sub(1))
    }

    /// All between the head and the status line, for what takes the place of the list.
    pub(super) fn body(&self) -> Rect {
        let height = self.list.height + self.preview.height;
        Rect { height, ..self.list }
    }
}
