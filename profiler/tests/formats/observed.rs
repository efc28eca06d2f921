//! Two observations of the driver `calls.c`, exact and sampled, with a file of every format.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use ::heapscope::report::format::Format;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    fixture,
    heapscope::{self, Heapscope},
    program::{Program, send},
    report::{Report, Totals},
};

/// An observation and its files.
pub(crate) struct Observed {
    folder: TempDir,
    pub(crate) report: Report,
    pub(crate) sample_interval: Option<u64>,
}

/// Both.
pub(crate) fn observed() -> [&'static Observed; 2] {
    static EXACT: OnceLock<Observed> = OnceLock::new();
    static SAMPLED: OnceLock<Observed> = OnceLock::new();
    [EXACT.get_or_init(|| Observed::of(None)), SAMPLED.get_or_init(|| Observed::of(Some(4096)))]
}

impl Observed {
    fn of(sample_interval: Option<u64>) -> Self {
        let folder = TempDir::new().unwrap();
        let mut options = Vec::new();
        for format in Format::ALL {
            options.extend(["-o".to_owned(), path(&folder, format).to_str().unwrap().to_owned()]);
        }
        if let Some(interval) = sample_interval {
            options.extend(["--sample".to_owned(), interval.to_string()]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut target = Program::start_until(&mut Command::new(fixture::calls()), "ready");
        let mut heapscope = Heapscope::attach(target.pid(), &options);
        leak(&mut target, &mut heapscope);
        send(heapscope.pid(), Signal::INT);
        let report = heapscope.report();
        assert!(report.totals.inuse_space > 0 && report.totals.alloc_space > report.totals.inuse_space);
        if sample_interval.is_none() {
            report.assert_nothing_lost();
        }
        Self { folder, report, sample_interval }
    }

    /// The file of this format.
    pub(crate) fn file(&self, format: Format) -> PathBuf {
        path(&self.folder, format)
    }

    pub(crate) fn totals(&self) -> Totals {
        self.report.totals
    }
}

fn path(folder: &TempDir, format: Format) -> PathBuf {
    folder.path().join(format!("observed.{}", format.ending()))
}

/// What is live in several sizes and threads, what was freed at once and later, a peak before the end, a mark.
fn leak(target: &mut Program, heapscope: &mut Heapscope) {
    let target_pid = target.pid().to_string();
    let mut order = |order: &str| {
        let answer = target.ask(order);
        assert!(!answer.starts_with("null"), "{order}: {answer}");
    };
    order("repeat 300 red malloc 1 1000");
    order("repeat 40 green malloc 1001 70001");
    order("thread blue calloc 2000 3 5000");
    let mark = heapscope::heapscope(&["mark", &target_pid, "half"]).output().unwrap();
    assert!(mark.status.success(), "{mark:?}");
    heapscope.hear("marked");
    order("repeat 123 deep malloc 3001 333");
    order("variable malloc 4000 0");
    for slot in 1001..1031 {
        order(&format!("free {slot}"));
    }
    for _ in 0..50 {
        order("blue malloc 5000 64");
        order("free 5000");
    }
    order("red realloc 1 2500");
}
