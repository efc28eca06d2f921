//! Allocators of a program's own, named by `--allocator`, alone and over malloc; and allocator functions that are
//! interrupted, or left by a longjmp.

use std::{path::PathBuf, process::Command};

use crate::{
    script::{Answer, Script},
    support::{
        case::{Case, case, methods},
        fixture::{build, source},
        heapscope::{Heapscope, heapscope},
        report::Report,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("custom::a_pool_stands_beside_its_chunks", a_pool_stands_beside_its_chunks),
    case("custom::a_layer_over_malloc_counts_once", a_layer_over_malloc_counts_once),
    case("custom::a_realloc_by_hand_counts_once", a_realloc_by_hand_counts_once),
    case("custom::a_realloc_that_frees_in_vain", a_realloc_that_frees_in_vain),
    case("custom::a_function_left_by_longjmp", a_function_left_by_longjmp),
    case("custom::a_realloc_left_by_longjmp", a_realloc_left_by_longjmp),
    case("custom::a_function_interrupted", a_function_interrupted),
    case("custom::what_cannot_be_watched_is_named", what_cannot_be_watched_is_named),
];

const POOL: &str = "alloc=pool_get(size=1);free=pool_put(ptr=1)";
const LAYER: &str = "alloc=x_malloc;calloc=x_calloc;realloc=x_realloc;posix_memalign=x_memalign(out=2,size=0);\
                     free=x_free;alloc=x_malloc_jumping(size=0)";
const TOO_MUCH: u64 = 1 << 50;

fn driver() -> PathBuf {
    build("calls.c", &["-rdynamic", source("pool.c").to_str().unwrap()])
}

/// Lets `work` happen while these allocators are watched, by every way to attach, and holds the reports against the
/// account.
fn watch(allocators: &[&str], work: fn(&mut Script)) -> Vec<Report> {
    let reports = watch_with_signals(allocators, work);
    reports.iter().for_each(Report::assert_stacks_whole);
    reports
}

/// The same where a signal's handler allocates: what lies behind it on the stack is a guess.
fn watch_with_signals(allocators: &[&str], work: fn(&mut Script)) -> Vec<Report> {
    let watch_by = |method| {
        let mut script = Script::of(&mut Command::new(driver()));
        script.any("red any 600 x_malloc 64", 64);
        script.any("red any 601 x_malloc 64", 64);
        let mut options = vec!["--probes", method];
        options.extend(allocators.iter().flat_map(|spec| ["--allocator", spec]));
        let heapscope = Heapscope::attach(script.pid(), &options);
        script.watched();
        work(&mut script);
        let report = heapscope.stop();
        assert_eq!(report.mode.probes, method);
        script.assert_account(&report);
        report
    };
    methods().map(watch_by).collect()
}

fn a_pool_stands_beside_its_chunks() {
    let reports = watch(&[POOL, LAYER], |script| {
        script.any("red any 1 pool_chunk 65536", 65536);
        // The first part has the chunk's address, and is another block.
        script.any("green any 2 pool_get 0 100", 100);
        script.any("green any 3 pool_get 0 200", 200);
        script.drop_by(3, "pool_put 0 @");
        script.any("blue any 4 pool_get 0 300", 300);
        script.drop_by(4, "pool_put 0 @");
        script.drop_by(2, "pool_put 0 @");
        script.any("blue any 5 pool_get 0 400", 400);
        script.any("red any 6 x_malloc 70", 70);
        // The chunk goes, and what the pool gave out is still said to live: nobody gave it back.
        script.free(1);
        script.orders(&["red malloc 7 80"]);
    });
    for report in reports {
        let allocator_of = |path| report.sites.iter().find(|site| site.has(path)).unwrap().allocator.clone();
        assert_eq!(allocator_of("blue"), "pool_get");
        let of = |name| report.sites.iter().filter(|site| site.allocator == name).count();
        assert_eq!((of("pool_get"), of("x_malloc"), of("glibc")), (2, 1, 2));
    }
}

fn a_layer_over_malloc_counts_once() {
    let reports = watch(&[LAYER], |script| {
        script.any("red any 1 x_malloc 100", 100);
        script.any("green any 2 x_calloc 10 20", 200);
        script.any("blue into 3 x_memalign 300 64 &", 300);
        script.any("red any 4 x_malloc_jumping 400", 400);
        // Freed by the layer, and past it.
        for slot in 10..14 {
            script.any(&format!("red any {slot} x_malloc 50"), 50);
        }
        script.drop_by(10, "x_free @");
        script.free(11);
        script.orders(&["green malloc 14 60", "green malloc 15 60"]);
        script.drop_by(14, "x_free @");
        script.free(15);
        // Resized by the layer, and past it.
        script.any("blue any 12 x_realloc @ 5000", 5000);
        script.any("green any 12 x_realloc @ 5001", 5001);
        script.orders(&["blue realloc 13 6000", "green malloc 16 70"]);
        script.any("red any 16 x_realloc @ 7000", 7000);
        script.drop_by(13, "x_free @");
        // In vain, and to nothing.
        let vain = format!("red any 12 x_realloc @ {TOO_MUCH}");
        assert!(matches!(script.any(&vain, TOO_MUCH), Answer::Null(_)));
        assert!(matches!(script.any(&format!("red any 20 x_malloc {TOO_MUCH}"), TOO_MUCH), Answer::Null(_)));
        assert_eq!(script.order(&format!("red realloc 12 {TOO_MUCH}")), Answer::Null(12));
        script.drop_by(12, "x_free @");
        script.any("red any 16 x_realloc @ 0", 0);
        // Blocks of before.
        script.drop_by(600, "x_free @");
        script.any("red any 601 x_realloc @ 900", 900);
        script.drop_by(999, "x_free @");
    });
    assert!(reports.iter().all(|report| report.quality.unmatched_frees == 2));
}

fn a_realloc_by_hand_counts_once() {
    watch(&["realloc=x_realloc_by_hand;free=x_free;alloc=x_malloc"], |script| {
        script.any("red any 1 x_malloc 100", 100);
        script.any("green any 1 x_realloc_by_hand @ 200", 200);
        script.orders(&["red malloc 2 100"]);
        script.any("green any 2 x_realloc_by_hand @ 300", 300);
        script.any("blue any 3 x_realloc_by_hand 0 400", 400);
        let vain = format!("blue any 3 x_realloc_by_hand @ {TOO_MUCH}");
        assert!(matches!(script.any(&vain, TOO_MUCH), Answer::Null(_)));
        script.any("green any 600 x_realloc_by_hand @ 500", 500);
        script.free(1);
    });
}

fn a_realloc_that_frees_in_vain() {
    watch(&["reallocf=x_reallocf;free=x_free"], |script| {
        script.orders(&["red malloc 1 100", "red malloc 2 100"]);
        script.any("green any 1 x_reallocf @ 200", 200);
        for slot in [1, 2] {
            let vain = format!("blue any {slot} x_reallocf @ {TOO_MUCH}");
            assert!(matches!(script.any(&vain, TOO_MUCH), Answer::Null(_)));
            script.gone(slot);
        }
    });
}

fn a_function_left_by_longjmp() {
    watch_with_signals(&["alloc=x_malloc_raising;free=x_free"], |script| {
        for _ in 0..50 {
            script.control("interrupted 0 red any 1 x_malloc_raising 100", "left");
        }
        for depth in 1..50 {
            script.control(&format!("interrupted 0 step{depth} any 1 x_malloc_raising 100"), "left");
        }
        // What comes afterwards is not taken for what was left.
        script.orders(&["red malloc 1 200", "red calloc 2 3 100"]);
        assert_eq!(
            script.interrupted("green malloc 3 77", "red any 4 x_malloc_raising 400", 400),
            Answer::Block
        );
        script.free(1);
        script.drop_by(4, "x_free @");
    });
}

fn a_realloc_left_by_longjmp() {
    watch_with_signals(&["realloc=x_realloc_raising;alloc=x_malloc;free=x_free"], |script| {
        for slot in 1..8 {
            script.orders(&[&format!("red malloc {slot} {}", 100 * slot)]);
        }
        let leave = |script: &mut Script, slot| {
            script.control(&format!("interrupted 0 blue any {slot} x_realloc_raising @ 5000"), "left");
        };
        // Lives on; is freed, resized by the same function, or by another, or left once more.
        (1..8).for_each(|slot| leave(script, slot));
        script.free(2);
        assert_eq!(script.order("green realloc 3 3333"), Answer::Block);
        let done = script.interrupted("green malloc 9 77", "red any 4 x_realloc_raising @ 4444", 4444);
        assert_eq!(done, Answer::Block);
        leave(script, 5);
        leave(script, 5);
        script.drop_by(6, "x_free @");
        leave(script, 7);
        script.free(7);
        script.orders(&["red malloc 7 700"]);
    });
}

fn a_function_interrupted() {
    watch_with_signals(&["alloc=x_malloc_raising;realloc=x_realloc_raising;free=x_free"], |script| {
        let done = script.interrupted("green malloc 1 111", "red any 2 x_malloc_raising 222", 222);
        assert_eq!(done, Answer::Block);
        let done = script.interrupted("green calloc 3 3 111", "blue any 2 x_realloc_raising @ 9999", 9999);
        assert_eq!(done, Answer::Block);
        // On a stack of its own.
        script.control("altstack", "done");
        let done = script.interrupted("green malloc 5 1111", "red any 4 x_malloc_raising 444", 444);
        assert_eq!(done, Answer::Block);
        script.free(1);
        script.free(2);
    });
}

fn what_cannot_be_watched_is_named() {
    let mut script = Script::of(&mut Command::new(driver()));
    let pid = script.pid().to_string();
    let attach = |spec: &str| {
        let arguments = ["attach", &pid, "-d", "1", "-o", "x.json", "--allocator", spec];
        let outcome = Heapscope::start(&mut heapscope(&arguments)).finish();
        (outcome.status, outcome.errors)
    };
    let driver = driver();
    let file = driver.file_name().unwrap().to_str().unwrap();
    for (spec, message) in [
        ("alloc=no_such_function;free=nor_this", "defines no_such_function, nor_this, as --allocator says"),
        ("alloc=x_malloc;free=nor_this", "`nor_this` cannot be watched in"),
        ("alloc=escape;free=x_free", "that symbol is not a function"),
        ("alloc=x_malloc;free=x_free@libc.so.6", "`x_malloc` cannot be watched in"),
        ("alloc=x_malloc;free=x_free@libnone.so", "defines x_malloc, x_free"),
        ("alloc=malloc;free=cfree_of_mine", "`cfree_of_mine` cannot be watched"),
        ("alloc=malloc;free=free@libc.so.6", "it is watched without being named"),
    ] {
        let (status, errors) = attach(spec);
        assert_eq!(status, 1, "{spec}: {errors}");
        assert!(errors.contains(message), "{spec}: {errors}");
    }
    let (status, errors) = attach(&format!("alloc=x_malloc;free=x_free@{file}"));
    assert_eq!(status, 0, "{errors}");
    let (status, errors) = attach("alloc=x_malloc(size=9);free=x_free");
    assert!(status == 2 && errors.contains("`size=9`: an argument is told by its position"), "{errors}");
    script.orders(&["red malloc 1 1"]);
}
