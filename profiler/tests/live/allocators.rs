//! The allocators that programs have: the same orders to the same driver with each, the same exact account.
//!
//! What is found becomes a row of the table in docs/allocators.md (`allocators_table.rs`).

use std::{collections::BTreeMap, path::PathBuf, process::Command, sync::OnceLock};

use crate::{
    allocators_names::{Calls, JEMALLOC, MIMALLOC, OPERATORS, RARE, TCMALLOC},
    script::{Answer, Script, path_of},
    support::{
        case::{Case, case_with},
        fixture::{build, build_with},
        heapscope::Heapscope,
        needs::{Need, library},
        report::Report,
    },
};

/// One allocator in one way of linking.
pub(crate) struct Variant {
    /// What heapscope calls it.
    pub(crate) name: &'static str,
    /// Debian's package of it, which tells the version.
    pub(crate) package: Option<&'static str>,
    pub(crate) linked: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) command: fn() -> Command,
    own: Calls,
    row: OnceLock<Row>,
}

/// What was found, by column: whether the numbers are exact, or a reason why there are none.
pub(crate) type Row = BTreeMap<&'static str, String>;

const fn variant(
    name: &'static str,
    package: Option<&'static str>,
    linked: &'static str,
    needs: &'static [Need],
    command: fn() -> Command,
    own: Calls,
) -> Variant {
    Variant { name, package, linked, needs, command, own, row: OnceLock::new() }
}

pub(crate) const LIBRARY_JEMALLOC: &str = "libjemalloc.so.2";
pub(crate) const LIBRARY_TCMALLOC: &str = "libtcmalloc.so.4";
const LIBRARY_TCMALLOC_MINIMAL: &str = "libtcmalloc_minimal.so.4";
pub(crate) const LIBRARY_MIMALLOC: &str = "libmimalloc.so.2";

pub(crate) static VARIANTS: [Variant; 11] = [
    variant("glibc", Some("libc6"), "dynamic", &[], || Command::new(driver()), &[]),
    variant("glibc", Some("libc6"), "static", &[], || Command::new(static_driver("cc")), &[]),
    variant("musl", Some("musl"), "dynamic", &[MUSL], || Command::new(musl_driver()), &[]),
    variant("musl", Some("musl"), "static", &[MUSL], || Command::new(static_driver("musl-gcc")), &[]),
    variant(
        "jemalloc",
        Some("libjemalloc2"),
        "preloaded",
        &[Need::Library(LIBRARY_JEMALLOC)],
        || preloaded(LIBRARY_JEMALLOC),
        JEMALLOC,
    ),
    variant(
        "jemalloc",
        Some("libjemalloc2"),
        "linked in",
        &[Need::Library("libjemalloc.a")],
        || Command::new(linked_in("libjemalloc.a")),
        JEMALLOC,
    ),
    variant(
        "tcmalloc",
        Some("libgoogle-perftools4"),
        "preloaded",
        &[Need::Library(LIBRARY_TCMALLOC)],
        || preloaded(LIBRARY_TCMALLOC),
        TCMALLOC,
    ),
    variant(
        "tcmalloc",
        Some("libtcmalloc-minimal4"),
        "preloaded, minimal",
        &[Need::Library(LIBRARY_TCMALLOC_MINIMAL)],
        || preloaded(LIBRARY_TCMALLOC_MINIMAL),
        TCMALLOC,
    ),
    variant(
        "tcmalloc",
        Some("libtcmalloc-minimal4"),
        "linked in, minimal",
        &[Need::Library("libtcmalloc_minimal.a")],
        || Command::new(linked_in("libtcmalloc_minimal.a")),
        TCMALLOC,
    ),
    variant(
        "mimalloc",
        Some("libmimalloc2.0"),
        "preloaded",
        &[Need::Library(LIBRARY_MIMALLOC)],
        || preloaded(LIBRARY_MIMALLOC),
        MIMALLOC,
    ),
    variant("another malloc", None, "preloaded", &[], another, RARE),
];

pub(crate) const MUSL: Need = Need::Program("musl-gcc");

pub(crate) const CASES: &[Case] = &[
    case_with("allocators::glibc_dynamic", &[], || assert_exact(0)),
    case_with("allocators::glibc_static", &[], || assert_exact(1)),
    case_with("allocators::musl_dynamic", &[MUSL], || assert_exact(2)),
    case_with("allocators::musl_static", &[MUSL], || assert_exact(3)),
    case_with("allocators::jemalloc", &[Need::Library(LIBRARY_JEMALLOC)], || assert_exact(4)),
    case_with("allocators::jemalloc_linked_in", &[Need::Library("libjemalloc.a")], || assert_exact(5)),
    case_with("allocators::tcmalloc", &[Need::Library(LIBRARY_TCMALLOC)], || assert_exact(6)),
    case_with("allocators::tcmalloc_minimal", &[Need::Library(LIBRARY_TCMALLOC_MINIMAL)], || assert_exact(7)),
    case_with("allocators::tcmalloc_linked_in", &[Need::Library("libtcmalloc_minimal.a")], || {
        assert_exact(8)
    }),
    case_with("allocators::mimalloc", &[Need::Library(LIBRARY_MIMALLOC)], || assert_exact(9)),
    case_with("allocators::another_malloc", &[], || assert_exact(10)),
];

/// More than any machine has, in bytes.
const TOO_MUCH: &str = "1125899906842624";

/// The functions of the C library, each with the column that it counts for and with orders as the driver takes them,
/// without path and slot.
const C_FUNCTIONS: &[(&str, &[&str])] = &[
    ("malloc", &["malloc 100"]),
    ("calloc", &["calloc 10 12"]),
    ("realloc", &["malloc 130", "realloc 131", "realloc 70000", "realloc 9000000", "realloc 600"]),
    ("realloc", &["realloc 140"]),
    ("realloc in vain", &["malloc 150", "realloc 1125899906842624"]),
    ("realloc to 0", &["malloc 160", "realloc 0"]),
    ("reallocarray", &["reallocarray 10 17", "reallocarray 10 1700"]),
    ("memalign", &["memalign 64 180"]),
    ("aligned_alloc", &["aligned_alloc 64 192"]),
    ("posix_memalign", &["posix_memalign 64 200"]),
    ("posix_memalign", &["posix_memalign 3 200"]),
    ("valloc", &["valloc 210"]),
    ("pvalloc", &["pvalloc 4096"]),
    ("strdup", &["strdup 30"]),
    ("other failures", &["malloc 1125899906842624", "calloc 9223372036854775807 4"]),
    ("other failures", &["posix_memalign 64 1125899906842624", "memalign 64 1125899906842624"]),
];

/// The columns of the table.
pub(crate) const COLUMNS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "realloc in vain",
    "realloc to 0",
    "reallocarray",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "strdup",
    "other failures",
    "new, delete",
    "own names",
    "stacks",
];

fn driver() -> PathBuf {
    // With libstdc++, whose operators are the allocator's or call it; with names for dlsym.
    build("calls.c", &["-rdynamic", "-Wl,--no-as-needed", "-lstdc++"])
}

fn static_driver(compiler: &str) -> PathBuf {
    build_with(compiler, "calls.c", &["-static", "-DSTATIC"])
}

fn musl_driver() -> PathBuf {
    build_with("musl-gcc", "calls.c", &["-rdynamic"])
}

fn preloaded(name: &str) -> Command {
    let mut command = Command::new(driver());
    command.env("LD_PRELOAD", library(name).unwrap());
    command
}

fn linked_in(archive: &str) -> PathBuf {
    let archive = library(archive).unwrap();
    let whole =
        ["-rdynamic", "-Wl,--no-as-needed", "-Wl,--whole-archive", &archive, "-Wl,--no-whole-archive"];
    build("calls.c", &[&whole[..], &["-lstdc++", "-lm"]].concat())
}

fn another() -> Command {
    let mut command = Command::new(driver());
    command.env("LD_PRELOAD", build("bump.c", &["-shared", "-fPIC"]));
    command
}

fn assert_exact(index: usize) {
    VARIANTS[index].row();
}

impl Variant {
    /// Carries out every order that this allocator can take, and holds the report against the account.
    pub(crate) fn row(&self) -> &Row {
        self.row.get_or_init(|| {
            let mut session = Session::of(&mut (self.command)());
            let present: Vec<_> = [("own names", self.own), ("new, delete", OPERATORS)]
                .into_iter()
                .map(|(column, calls)| (column, session.present(calls)))
                .collect();
            session.script.orders(&["red malloc 60000 50"]);
            if session.script.has("mi_heap_get_default") {
                session.script.control("fetch 999 mi_heap_get_default", "done");
            }
            if self.name == "musl" {
                // Debian builds musl without unwind information: a stack that begins in it ends there.
                session.script.tolerate("strdup");
            }
            let heapscope = Heapscope::attach(session.script.pid(), &[]);
            session.script.watched();
            for (column, orders) in C_FUNCTIONS {
                session.c_function(column, orders);
            }
            for (column, calls) in present {
                session.calls(column, &calls);
            }
            session.threads();
            let report = heapscope.stop();
            session.row(self, &report)
        })
    }
}

/// A driver, and which of its paths stand for which column.
struct Session {
    script: Script,
    columns: Vec<&'static str>,
    slot: u64,
}

impl Session {
    fn of(command: &mut Command) -> Self {
        Self { script: Script::of(command), columns: Vec::new(), slot: 1000 }
    }

    /// A path for the next order.
    fn path(&mut self, column: &'static str) -> String {
        self.columns.push(column);
        format!("step{}", self.columns.len())
    }

    /// Each order twice, on two blocks, one of which is freed.
    fn c_function(&mut self, column: &'static str, orders: &[&str]) {
        let path = self.path(column);
        for _ in 0..2 {
            self.slot += 1;
            for order in orders {
                let (function, arguments) = order.split_once(' ').unwrap();
                let answer = self.script.try_order(&format!("{path} {function} {} {arguments}", self.slot));
                let fails =
                    order.contains(TOO_MUCH) || order.starts_with("calloc 9") || order.contains(" 3 ");
                let may_be_null = fails || order.ends_with(" 0");
                assert!(may_be_null || !matches!(answer, Some(Answer::Null(_))), "{order}: {answer:?}");
            }
        }
        // What has no pvalloc of its own is given a block of the C library's, which it could not free.
        if column != "pvalloc" {
            self.script.free(self.slot);
        }
    }

    /// Those of the calls that this driver can make, without the calls on a block that is not there.
    fn present(&mut self, calls: Calls) -> Vec<(&'static str, u64)> {
        let mut has_block = false;
        let mut present = Vec::new();
        for &(call, size) in calls {
            let name = call.trim_start_matches(['-', '=', '!', '?']).split(' ').next().unwrap();
            let is_present = self.script.has(name);
            if takes(call) {
                if is_present && has_block {
                    present.push((call, size));
                }
            } else {
                has_block = is_present;
                present.extend(is_present.then_some((call, size)));
            }
        }
        present
    }

    fn calls(&mut self, column: &'static str, calls: &[(&'static str, u64)]) {
        for &(call, size) in calls {
            if !takes(call) {
                self.slot += 1;
            }
            let slot = self.slot;
            if let Some(call) = call.strip_prefix('-') {
                self.script.drop_by(slot, call);
                continue;
            }
            let path = self.path(column);
            if let Some(call) = call.strip_prefix('=') {
                let done = self.script.resize(&format!("{path} resize {slot} {call}"), size);
                assert_eq!(done, size < 1_000_000, "{call}");
                continue;
            }
            let (gone, vain) = (call.starts_with('!'), call.starts_with(['!', '?']));
            let call = call.trim_start_matches(['!', '?']);
            let verb = if call.contains('&') { "into" } else { "any" };
            let answer = self.script.any(&format!("{path} {verb} {slot} {call}"), size.max(1));
            assert_eq!(matches!(answer, Answer::Null(_)), vain, "{call}: {answer:?}");
            if gone {
                self.script.gone(slot);
            }
        }
    }

    /// Blocks that change hands between threads, and many at once.
    fn threads(&mut self) {
        let path = self.path("malloc");
        self.script.repeat(2000, &path, 10_000, 700);
        self.script.free_range(10_000, 1500);
        self.script.free_in_thread(11_900);
        self.script.in_thread(&format!("{path} malloc 900 5000"));
        self.script.free(900);
    }

    /// Holds the report against the account, and sums up what was found.
    fn row(self, variant: &Variant, report: &Report) -> Row {
        let found = self.script.found(report);
        let mut allocators: BTreeMap<String, &str> = BTreeMap::new();
        for site in &report.sites {
            path_of(site).map(|path| allocators.insert(path, &site.allocator));
        }
        let mut row = Row::new();
        for column in COLUMNS {
            let paths = self.columns.iter().enumerate().filter(|(_, of)| *of == column);
            let paths: Vec<_> = paths.map(|(index, _)| format!("step{}", index + 1)).collect();
            let made = paths.iter().filter(|path| self.script.made(path));
            let made: Vec<_> = made.collect();
            let wrong: Vec<_> = made
                .iter()
                .filter(|path| found.get(**path).copied().unwrap_or_default() != self.script.expected(path))
                .collect();
            let foreign = made.iter().filter_map(|path| allocators.get(*path));
            let foreign = foreign.into_iter().find(|allocator| !is_called(allocator, variant.name));
            if *column == "other failures" {
                // They leave no site; their number is held against the account below.
                row.insert(column, "counted".to_owned());
                continue;
            }
            let cell = match (made.len(), wrong.as_slice(), foreign) {
                (0, ..) => "–".to_owned(),
                (_, [], Some(allocator)) => format!("exact, {allocator}'s"),
                (count, [], None) if *column == "own names" => format!("exact: {count} calls"),
                (_, [], None) => "exact".to_owned(),
                // The numbers are in the total, which is held against the account below.
                _ if variant.name == "musl" && *column == "strdup" => "exact, without its caller".to_owned(),
                (_, wrong, _) => panic!(
                    "{} {}, {column}: {:?}",
                    variant.name,
                    variant.linked,
                    wrong
                        .iter()
                        .map(|path| (found.get(**path), self.script.expected(path)))
                        .collect::<Vec<_>>()
                ),
            };
            row.insert(column, cell);
        }
        let stacks = if report.incomplete() == 0 { "whole" } else { "up to the C library's" };
        row.insert("stacks", stacks.to_owned());
        assert_eq!(stacks == "whole", variant.name != "musl", "{:?}", report.quality.incomplete_stacks);
        self.script.assert_quality(report);
        self.script.assert_totals(report);
        row
    }
}

/// Whether a call is handed the block.
fn takes(call: &str) -> bool {
    call.split(' ').any(|word| word == "@")
}

fn is_called(allocator: &str, name: &str) -> bool {
    // One that nobody knows goes by its file's name.
    allocator == name || name == "another malloc" && allocator.starts_with("bump")
}
