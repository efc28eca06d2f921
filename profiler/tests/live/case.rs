//! How a test of this layer is declared: what it is called, what it needs, what it does.

use libtest_mimic::Trial;

use crate::support::needs::Need;

/// One test.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Beside the rights to probe, which every one of them needs.
    pub(crate) needs: &'static [Need],
    pub(crate) body: fn(),
}

/// A test that needs no more than the C compiler.
pub(crate) const fn case(name: &'static str, body: fn()) -> Case {
    case_with(name, &[], body)
}

/// A test that needs more.
pub(crate) const fn case_with(name: &'static str, needs: &'static [Need], body: fn()) -> Case {
    Case { name, needs, body }
}

impl Case {
    /// The trial; with the reason why it must be skipped, if so.
    pub(crate) fn trial(&self) -> (Trial, Option<String>) {
        let always = [Need::Probes, Need::Program("cc")];
        let lacking = always.iter().chain(self.needs).find_map(|need| need.lacking());
        let body = self.body;
        let trial = Trial::test(self.name, move || {
            body();
            Ok(())
        });
        (trial.with_ignored_flag(lacking.is_some()), lacking)
    }
}
