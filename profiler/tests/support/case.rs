//! How a test that may have to be skipped is declared: what it is called, what it needs, what it does.

use std::{num::NonZero, process::ExitCode, thread::available_parallelism};

use libtest_mimic::{Arguments, Trial};

use super::needs::Need;

/// Two programs and two of heapscope at a time are load enough.
const MOST_AT_ONCE: usize = 4;

/// One test.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Beside what all of its kind need.
    pub(crate) needs: &'static [Need],
    pub(crate) body: fn(),
}

/// A test that needs no more than all of its kind.
pub(crate) const fn case(name: &'static str, body: fn()) -> Case {
    case_with(name, &[], body)
}

/// A test that needs more.
pub(crate) const fn case_with(name: &'static str, needs: &'static [Need], body: fn()) -> Case {
    Case { name, needs, body }
}

/// Runs the cases as cargo expects it of a test binary. Why one is skipped is printed as `skipped: <name>: <reason>`.
pub(crate) fn run(cases: &[&[Case]], all_need: &[Need]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let processors = available_parallelism().map_or(1, NonZero::get);
    arguments.test_threads.get_or_insert(processors.min(MOST_AT_ONCE));
    let mut trials = Vec::new();
    for case in cases.iter().copied().flatten() {
        let lacking = all_need.iter().chain(case.needs).find_map(|need| need.lacking());
        let body = case.body;
        let trial = Trial::test(case.name, move || {
            body();
            Ok(())
        });
        trials.push(trial.with_ignored_flag(lacking.is_some()));
        if let Some(reason) = lacking
            && !arguments.list
        {
            println!("skipped: {}: {reason}", case.name);
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The ways to attach that this kernel has, as docs/ and `--help` state it.
pub(crate) fn methods() -> impl Iterator<Item = &'static str> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let kernel = heapscope::probe::rights::kernel_version(&release).unwrap();
    let all = [("session", (6, 13)), ("multi", (6, 6)), ("perf", (5, 15))];
    all.into_iter().filter(move |(_, since)| kernel >= *since).map(|(method, _)| method)
}
