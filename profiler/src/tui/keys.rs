//! What each key does.

use std::path::PathBuf;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    filter::Filter,
    input::{Input, Typed},
    state::{Action, Page, Question, Sort, State},
    view,
};

/// The keys, as the help page has them.
pub(super) const HELP: [(&str, &str); 17] = [
    ("↑ ↓  k j", "select a site; PgUp PgDn Home End go further"),
    ("Enter", "the site: its whole stack, its sizes and threads; again or Esc: back"),
    ("l", "sort by live bytes"),
    ("g", "sort by growth"),
    ("r", "sort by allocations a second"),
    ("a", "sort by the age of the oldest live block"),
    ("b", "sort by live blocks; the same key again turns the order round"),
    ("Tab", "growth over the last minute, or since the last mark"),
    ("/", "filter: sites with a frame that matches a regular expression or a part of its text"),
    ("Esc", "no filter"),
    ("Space", "hold the display; the account goes on"),
    ("m", "set a mark: what is born after it is a generation of its own in reports"),
    ("w", "write a report; the ending of the file's name says which"),
    ("!", "how far the numbers can be trusted: losses and warnings"),
    ("?", "this page"),
    ("Ctrl-L", "draw anew"),
    ("q", "quit; Ctrl-C does the same"),
];

impl State {
    /// Does what a key says.
    pub fn key(&mut self, key: KeyEvent) -> Option<Action> {
        self.message = None;
        if let Some(question) = self.question.take() {
            return self.answer(question, key);
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Action::Quit),
                KeyCode::Char('l') => Some(Action::Redraw),
                _ => None,
            };
        }
        match key.code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Char('m') if self.has_ended() => self.say("the watching is over: no more marks"),
            KeyCode::Char('m') => return Some(Action::Mark),
            KeyCode::Char('w') => {
                let name: String = self.target.name.chars().map(in_file_name).collect();
                let name = format!("heapscope-{name}-{}.svg", self.target.pid);
                self.question = Some(Question::FileName(Input(name)));
            }
            KeyCode::Char('/') => {
                let text = self.filter.as_ref().map(|filter| filter.text.clone());
                self.question = Some(Question::Filter(Input(text.unwrap_or_default())));
            }
            KeyCode::Char(' ') if self.paused => self.resume(),
            KeyCode::Char(' ') if !self.has_ended() => self.paused = true,
            KeyCode::Char('l') => self.sort_by(Sort::Live),
            KeyCode::Char('g') => self.sort_by(Sort::Growth),
            KeyCode::Char('r') => self.sort_by(Sort::Rate),
            KeyCode::Char('a') => self.sort_by(Sort::Age),
            KeyCode::Char('b') => self.sort_by(Sort::Blocks),
            KeyCode::Tab if self.shown.marked.is_none() => self.say("there is no mark yet: m sets one"),
            KeyCode::Tab => {
                self.since_mark = !self.since_mark;
                self.arrange();
            }
            KeyCode::Char('?') => self.turn_to(Page::Help),
            KeyCode::Char('!') => self.turn_to(Page::Quality(0)),
            KeyCode::Enter => self.turn_to(Page::Site(0)),
            KeyCode::Esc if self.page != Page::List => self.page = Page::List,
            KeyCode::Esc => self.set_filter(None),
            other => self.travel(other),
        }
        None
    }

    /// A mark has been set: growth is shown since then.
    pub fn marked(&mut self) {
        self.since_mark = true;
    }

    fn answer(&mut self, question: Question, key: KeyEvent) -> Option<Action> {
        match question {
            Question::Filter(mut input) => match input.key(key) {
                Typed::More => self.question = Some(Question::Filter(input)),
                Typed::Done => self.filter_by(&input.0),
                Typed::Cancelled => {}
            },
            Question::FileName(mut input) => match input.key(key) {
                Typed::More => self.question = Some(Question::FileName(input)),
                Typed::Done if input.0.trim().is_empty() => self.say("nothing written: no name was given"),
                Typed::Done => {
                    let path = PathBuf::from(input.0.trim());
                    return Some(Action::Write { path, overwrite: false });
                }
                Typed::Cancelled => {}
            },
            Question::Overwrite(path) if matches!(key.code, KeyCode::Char('y' | 'Y')) => {
                return Some(Action::Write { path, overwrite: true });
            }
            Question::Overwrite(path) => self.say(format!("{} was left as it is", path.display())),
        }
        None
    }

    /// Goes to a page, or back to the list from it.
    fn turn_to(&mut self, page: Page) {
        let is_there = std::mem::discriminant(&self.page) == std::mem::discriminant(&page);
        self.page = if is_there { Page::List } else { page };
    }

    fn travel(&mut self, code: KeyCode) {
        let rows = self.rows().max(1);
        let page = rows.saturating_sub(1).max(1);
        let moved = |from: usize| match code {
            KeyCode::Up | KeyCode::Char('k') => from.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => from.saturating_add(1),
            KeyCode::PageUp => from.saturating_sub(page),
            KeyCode::PageDown => from.saturating_add(page),
            KeyCode::Home => 0,
            KeyCode::End => usize::MAX,
            _ => from,
        };
        let last = view::last_line(self, self.screen);
        match &mut self.page {
            Page::Site(line) | Page::Quality(line) => *line = moved(*line).min(last),
            Page::Help => {}
            Page::List => {
                let cursor = self.cursor();
                let target = moved(cursor);
                if target != cursor {
                    self.select(target);
                }
            }
        }
    }

    fn sort_by(&mut self, sort: Sort) {
        self.ascending = self.sort == sort && !self.ascending;
        self.sort = sort;
        self.arrange();
    }

    fn filter_by(&mut self, text: &str) {
        let filter = Filter::new(text);
        if filter.as_ref().is_some_and(|filter| filter.is_plain) {
            self.say("this is no regular expression: it is searched for as it stands");
        }
        self.set_filter(filter);
    }
}

/// A character of the process's name as one of a file's.
fn in_file_name(c: char) -> char {
    if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }
}
