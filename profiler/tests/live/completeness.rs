//! Whole stacks by the thousand: of programs of every kind, how many reach the thread's first function. Each test
//! prints its rate.

use crate::{
    support::{
        case::{Case, case, case_with},
        needs::Need,
        report::{Report, Site},
    },
    worker::Worker,
};

pub(crate) const CASES: &[Case] = &[
    case_with("completeness::clang", &[Need::Program("clang++")], || whole("clang", Worker::clang())),
    case_with("completeness::node", &[Need::Program("node")], || generated("node", Worker::node())),
    case_with("completeness::python", &[Need::Program("python3")], || whole("python", Worker::python())),
    case_with("completeness::cpp", &[Need::Program("c++")], || certain("cpp", Worker::cpp())),
    case_with("completeness::rust", &[Need::Program("rustc")], || certain("rust", Worker::rust())),
    case_with("completeness::go", &[Need::Program("go")], go_crosses_to_the_goroutine),
    case_with("completeness::musl", &[Need::Program("musl-gcc")], || musl_ends_below_main("musl", &[])),
    case_with("completeness::static_musl", &[Need::Program("musl-gcc")], || {
        musl_ends_below_main("static musl", &["-static"]);
    }),
    case("completeness::recursion", || certain("recursion", Worker::shape("recursion"))),
    case("completeness::variable", || certain("variable", Worker::shape("variable"))),
    case("completeness::threads", || certain("threads", Worker::shape("threads"))),
    case("completeness::signals", || whole("signals", Worker::shape("signals"))),
    case("completeness::alternate_stack", || whole("alternate stack", Worker::shape("alternate"))),
    case("completeness::coroutines", coroutines),
    case("completeness::interrupted", interrupted),
    case("completeness::too_deep", too_deep),
];

/// Three nines.
const ENOUGH: f64 = 0.999;

/// Prints the rates; the share of stacks whose walk came to its end, and of allocations that `reached` holds for.
fn rates(name: &str, report: &Report, reached: impl Fn(&Site) -> bool) -> (f64, f64) {
    report.assert_nothing_lost();
    let quality = &report.quality;
    let below = report.sum(reached).alloc_objects as f64 / report.totals.alloc_objects as f64;
    let incomplete: Vec<_> = quality.incomplete_stacks.iter().filter(|(_, count)| **count > 0).collect();
    println!(
        "{name}: {} of {} stacks whole, {} cut, incomplete {incomplete:?}; {} guessed frames; {:.3} % of the \
         allocations reach the first function",
        quality.stacks_walked - report.incomplete() - quality.truncated_stacks,
        quality.stacks_walked,
        quality.truncated_stacks,
        quality.guessed_frames,
        below * 100.0
    );
    assert!(quality.stacks_walked >= 100, "too few to tell: {quality:?}");
    (report.complete_share(), below)
}

/// By the walks' own account and by the names at the stacks' ends.
fn measured(name: &str, worker: Worker) -> Report {
    let report = worker.watch();
    let (whole, reached) = rates(name, &report, Site::reaches_the_first_function);
    assert!(whole >= ENOUGH && reached >= ENOUGH, "{whole} {reached} {:?}", report.quality);
    report
}

/// Frames may be guessed.
fn whole(name: &str, worker: Worker) {
    measured(name, worker);
}

/// A stack through code that was generated a moment before ends there, and is counted, until its mapping has been looked
/// at. How many do is a matter of the machine's load; all others are whole.
fn generated(name: &str, worker: Worker) {
    let report = worker.watch();
    let (whole, reached) = rates(name, &report, Site::reaches_the_first_function);
    let late = report.quality.incomplete_stacks["no_mapping"] as f64 / report.quality.stacks_walked as f64;
    assert!(late < 0.1 && whole + late >= ENOUGH && reached >= 0.9, "{whole} {reached} {:?}", report.quality);
}

/// No frame may be guessed.
fn certain(name: &str, worker: Worker) {
    assert_eq!(measured(name, worker).quality.guessed_frames, 0);
}

/// A coroutine's first function is the one that it was made of; it returns to glibc's `__start_context`, whose first
/// byte no call precedes, so that it has no name.
fn coroutines() {
    let report = Worker::shape("coroutines").watch();
    let (whole, reached) =
        rates("coroutines", &report, |site| site.functions().ends_with(&["coroutine", "?"]));
    assert!(whole >= ENOUGH && reached >= ENOUGH, "{whole} {reached}");
    assert_eq!(report.quality.guessed_frames, 0);
}

/// Interrupted at any instruction, of which the tables have only those that call: marked as guesses, most are right.
fn interrupted() {
    let report = Worker::shape("interrupted").watch();
    let (whole, reached) = rates("interrupted", &report, Site::reaches_the_first_function);
    assert!(whole >= 0.98 && reached >= 0.98, "{whole} {reached} {:?}", report.quality);
    let handled = |site: &&Site| site.has("handler");
    let trusted = report.sites.iter().filter(handled).filter(|site| site.is_whole()).count();
    assert_eq!(trusted, 0, "a frame behind a signal is shown as certain");
}

fn too_deep() {
    let report = Worker::shape("too_deep").watch();
    let (whole, reached) = rates("too deep", &report, Site::reaches_the_first_function);
    assert_eq!((whole, reached), (0.0, 0.0));
    assert_eq!(report.quality.truncated_stacks, report.quality.stacks_walked);
    for site in &report.sites {
        assert!(site.functions().last().unwrap().contains("cut at 512 frames"), "{site:#?}");
        assert_eq!(site.return_addresses().len(), 512);
    }
}

/// C that Go called runs on the system thread's stack. The stack goes on at the goroutine's, also below a callback: how
/// many allocations lie below how many callbacks follows from the program.
fn go_crosses_to_the_goroutine() {
    let report = Worker::go().watch();
    let begins = |site: &Site| site.functions().last().is_some_and(|last| last.starts_with("runtime.goexit"));
    let (whole, reached) = rates("go", &report, begins);
    assert!(whole >= ENOUGH && reached >= ENOUGH, "{whole} {reached} {:?}", report.quality);
    let callbacks =
        |site: &Site| site.functions().iter().filter(|function| **function == "main.fromC").count();
    for depth in 0..5 {
        let below = report.sum(|site| site.has("main.work") && begins(site) && callbacks(site) == depth);
        assert_eq!(below.alloc_objects, 2000 / 5 * (5 - depth as u64), "below {depth} callbacks");
    }
}

/// musl describes none of its own frames: the way ends where `main` would return to.
fn musl_ends_below_main(name: &str, flags: &[&str]) {
    let report = Worker::musl(flags).watch();
    rates(name, &report, Site::reaches_the_first_function);
    let ended = report.quality.incomplete_stacks["no_unwind_info"];
    assert_eq!((ended, report.incomplete()), (report.quality.stacks_walked, report.quality.stacks_walked));
    assert_eq!(report.below("main"), report.totals);
}
