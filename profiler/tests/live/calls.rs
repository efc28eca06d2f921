//! Every function of the malloc family, by the byte.

use crate::{
    script::{Answer, Script},
    support::{
        case::{Case, case, methods},
        heapscope::Heapscope,
        report::Totals,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("calls::malloc_and_free", malloc_and_free),
    case("calls::calloc_counts_the_product", calloc_counts_the_product),
    case("calls::realloc_in_all_its_ways", realloc_in_all_its_ways),
    case("calls::reallocarray_counts_the_product", reallocarray_counts_the_product),
    case("calls::aligned_functions_count_once", aligned_functions_count_once),
    case("calls::posix_memalign_tells_by_its_status", posix_memalign_tells_by_its_status),
    case("calls::strdup_is_a_site_of_its_caller", strdup_is_a_site_of_its_caller),
    case("calls::blocks_of_before_are_unmatched_frees", blocks_of_before_are_unmatched_frees),
    case("calls::sizes_can_be_filtered", sizes_can_be_filtered),
    case("calls::young_blocks_can_be_left_out", young_blocks_can_be_left_out),
    case("calls::all_ways_to_attach_count_alike", all_ways_to_attach_count_alike),
    case("calls::totals_agree_with_mallinfo", totals_agree_with_mallinfo),
];

const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
/// More than any machine has.
const TOO_MUCH: u64 = 1 << 50;

/// Lets `work` happen under heapscope and holds the report against the account.
fn watch(options: &[&str], work: impl FnOnce(&mut Script)) {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), options);
    script.watched();
    work(&mut script);
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
}

fn malloc_and_free() {
    watch(&[], |script| {
        script.orders(&["red malloc 1 100", "red malloc 2 1", "green malloc 3 0", "blue malloc 4 5000000"]);
        script.repeat(1000, "blue", 1000, 48);
        script.free(2);
        script.free(4);
        script.free_range(1000, 700);
        script.control("free_null", "done");
        // The address is given out again at once; the second block lives.
        script.orders(&["red malloc 5 24"]);
        script.free(5);
        script.orders(&["green malloc 6 24"]);
    });
}

fn calloc_counts_the_product() {
    watch(&[], |script| {
        script.orders(&[
            "red calloc 1 10 100",
            "green calloc 2 1 7",
            "green calloc 3 0 9",
            "blue calloc 4 300000 3",
        ]);
        let overflow = format!("red calloc 9 {} 4", u64::MAX / 2);
        assert_eq!(script.order(&overflow), Answer::Null(ENOMEM));
        assert_eq!(script.order(&format!("red calloc 9 {TOO_MUCH} 2")), Answer::Null(ENOMEM));
        script.free(1);
        script.free(4);
    });
}

fn realloc_in_all_its_ways() {
    watch(&[], |script| {
        // From nothing: glibc calls malloc inside, which must not count twice.
        script.orders(&["red realloc 1 100", "green realloc 2 40"]);
        // In place.
        assert_eq!(script.order("red realloc 2 41"), Answer::Same);
        // To another place: a block behind stands in the way.
        script.orders(&["red malloc 3 1000", "red malloc 4 1000"]);
        assert_eq!(script.order("blue realloc 3 60000"), Answer::Block);
        // To a mapping of its own, within it, and back.
        assert_eq!(script.order("red realloc 3 3000000"), Answer::Block);
        script.orders(&["green realloc 3 9000000", "red realloc 3 600"]);
        // In vain: the block stays.
        assert_eq!(script.order(&format!("green realloc 4 {TOO_MUCH}")), Answer::Null(ENOMEM));
        assert_eq!(script.order(&format!("blue realloc 9 {TOO_MUCH}")), Answer::Null(ENOMEM));
        // To nothing.
        script.order("green realloc 1 0");
        script.free(2);
    });
}

fn reallocarray_counts_the_product() {
    watch(&[], |script| {
        script.orders(&[
            "red reallocarray 1 10 10",
            "green reallocarray 1 50 100",
            "blue reallocarray 2 3 3",
        ]);
        // glibc refuses an overflow before it comes to the allocator.
        let overflow = format!("red reallocarray 1 {} 3", u64::MAX / 2);
        script.control(&overflow, &format!("null {ENOMEM}"));
        script.order("red reallocarray 2 0 8");
    });
}

fn aligned_functions_count_once() {
    watch(&[], |script| {
        // Alignments that malloc gives anyway make glibc call malloc.
        for (slot, alignment) in [8, 16, 32, 64, 256, 4096, 65536].into_iter().enumerate() {
            let slot = slot * 4;
            script.orders(&[
                &format!("red memalign {slot} {alignment} 100"),
                &format!("green aligned_alloc {} {alignment} {}", slot + 1, alignment * 3),
                &format!("blue posix_memalign {} {alignment} 777", slot + 2),
            ]);
            script.free(slot as u64);
        }
        script.orders(&["red valloc 100 5000", "green pvalloc 101 5000", "blue valloc 102 1"]);
        script.free(102);
    });
}

fn posix_memalign_tells_by_its_status() {
    watch(&[], |script| {
        assert_eq!(script.order("red posix_memalign 1 3 100"), Answer::Null(EINVAL));
        assert_eq!(script.order("red posix_memalign 1 4 100"), Answer::Null(EINVAL));
        assert_eq!(script.order(&format!("red posix_memalign 1 64 {TOO_MUCH}")), Answer::Null(ENOMEM));
        assert_eq!(script.order(&format!("red memalign 1 64 {TOO_MUCH}")), Answer::Null(ENOMEM));
        script.orders(&["red posix_memalign 1 64 100", "red posix_memalign 2 128 200"]);
        script.free(1);
    });
}

fn strdup_is_a_site_of_its_caller() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&["red strdup 1 11", "blue strdup 2 3000"]);
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
    for site in &report.sites {
        let functions = site.functions();
        assert!(functions[0].contains("strdup"), "{functions:?}");
        assert_eq!(functions[1..3], ["chosen", "call"]);
    }
}

fn blocks_of_before_are_unmatched_frees() {
    let mut script = Script::start();
    script.repeat(50, "red", 100, 64);
    script.orders(&["red malloc 1 1000", "green malloc 2 1000", "green malloc 3 1000"]);
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.free_range(100, 20);
    // A block of before that is resized becomes a block of ours.
    script.orders(&["blue realloc 1 50000", "red malloc 4 10"]);
    assert_eq!(script.order(&format!("blue realloc 2 {TOO_MUCH}")), Answer::Null(ENOMEM));
    script.order("blue realloc 2 0");
    let report = heapscope.stop();
    script.assert_account(&report);
    assert_eq!(report.quality.unmatched_frees, 22);
}

fn sizes_can_be_filtered() {
    let mut script = Script::start();
    script.recorded = 100..=2048;
    let heapscope = Heapscope::attach(script.pid(), &["--min-size", "100", "--max-size", "2KiB"]);
    script.watched();
    for (slot, size) in [0, 1, 99, 100, 101, 2047, 2048, 2049, 1_000_000].into_iter().enumerate() {
        script
            .orders(&[&format!("red malloc {slot} {size}"), &format!("green calloc {} {size} 1", slot + 20)]);
        script.free(slot as u64 + 20);
    }
    // Into the range, within it, out of it on either side, and in again.
    script.orders(&[
        "blue malloc 50 10",
        "blue realloc 50 500",
        "blue realloc 50 600",
        "blue realloc 50 9000",
    ]);
    script.orders(&["blue realloc 50 700", "blue realloc 50 20", "blue realloc 50 800"]);
    script.orders(&["blue posix_memalign 51 64 99", "blue posix_memalign 52 64 100"]);
    let report = heapscope.stop();
    script.assert_account(&report);
    assert!(report.quality.filtered_allocations > 10);
}

fn young_blocks_can_be_left_out() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &["--min-age", "4s"]);
    script.watched();
    script.repeat(10, "red", 100, 1000);
    // The age itself is the matter here: only time makes a block older.
    std::thread::sleep(std::time::Duration::from_millis(4500));
    script.repeat(7, "green", 200, 1000);
    let report = heapscope.stop();
    let (red, green) = (report.below("red"), report.below("green"));
    assert_eq!((red.inuse_objects, red.inuse_space, red.alloc_objects), (10, 10_000, 10));
    assert_eq!((green.inuse_objects, green.inuse_space, green.alloc_objects), (0, 0, 7));
    assert_eq!(report.totals.inuse_objects, 10);
    let oldest = report.sites[0].oldest_seconds.unwrap();
    assert!((4.5..report.duration_seconds + 0.5).contains(&oldest), "{oldest}");
    report.assert_nothing_lost();
}

fn all_ways_to_attach_count_alike() {
    for method in methods() {
        let mut script = Script::start();
        script.orders(&["red malloc 1 100"]);
        let heapscope = Heapscope::attach(script.pid(), &["--probes", method]);
        script.watched();
        script.free(1);
        script.orders(&[
            "red malloc 1 100",
            "green calloc 2 10 10",
            "red realloc 3 1000",
            "blue realloc 3 100000",
        ]);
        script.orders(&["red posix_memalign 4 64 640", "green memalign 5 8 80", "blue strdup 6 99"]);
        assert_eq!(script.order(&format!("red realloc 3 {TOO_MUCH}")), Answer::Null(ENOMEM));
        assert_eq!(script.order("red posix_memalign 9 3 640"), Answer::Null(EINVAL));
        assert_eq!(script.order(&format!("blue calloc 9 {TOO_MUCH} 1")), Answer::Null(ENOMEM));
        script.order("red realloc 1 0");
        script.repeat(500, "blue", 1000, 33);
        script.free_range(1000, 400);
        let report = heapscope.stop();
        assert_eq!(report.mode.probes, method);
        script.assert_account(&report);
        report.assert_stacks_whole();
    }
}

fn totals_agree_with_mallinfo() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    let before = script.mallinfo();
    for round in 0..200_u64 {
        let size = 1 + round * 97;
        script.repeat(3, "red", 1000 + 3 * round, size);
    }
    // Too large for the thread's cache of free chunks, which glibc counts as in use.
    script.repeat(50, "green", 5000, 20_000);
    script.free_range(5000, 50);
    let glibc = script.mallinfo() - before;
    let report = heapscope.stop();
    script.assert_account(&report);
    // A chunk is the block and 8 bytes, rounded up to 16, and at least 32.
    let Totals { inuse_space, inuse_objects, .. } = report.totals;
    assert_eq!(inuse_objects, 600);
    let (least, most) = (inuse_space + 8 * inuse_objects, inuse_space + 32 * inuse_objects);
    assert!((least..=most).contains(&glibc), "{least} <= {glibc} <= {most}");
}
