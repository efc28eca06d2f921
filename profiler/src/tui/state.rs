//! What is shown, and what is wanted next.
//!
//! The state is fed updates, names and keys; it does nothing by itself. What it wants done it hands out as an
//! [`Action`], and [`State::unnamed`] says of which sites the stack is to be named.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
};

use ratatui::layout::Rect;

use super::{
    filter::Filter,
    input::Input,
    layout::Areas,
    model::{Detail, Named, SiteNumbers, Target, Update},
    theme::Theme,
};

/// Readings that the lines of live and resident bytes go back.
const SERIES: usize = 512;

/// What the sites are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sort {
    /// Live bytes.
    #[default]
    Live,
    /// Growth.
    Growth,
    /// Allocations a second.
    Rate,
    /// Age of the oldest live block.
    Age,
    /// Live blocks.
    Blocks,
}

/// What takes the place of the list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Page {
    #[default]
    List,
    /// The selected site, scrolled down so many lines.
    Site(usize),
    Help,
    /// How far the numbers can be trusted, scrolled down so many lines.
    Quality(usize),
}

/// What is asked in the last line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Question {
    Filter(Input),
    FileName(Input),
    Overwrite(PathBuf),
}

/// What the user wants that is not of the view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// To leave.
    Quit,
    /// To have all drawn anew.
    Redraw,
    /// To set a mark.
    Mark,
    /// To write a report.
    Write {
        /// Where; the ending says what.
        path: PathBuf,
        /// Whether a file that is there may be replaced.
        overwrite: bool,
    },
}

/// All that the view shows.
#[derive(Debug)]
pub struct State {
    pub(super) target: Target,
    pub(super) theme: Theme,
    pub(super) full_stacks: bool,
    pub(super) screen: Rect,
    pub(super) shown: Update,
    /// The update that came while the display was held.
    held_back: Option<Update>,
    pub(super) live_series: VecDeque<u64>,
    pub(super) rss_series: VecDeque<u64>,
    /// Indices in `shown.sites`, as they are listed.
    pub(super) order: Vec<usize>,
    pub(super) sort: Sort,
    pub(super) ascending: bool,
    /// Whether growth is counted from the last mark.
    pub(super) since_mark: bool,
    /// The selected site, once the user has chosen one; else the first is.
    chosen: Option<u64>,
    /// The line of the list at the top of the screen.
    pub(super) top: usize,
    pub(super) filter: Option<Filter>,
    named: HashMap<u64, Named>,
    /// The sites that the filter lets pass, of those that are named.
    matching: HashSet<u64>,
    pub(super) detail: Option<Detail>,
    pub(super) paused: bool,
    pub(super) page: Page,
    pub(super) question: Option<Question>,
    pub(super) message: Option<String>,
    /// Why the watching ended, if it has.
    pub(super) ended: Option<String>,
}

impl State {
    /// A view that has been fed nothing yet.
    #[must_use]
    pub fn new(target: Target, theme: Theme, full_stacks: bool) -> Self {
        Self {
            target,
            theme,
            full_stacks,
            screen: Rect::default(),
            shown: Update::default(),
            held_back: None,
            live_series: VecDeque::new(),
            rss_series: VecDeque::new(),
            order: Vec::new(),
            sort: Sort::default(),
            ascending: false,
            since_mark: false,
            chosen: None,
            top: 0,
            filter: None,
            named: HashMap::new(),
            matching: HashSet::new(),
            detail: None,
            paused: false,
            page: Page::default(),
            question: None,
            message: None,
            ended: None,
        }
    }

    /// Takes in new numbers. While the display is held they wait.
    pub fn update(&mut self, update: Update) {
        push(&mut self.live_series, update.live.space);
        push(&mut self.rss_series, update.rss.unwrap_or(0));
        if self.paused {
            self.held_back = Some(update);
        } else {
            self.shown = update;
            self.arrange();
        }
    }

    /// Takes in the names of a site.
    pub fn name(&mut self, site: u64, named: Named) {
        if self.filter.as_ref().is_some_and(|filter| filter.matches(&named)) {
            self.matching.insert(site);
        }
        self.named.insert(site, named);
    }

    /// Shows only the sites that pass, or all.
    pub(super) fn set_filter(&mut self, filter: Option<Filter>) {
        let matches = |named: &Named| filter.as_ref().is_some_and(|filter| filter.matches(named));
        self.matching =
            self.named.iter().filter(|(_, named)| matches(named)).map(|(site, _)| *site).collect();
        self.filter = filter;
        self.arrange();
    }

    /// Takes in what the blocks of the selected site say.
    pub fn detail(&mut self, detail: Detail) {
        self.detail = Some(detail);
    }

    /// The allocators, as far as they are known now.
    pub fn allocators(&mut self, allocators: &[String]) {
        if self.target.allocators != allocators {
            self.target.allocators = allocators.to_vec();
        }
    }

    /// Something to tell in the last line until the next key.
    pub fn say(&mut self, message: impl Into<String>) {
        self.message = Some(message.into());
    }

    /// Asks whether a file that exists may be replaced.
    pub fn ask_to_overwrite(&mut self, path: PathBuf) {
        self.question = Some(Question::Overwrite(path));
    }

    /// Nothing new will come: the reason, one sentence. What is shown stays.
    pub fn end(&mut self, reason: impl Into<String>) {
        self.ended = Some(reason.into());
        self.resume();
    }

    /// Whether nothing new will come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The screen has this size.
    pub fn resize(&mut self, screen: Rect) {
        if self.screen != screen {
            self.screen = screen;
            self.scroll_to_selected();
        }
    }

    /// The sites whose names are wanted: those in sight, and with a filter, whose decision needs them, all.
    #[must_use]
    pub fn unnamed(&self) -> Vec<u64> {
        let is_unnamed = |site: &u64| !self.named.contains_key(site);
        if self.filter.is_some() {
            return self.shown.sites.iter().map(|site| site.site).filter(is_unnamed).collect();
        }
        let in_sight = self.order.iter().skip(self.top).take(self.rows());
        in_sight.filter_map(|index| self.shown.sites.get(*index)).map(|s| s.site).filter(is_unnamed).collect()
    }

    /// Sorts and filters anew, as after names have come.
    pub fn arrange(&mut self) {
        let sites = &self.shown.sites;
        let matches = |site: &SiteNumbers| self.filter.is_none() || self.matching.contains(&site.site);
        let is_shown = |site: &SiteNumbers| {
            (site.live.space > 0 || site.live.objects > 0 || site.allocations_per_second > 0.0)
                && matches(site)
        };
        let listed = sites.iter().enumerate().filter(|(_, site)| is_shown(site));
        let mut keys: Vec<_> =
            listed.map(|(index, site)| (self.key_of(site), site.live.space, site.site, index)).collect();
        keys.sort_unstable_by(|a, b| {
            let by_key = if self.ascending { a.0.cmp(&b.0) } else { b.0.cmp(&a.0) };
            by_key.then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2))
        });
        self.order = keys.into_iter().map(|(.., index)| index).collect();
        self.scroll_to_selected();
    }

    /// The number that a site is sorted by.
    fn key_of(&self, site: &SiteNumbers) -> i128 {
        match self.sort {
            Sort::Live => site.live.space.into(),
            Sort::Growth => self.growth_of(site).into(),
            #[expect(clippy::cast_possible_truncation, reason = "a float's cast saturates")]
            Sort::Rate => (site.allocations_per_second * 1000.0) as i128,
            Sort::Age => site.oldest.map_or(-1, |age| i128::try_from(age.as_nanos()).unwrap_or(i128::MAX)),
            Sort::Blocks => site.live.objects.into(),
        }
    }

    /// How much a site grew, over the time that is chosen.
    pub(super) fn growth_of(&self, site: &SiteNumbers) -> i64 {
        if self.counts_since_mark() { site.marked.unwrap_or(site.lately) } else { site.lately }
    }

    /// Whether growth is shown since the last mark.
    pub(super) fn counts_since_mark(&self) -> bool {
        self.since_mark && self.shown.marked.is_some()
    }

    /// The names of a site, if they are known.
    pub(super) fn names_of(&self, site: u64) -> Option<&Named> {
        self.named.get(&site)
    }

    /// The line of the selected site in the list.
    pub(super) fn cursor(&self) -> usize {
        let place = |site| {
            self.order.iter().position(|index| self.shown.sites.get(*index).is_some_and(|s| s.site == site))
        };
        self.chosen.and_then(place).unwrap_or(0)
    }

    /// The selected site.
    #[must_use]
    pub fn selected(&self) -> Option<&SiteNumbers> {
        self.order.get(self.cursor()).and_then(|index| self.shown.sites.get(*index))
    }

    /// The site of which the live blocks are to be read: the one that has the page.
    #[must_use]
    pub fn wants_detail(&self) -> Option<u64> {
        self.selected().filter(|_| matches!(self.page, Page::Site(_))).map(|site| site.site)
    }

    /// Moves the selection to this line, or the last.
    pub(super) fn select(&mut self, line: usize) {
        let line = line.min(self.order.len().saturating_sub(1));
        let site = self.order.get(line).and_then(|index| self.shown.sites.get(*index));
        self.chosen = site.map(|site| site.site);
        self.scroll_to_selected();
    }

    /// Lines that the list has room for.
    pub(super) fn rows(&self) -> usize {
        Areas::of(self.screen).map_or(0, |areas| areas.rows())
    }

    pub(super) fn resume(&mut self) {
        self.paused = false;
        if let Some(update) = self.held_back.take() {
            self.shown = update;
            self.arrange();
        }
    }

    fn scroll_to_selected(&mut self) {
        let (cursor, rows) = (self.cursor(), self.rows().max(1));
        self.top = self.top.clamp(cursor.saturating_sub(rows - 1), cursor);
        self.top = self.top.min(self.order.len().saturating_sub(rows));
    }
}

fn push(series: &mut VecDeque<u64>, number: u64) {
    if series.len() == SERIES {
        series.pop_front();
    }
    series.push_back(number);
}
