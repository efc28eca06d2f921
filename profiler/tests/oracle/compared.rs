//! Counts agreement, and differences by the reason that explains them.

use std::collections::BTreeMap;

/// Differences shown of those that nothing explains.
const SHOWN: usize = 5;

/// The outcome of one comparison.
#[derive(Default)]
pub(crate) struct Compared {
    agreed: usize,
    explained: BTreeMap<&'static str, usize>,
    unexplained: usize,
    examples: Vec<String>,
}

impl Compared {
    /// Both say the same.
    pub(crate) fn agree(&mut self) {
        self.agreed += 1;
    }

    /// They differ: for this reason, or for none that is known.
    pub(crate) fn differ(&mut self, reason: Option<&'static str>, what: impl FnOnce() -> String) {
        match reason {
            Some(reason) => *self.explained.entry(reason).or_default() += 1,
            None => {
                self.unexplained += 1;
                if self.examples.len() < SHOWN {
                    self.examples.push(what());
                }
            }
        }
    }

    /// Prints the counts.
    ///
    /// # Panics
    /// Where a difference is not explained, or so many are that the explanation cannot be believed.
    pub(crate) fn conclude(self, what: &str) {
        let explained: usize = self.explained.values().sum();
        let compared = self.agreed + explained + self.unexplained;
        println!("{what}: {compared} compared, {} agree, {:?}", self.agreed, self.explained);
        assert_eq!(self.unexplained, 0, "{what}: {:#?}", self.examples);
        assert!(self.agreed > 400 && explained * 50 < compared, "{what}: more than one in fifty differs");
    }
}
