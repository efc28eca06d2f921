//! One thing that was looked at, what came of it, and what to do about it.

use serde::Serialize;

use crate::symbolize::label::clean;

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Good to know; neither good nor bad.
    Note,
    /// Attach works, but not everything will be seen.
    Warn,
    /// Attach does not work.
    No,
}

impl Verdict {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::No => "no",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// What was found: a sentence, or a part of one.
    pub(super) says: String,
    /// What to do, where there is something to be done.
    pub(super) remedy: Option<String>,
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, says: &str, remedy: Option<&str>) -> Self {
        Self { name, verdict, says: clean(says), remedy: remedy.map(clean) }
    }

    pub(super) fn ok(name: &'static str, says: impl AsRef<str>) -> Self {
        Self::new(name, Verdict::Ok, says.as_ref(), None)
    }

    pub(super) fn note(name: &'static str, says: impl AsRef<str>) -> Self {
        Self::new(name, Verdict::Note, says.as_ref(), None)
    }

    pub(super) fn warn(name: &'static str, says: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::new(name, Verdict::Warn, says.as_ref(), Some(remedy.as_ref()))
    }

    pub(super) fn no(name: &'static str, says: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::new(name, Verdict::No, says.as_ref(), Some(remedy.as_ref()))
    }

    /// From an error of ours, which says what is wrong in one sentence and what to do in the next.
    pub(super) fn from_error(name: &'static str, verdict: Verdict, error: &str) -> Self {
        match error.split_once(". ") {
            Some((says, remedy)) => Self::new(name, verdict, says, Some(remedy)),
            None => Self::new(name, verdict, error, Some("if it is not plain why, please report it")),
        }
    }

    pub(super) fn is_no(&self) -> bool {
        self.verdict == Verdict::No
    }
}
