//! The account of one `cargo test`, read from what it prints.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// What is known so far.
#[derive(Default, Debug)]
pub(super) struct Summary {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Why tests were skipped, with how many gave that reason.
    reasons: BTreeMap<String, u64>,
    /// Test binaries that ended without a result: each counts as one failed test.
    silent: Vec<String>,
    /// The test binary that runs now.
    running: Option<String>,
    /// Its lines `skipped: …` so far.
    said_skipped: u64,
    /// Its ignored tests with a reason so far.
    ignored_with_reason: u64,
}

impl Summary {
    /// Takes one line of output, without its line end.
    pub(super) fn line(&mut self, line: &str) {
        let trimmed = line.trim_start();
        if let Some(binary) = trimmed.strip_prefix("Running ").or_else(|| trimmed.strip_prefix("Doc-tests "))
        {
            // cargo indents these words; a test's own output starts where it likes.
            if trimmed.len() < line.len() {
                self.end();
                self.running = Some(binary.to_owned());
            }
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.result(result);
        } else if let Some(reason) = skip_reason(line) {
            self.said_skipped += 1;
            self.because(reason);
        } else if let Some(reason) = ignore_reason(line) {
            self.ignored_with_reason += 1;
            self.because(reason);
        }
    }

    fn because(&mut self, reason: &str) {
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
    }

    /// The binary that ran, if one did, reports no more.
    pub(super) fn end(&mut self) {
        self.silent.extend(self.running.take());
        (self.said_skipped, self.ignored_with_reason) = (0, 0);
    }

    /// Failed tests, and binaries that died.
    pub(super) fn failed(&self) -> u64 {
        self.failed + self.silent.len() as u64
    }

    /// Writes the last lines of the run.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        for binary in &self.silent {
            writeln!(out, "1 failed: {binary} ended without a result")?;
        }
        for (reason, count) in &self.reasons {
            writeln!(out, "{count} skipped: {reason}")?;
        }
        let explained: u64 = self.reasons.values().sum();
        if self.skipped > explained {
            writeln!(out, "{} skipped: without a stated reason", self.skipped - explained)?;
        }
        writeln!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed(), self.skipped)
    }

    /// `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s`
    fn result(&mut self, result: &str) {
        let count = |word: &str| {
            let parts = result.split(['.', ';']).filter_map(|part| part.trim().split_once(' '));
            parts.filter(|(_, what)| *what == word).find_map(|(count, _)| count.parse::<u64>().ok())
        };
        let (Some(passed), Some(failed), Some(ignored)) =
            (count("passed"), count("failed"), count("ignored"))
        else {
            return;
        };
        // A test that said that it skips, and was not reported as ignored, was taken for passed by its harness.
        let quietly =
            self.said_skipped.saturating_sub(ignored.saturating_sub(self.ignored_with_reason)).min(passed);
        self.passed += passed - quietly;
        self.failed += failed;
        self.skipped += ignored + quietly;
        self.running = None;
        self.end();
    }
}

/// `skipped: <name>: <reason>`: a test that learned at run time what it lacks. Where libtest has one thread, it has
/// begun the line with `test <name> ... `.
fn skip_reason(line: &str) -> Option<&str> {
    let rest = match line.strip_prefix("skipped: ") {
        Some(rest) => rest,
        None => line.strip_prefix("test ")?.split_once(" ... skipped: ")?.1,
    };
    // A name may hold `::`, never a colon with a space behind it.
    rest.split_once(": ").map(|(_, reason)| reason.trim())
}

/// libtest's `test <name> ... ignored, <reason>`, by an attribute of the test.
fn ignore_reason(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.split_once(" ... ignored, ").map(|(_, reason)| reason.trim())
}

#[cfg(test)]
mod tests {
    use super::Summary;

    fn last_lines(output: &str) -> String {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.line(line));
        summary.end();
        let mut bytes = Vec::new();
        assert!(summary.write(&mut bytes).is_ok());
        String::from_utf8_lossy(&bytes).trim_start().to_owned()
    }

    #[test]
    fn results_of_all_binaries_are_added_up() {
        let output = "    Finished `test` profile\n     Running unittests src/lib.rs (target/debug/deps/a-1)\n\
            running 3 tests\ntest a ... ok\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; \
            0 filtered out; finished in 0.10s\n     Running tests/live.rs (target/debug/deps/live-2)\n\
            skipped: attach::leak: needs root\nskipped: attach::fork: needs root\n\
            skipped: node: node is not installed: no JIT to look at\ntest slow ... ignored, takes an hour\n\
            test result: FAILED. 10 passed; 2 failed; 4 ignored; 0 measured; 0 filtered out; finished in 12.34s\n\
            \n   Doc-tests heapscope\ntest result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; \
            0 filtered out; finished in 0.00s\n";
        assert_eq!(
            last_lines(output),
            "2 skipped: needs root\n\
             1 skipped: node is not installed: no JIT to look at\n\
             1 skipped: takes an hour\n\
             1 skipped: without a stated reason\n\
             14 passed, 2 failed, 5 skipped\n"
        );
    }

    #[test]
    fn a_binary_that_dies_is_a_failure() {
        let output = "     Running unittests src/lib.rs (target/debug/deps/a-1)\nrunning 9 tests\n\
            error: test failed, to rerun pass `-p a --lib`\n     Running tests/b.rs (target/debug/deps/b-1)\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";
        assert_eq!(
            last_lines(output),
            "1 failed: unittests src/lib.rs (target/debug/deps/a-1) ended without a result\n\
             1 passed, 1 failed, 0 skipped\n"
        );
    }

    #[test]
    fn words_of_a_test_are_not_taken_for_cargos() {
        let output = "     Running tests/b.rs (b)\nRunning out of examples\ntest result: unclear\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";
        assert_eq!(last_lines(output), "1 passed, 0 failed, 0 skipped\n");
    }

    #[test]
    fn a_test_that_returns_early_is_no_pass() {
        let output = "     Running unittests src/lib.rs (a)\nrunning 4 tests\n\
            skipped: early: needs root\ntest early ... ok\ntest other ... skipped: other: no gdb\nok\n\
            test never ... ignored, takes an hour\ntest real ... ok\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\
            \x20    Running tests/live.rs (b)\nskipped: attach: needs root\ntest attach ... ignored\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";
        assert_eq!(
            last_lines(output),
            "2 skipped: needs root\n\
             1 skipped: no gdb\n\
             1 skipped: takes an hour\n\
             3 passed, 0 failed, 4 skipped\n"
        );
    }
}
