//! Allocators that take the C library's place, and the ways in which they keep the C standard.

use std::process::Command;

use crate::{
    script::{Answer, Script},
    support::{
        case::{Case, case_with},
        heapscope::Heapscope,
        needs::{Need, library},
    },
};

const JEMALLOC: &str = "libjemalloc.so.2";
const TCMALLOC: &str = "libtcmalloc_minimal.so.4";
const MIMALLOC: &str = "libmimalloc.so.2";

pub(crate) const CASES: &[Case] = &[
    case_with("allocators::jemalloc", &[Need::Library(JEMALLOC)], || exact(JEMALLOC, "jemalloc")),
    case_with("allocators::tcmalloc", &[Need::Library(TCMALLOC)], || exact(TCMALLOC, "tcmalloc")),
    case_with("allocators::mimalloc", &[Need::Library(MIMALLOC)], || exact(MIMALLOC, "mimalloc")),
];

fn exact(name: &str, allocator: &str) {
    let mut script =
        Script::of(Command::new(crate::support::fixture::calls()).env("LD_PRELOAD", library(name).unwrap()));
    script.orders(&["red malloc 500 50"]);
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&["red malloc 1 100", "green malloc 2 3000000", "blue calloc 3 100 100", "red malloc 4 8"]);
    script.orders(&[
        "red realloc 5 100",
        "green realloc 5 101",
        "blue realloc 5 70000",
        "blue realloc 5 9000000",
    ]);
    script.orders(&[
        "red posix_memalign 6 64 640",
        "green memalign 7 4096 80",
        "blue aligned_alloc 8 32 320",
    ]);
    script.orders(&["red strdup 9 30", "green valloc 10 600", "green malloc 11 1000"]);
    assert!(matches!(script.order(&format!("green realloc 11 {}", 1_u64 << 50)), Answer::Null(_)));
    script.order("red realloc 4 0");
    script.repeat(2000, "blue", 1000, 700);
    script.free_range(1000, 1500);
    for slot in [2, 5, 6, 500] {
        script.free(slot);
    }
    script.free_in_thread(7);
    script.in_thread("red malloc 12 5000");
    script.free(12);
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
    for site in report.sites.iter().filter(|site| site.has("main")) {
        assert!(site.allocator.contains(allocator), "{} {:?}", site.allocator, site.functions());
    }
}
