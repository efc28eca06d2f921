//! The terminal while the view has it: taken over on [`Screen::take_over`], given back however we end.
//!
//! What ends us in an orderly way drops the [`Screen`]; a panic calls the hook first, so that its message is printed on a
//! terminal that shows it.

use std::{
    io::{self, Stdout, Write, stdout},
    sync::Once,
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        event::{self, Event, KeyEvent, KeyEventKind},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::Rect,
};

use super::{state::State, view};

/// The terminal, in raw mode and on its alternate screen, while this lives.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

/// What came from the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happened {
    /// A key was pressed.
    Key(KeyEvent),
    /// Anything else that asks for drawing anew, such as another size.
    Other,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// What the terminal answers; it is as it was before then.
    pub fn take_over() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        enable_raw_mode()?;
        let taken = execute!(stdout(), EnterAlternateScreen, Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match taken {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws the state, of which this tells the size.
    ///
    /// # Errors
    /// What the terminal answers.
    pub fn draw(&mut self, state: &mut State) -> io::Result<()> {
        let size = self.terminal.size()?;
        state.resize(Rect::new(0, 0, size.width, size.height));
        self.terminal.draw(|frame| view::draw(state, frame)).map(drop)
    }

    /// Forgets what is on the screen, so that all of it is drawn anew.
    ///
    /// # Errors
    /// What the terminal answers.
    pub fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Waits for what comes next.
///
/// # Errors
/// What the terminal answers. It does not return at all when that has hung up.
pub fn happens() -> io::Result<Happened> {
    loop {
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Release => {}
            Event::Key(key) => return Ok(Happened::Key(key)),
            _ => return Ok(Happened::Other),
        }
    }
}

/// Restores the terminal. Where that fails, there is no terminal any more.
fn give_back() {
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    let _ = stdout().flush();
}

#[cfg(test)]
mod tests;
