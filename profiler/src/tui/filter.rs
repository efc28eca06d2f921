//! Which sites are shown: those with a frame that matches.

use regex::{Regex, RegexBuilder};

use super::model::Named;
use crate::symbolize::label;

/// Bytes that a compiled pattern may take: one that needs more is searched for as plain text.
const MOST: usize = 1 << 20;

/// A pattern for frames: function, file, module.
#[derive(Clone, Debug)]
pub struct Filter {
    /// As it was typed.
    pub text: String,
    pattern: Regex,
    /// Whether it is no regular expression and is searched for as it is.
    pub is_plain: bool,
}

impl Filter {
    /// A regular expression, or where it is none, a part of a name; capital or small letters are one. `None` for an empty
    /// text.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let compile = |pattern: &str| {
            RegexBuilder::new(pattern).case_insensitive(true).size_limit(MOST).dfa_size_limit(MOST).build()
        };
        if text.is_empty() {
            return None;
        }
        let (pattern, is_plain) = match compile(text) {
            Ok(pattern) => (pattern, false),
            Err(_) => (compile(&regex::escape(text)).ok()?, true),
        };
        Some(Self { text: text.to_owned(), pattern, is_plain })
    }

    /// Whether a frame of the stack, or the name of the allocator, matches.
    #[must_use]
    pub fn matches(&self, named: &Named) -> bool {
        let is_found = |text: &str| self.pattern.is_match(text);
        is_found(&named.allocator)
            || named.stack.iter().any(|frame| {
                is_found(&label::described(frame))
                    || frame.file.as_deref().is_some_and(is_found)
                    || frame.module.as_deref().is_some_and(is_found)
            })
    }
}
