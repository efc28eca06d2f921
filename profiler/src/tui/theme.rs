//! Colours, or none where the user wants none (<https://no-color.org>).

use ratatui::style::{Color, Modifier, Style};

/// How parts of the view look. What a colour says is said in words or signs too.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    has_colors: bool,
}

impl Theme {
    /// With colours, or without.
    #[must_use]
    pub const fn new(has_colors: bool) -> Self {
        Self { has_colors }
    }

    fn color(self, color: Color) -> Style {
        if self.has_colors { Style::new().fg(color) } else { Style::new() }
    }

    pub(super) fn title(self) -> Style {
        self.color(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// What stands before a number.
    pub(super) fn label(self) -> Style {
        self.color(Color::DarkGray)
    }

    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn header(self) -> Style {
        Style::new().add_modifier(Modifier::UNDERLINED)
    }

    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn live(self) -> Style {
        self.color(Color::Green)
    }

    pub(super) fn rss(self) -> Style {
        self.color(Color::Blue)
    }

    /// A growth by so many bytes.
    pub(super) fn change(self, bytes: i64) -> Style {
        match bytes {
            1.. => self.color(Color::Red),
            0 => Style::new(),
            ..0 => self.color(Color::Green),
        }
    }

    pub(super) fn warning(self) -> Style {
        self.color(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// A key that does something.
    pub(super) fn key(self) -> Style {
        self.color(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// The program's own frames, among those of libraries.
    pub(super) fn own(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
}
