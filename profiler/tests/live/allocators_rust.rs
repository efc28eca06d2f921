//! Rust programs with an allocator of their own linked in, beside the C library's: two in one process, kept apart.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    allocators::Row,
    support::{
        case::{Case, case_with},
        fixture::folder,
        heapscope::Heapscope,
        needs::Need,
        program::Program,
        report::{Report, Totals},
    },
};

/// One global allocator.
pub(crate) struct Crate {
    /// The feature that links it in, and what heapscope calls it.
    pub(crate) name: &'static str,
    /// Its crate.
    pub(crate) package: &'static str,
    row: OnceLock<Row>,
}

const fn of(name: &'static str, package: &'static str) -> Crate {
    Crate { name, package, row: OnceLock::new() }
}

pub(crate) static CRATES: [Crate; 3] =
    [of("jemalloc", "tikv-jemallocator"), of("mimalloc", "mimalloc"), of("snmalloc", "snmalloc-rs")];

pub(crate) const NEEDS: &[Need] = &[Need::Crates, Need::Program("cmake"), Need::Program("make")];

pub(crate) const CASES: &[Case] = &[
    case_with("allocators::rust_jemalloc", NEEDS, || drop(CRATES[0].row())),
    case_with("allocators::rust_mimalloc", NEEDS, || drop(CRATES[1].row())),
    case_with("allocators::rust_snmalloc", NEEDS, || drop(CRATES[2].row())),
];

/// The fixture's folder.
pub(crate) fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rust-allocators")
}

impl Crate {
    /// Watches the program and holds the report against what its source says.
    pub(crate) fn row(&self) -> Row {
        self.row.get_or_init(|| self.watch()).clone()
    }

    fn watch(&self) -> Row {
        let mut program = Program::start_until(&mut Command::new(self.build()), "ready");
        let heapscope = Heapscope::attach(program.pid(), &[]);
        assert_eq!(program.ask(""), "done");
        let report = heapscope.stop();
        report.assert_nothing_lost();
        self.assert_exact(&report);
        let libc = report.below_function("directories", "glibc");
        assert_eq!((libc.alloc_objects, libc.inuse_objects), (3, 2), "what the C library opened");
        assert_eq!(report.quality.failed_allocations, 1);
        let exact = ["malloc", "calloc", "realloc", "realloc in vain", "memalign"];
        let mut row: Row = exact.into_iter().map(|column| (column, "exact".to_owned())).collect();
        report.assert_stacks_whole();
        row.insert("stacks", "whole".to_owned());
        row
    }

    fn assert_exact(&self, report: &Report) {
        let totals = |inuse_space, inuse_objects, alloc_space, alloc_objects| Totals {
            inuse_space,
            inuse_objects,
            alloc_space,
            alloc_objects,
        };
        // The boxes, and the vector that holds them; the vector of 1,000 bytes becomes another.
        let boxes = totals(150 * 8 + 100 * 64, 101, 150 * 8 + 150 * 64, 151);
        for (function, expected) in [
            ("boxes", boxes),
            ("grown", totals(100_000, 1, 101_000, 2)),
            ("zeroed", totals(3000, 1, 3000, 1)),
            ("aligned", totals(640, 1, 1280, 2)),
        ] {
            assert_eq!(report.below_function(function, self.name), expected, "{function} by {}", self.name);
            assert_eq!(report.below_function(function, "glibc"), Totals::default(), "{function} by glibc");
        }
    }

    /// Builds the program where no lock file of ours is touched.
    fn build(&self) -> PathBuf {
        let target = folder().join(format!("rust-{}", self.name));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--locked", "--offline", "--features", self.name]);
        cargo.arg("--manifest-path").arg(fixture().join("Cargo.toml")).arg("--target-dir").arg(&target);
        let made = cargo.output().unwrap();
        assert!(made.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&made.stderr));
        target.join("release/rust-allocators")
    }
}

impl Report {
    /// What one allocator gave below a Rust function of the program.
    fn below_function(&self, function: &str, allocator: &str) -> Totals {
        let name = format!("rust_allocators::{function}");
        self.sum(|site| site.allocator == allocator && site.has(&name))
    }
}
