//! One line of text being typed.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Characters at most.
const LONGEST: usize = 1000;

/// A line with the cursor at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Input(pub(super) String);

/// What a key did to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Typed {
    /// The line may have changed.
    More,
    /// It is finished.
    Done,
    /// It is not wanted any more.
    Cancelled,
}

impl Input {
    pub(super) fn key(&mut self, key: KeyEvent) -> Typed {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Typed::Done,
            KeyCode::Esc => return Typed::Cancelled,
            KeyCode::Char('c') if control => return Typed::Cancelled,
            KeyCode::Char('u') if control => self.0.clear(),
            KeyCode::Char('w') if control => {
                let kept = self.0.trim_end().rfind([' ', '/']).map_or(0, |at| at + 1);
                self.0.truncate(kept);
            }
            KeyCode::Char('h') if control => drop(self.0.pop()),
            KeyCode::Backspace => drop(self.0.pop()),
            KeyCode::Char(c) if !control && !c.is_control() && self.0.chars().count() < LONGEST => {
                self.0.push(c);
            }
            _ => {}
        }
        Typed::More
    }
}
