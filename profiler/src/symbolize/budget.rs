//! A bound on the work that one file may cause: what it holds was written by the target, or by whoever could.

/// Steps that the symbols and debug information of one file may take: entries, rows, ranges, symbols. A file with 150 MB
/// of debug information takes some 30 million, and 50 million take a second.
const MOST_STEPS: u64 = 1 << 30;

/// What is left of the steps.
#[derive(Debug)]
pub(super) struct Budget(u64);

/// The steps are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

impl Budget {
    /// The steps for one file.
    pub(super) fn for_one_file() -> Self {
        Self(MOST_STEPS)
    }

    /// Takes `steps` away.
    #[inline]
    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Exhausted> {
        match self.0.checked_sub(steps) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => {
                self.0 = 0;
                Err(Exhausted)
            }
        }
    }
}
