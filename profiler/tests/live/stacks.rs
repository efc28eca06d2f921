//! Whole stacks and true names: without frame pointers, through every kind of frame, and honest where that ends.

use std::fs;

use crate::{
    script::Script,
    support::{
        case::{Case, case, case_with},
        fixture,
        heapscope::Heapscope,
        needs::Need,
        program::Program,
        report::{Report, Totals},
    },
};

pub(crate) const CASES: &[Case] = &[
    case("stacks::frames_and_lines_are_named", frames_and_lines_are_named),
    case("stacks::four_hundred_frames_are_whole", four_hundred_frames_are_whole),
    case("stacks::seven_hundred_frames_are_cut_and_counted", seven_hundred_frames_are_cut_and_counted),
    case("stacks::frames_of_unknown_size", frames_of_unknown_size),
    case("stacks::behind_a_signal_everything_is_a_guess", behind_a_signal_everything_is_a_guess),
    case("stacks::below_a_lazy_binding", below_a_lazy_binding),
    case("stacks::a_library_loaded_later_is_taken_up", a_library_loaded_later_is_taken_up),
    case_with("stacks::new_and_delete", &[Need::Program("c++")], new_and_delete),
    case_with("stacks::exceptions_and_inlining", &[Need::Program("c++")], exceptions_and_inlining),
];

fn frames_and_lines_are_named() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&["blue malloc 1 100"]);
    let report = heapscope.stop();
    script.assert_account(&report);
    let site = &report.sites[0];
    // `chosen` is inlined into `call`: its frame is known from DWARF only.
    assert_eq!(site.functions()[..4], ["chosen", "call", "green", "blue"]);
    assert!(site.allocator.contains("libc") || site.allocator.contains("glibc"), "{}", site.allocator);
    let program = report.target.exe.clone();
    // The line of each is that of the call, not of what follows it.
    let source = fs::read_to_string(fixture::source("calls.c")).unwrap();
    let lines: Vec<&str> = source.lines().collect();
    let calls = ["return malloc(a);", "= chosen(order, old);", "= call(order, old);", "= green(order, old);"];
    for (frame, call) in site.stack.iter().zip(calls) {
        assert!(frame.file.as_deref().is_some_and(|file| file.ends_with("calls.c")), "{frame:?}");
        let line = lines[frame.line.unwrap() as usize - 1];
        assert!(line.contains(call), "{frame:?}: {line}");
        let module = frame.module.as_deref().unwrap();
        assert!(program.ends_with(module) || module.ends_with(&program), "{module} {program}");
    }
    assert!(site.has("main"));
    report.assert_stacks_whole();
}

fn deep(frames: usize) -> (Script, Report) {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.orders(&[&format!("deep{frames} malloc 1 100")]);
    let report = heapscope.stop();
    script.assert_account(&report);
    (script, report)
}

fn four_hundred_frames_are_whole() {
    let (_, report) = deep(400);
    report.assert_stacks_whole();
    let functions = report.sites[0].functions();
    assert_eq!(functions.iter().filter(|function| **function == "deep").count(), 400);
    assert!(functions.contains(&"main"));
}

fn seven_hundred_frames_are_cut_and_counted() {
    let (_, report) = deep(700);
    assert_eq!((report.quality.truncated_stacks, report.incomplete()), (1, 0));
    let functions = report.sites[0].functions();
    // 512 frames, one of which was inlined into another, and the note.
    assert_eq!(functions.len(), 512 + 1 + 1, "{functions:?}");
    assert_eq!(functions.iter().filter(|function| **function == "deep").count(), 511);
    assert!(functions.last().unwrap().contains("cut at 512 frames"), "{functions:?}");
}

fn frames_of_unknown_size() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    for size in [100, 700, 1500, 2999] {
        script
            .orders(&[&format!("variable malloc {size} {size}"), &format!("aligned malloc 1{size} {size}")]);
        script.free(size);
    }
    let report = heapscope.stop();
    script.assert_account(&report);
    report.assert_stacks_whole();
    assert!(report.sites.iter().all(|site| site.has("main")));
}

fn behind_a_signal_everything_is_a_guess() {
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.program.say("signal red malloc 1 4321");
    assert_eq!(script.program.hear(), "done");
    let report = heapscope.stop();
    report.assert_nothing_lost();
    assert_eq!(
        report.totals,
        Totals { inuse_space: 4321, inuse_objects: 1, alloc_space: 4321, alloc_objects: 1 }
    );
    let site = &report.sites[0];
    let functions = site.functions();
    let handler = functions.iter().position(|function| *function == "handler").unwrap();
    assert!(site.stack[..=handler].iter().all(|frame| !frame.guessed), "{site:#?}");
    // The trampoline that the handler returns to, then what was interrupted.
    let interrupted = &site.stack[handler + 2..];
    assert!(!interrupted.is_empty() && interrupted.iter().all(|frame| frame.guessed), "{site:#?}");
    assert!(report.quality.guessed_frames > 0);
}

fn below_a_lazy_binding() {
    let library = fixture::build("lazy_library.c", &["-shared", "-fPIC"]);
    let program = fixture::build("lazy.c", &["-Wl,-z,lazy,--no-as-needed", library.to_str().unwrap()]);
    let mut program = Program::start_until(&mut std::process::Command::new(program), "ready");
    let heapscope = Heapscope::attach(program.pid(), &[]);
    assert_eq!(program.ask("41"), "42");
    let report = heapscope.stop();
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    let [site] = &report.sites[..] else { panic!("{:#?}", report.sites) };
    assert_eq!(site.totals.inuse_space, 4711);
    let functions = site.functions();
    // Between them the dynamic loader, which may come without symbols.
    assert_eq!(functions[..2], ["resolver_inside", "resolver"]);
    let caller = functions.iter().position(|function| *function == "first_call").unwrap();
    assert!(caller >= 4, "{functions:?}");
    assert_eq!(functions[caller + 1], "main");
}

fn a_library_loaded_later_is_taken_up() {
    let library = fixture::build("plugin.c", &["-shared", "-fPIC"]);
    let mut script = Script::start();
    let heapscope = Heapscope::attach(script.pid(), &[]);
    script.watched();
    script.load_plugin(&library);
    // At once: the block is counted whether its stack can be walked yet or not.
    assert_eq!(script.program.ask("red plugin 1 123457"), "block");
    // The promise is that a second is enough: this is a test of time.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    for slot in 10..20 {
        script.orders(&[&format!("blue plugin {slot} 77")]);
    }
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let at_once = report.sum(|site| site.totals.alloc_space == 123_457);
    assert_eq!(at_once.inuse_objects, 1);
    let late =
        report.sum(|site| site.has("blue") && site.is_whole() && site.functions()[0] == "plugin_inside");
    assert_eq!(late, script.expected("blue"));
    assert!(report.incomplete() <= 1);
}

/// Starts a C++ fixture, lets it work under heapscope; its answer and the report.
fn watch_cpp(source: &str, flags: &[&str]) -> (String, Report) {
    let mut program =
        Program::start_until(&mut std::process::Command::new(fixture::build(source, flags)), "ready");
    let heapscope = Heapscope::attach(program.pid(), &[]);
    let answer = program.ask("go");
    let report = heapscope.stop();
    program.close_input();
    assert!(program.wait().success());
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    (answer, report)
}

fn new_and_delete() {
    let (_, report) = watch_cpp("forms.cpp", &["-std=c++17"]);
    // The virtual table's pointer and the padding are part of Big.
    for (function, size, live, count) in [
        ("void shop::keep<shop::Big>(int)", 1008, 11, 11),
        ("void shop::keep<shop::Wide>(int)", 128, 12, 12),
        ("shop::keep_arrays(int)", 500, 13, 13),
        ("shop::keep_nothrow(int)", 300, 14, 14),
    ] {
        let expected = Totals {
            inuse_space: size * live,
            inuse_objects: live,
            alloc_space: size * count,
            alloc_objects: count,
        };
        assert_eq!(report.below(function), expected, "{function}");
    }
    let churned = report.below("shop::churn(int)");
    let expected =
        Totals { alloc_space: 15 * (1008 + 500 + 128 + 10), alloc_objects: 15 * 4, ..Totals::default() };
    assert_eq!(churned, expected);
    assert_eq!(report.quality.failed_allocations, 32);
    // Exceptions are allocated too, and are all gone.
    let exceptions = report.below("__cxa_allocate_exception");
    // libstdc++'s forms that do not throw are made of those that do.
    assert!([16, 32].contains(&exceptions.alloc_objects), "{exceptions:?}");
    assert_eq!(exceptions.inuse_objects, 0);
    // The caller of operator new is in its place.
    let arrays = report.sites.iter().find(|site| site.has("shop::keep_arrays(int)")).unwrap().functions();
    let caller = arrays.iter().position(|function| *function == "shop::keep_arrays(int)").unwrap();
    assert!(
        caller > 0 && arrays[..caller].iter().all(|function| function.contains("operator new")),
        "{arrays:?}"
    );
    assert_eq!(arrays[caller + 1], "main");
}

fn exceptions_and_inlining() {
    let (answer, report) = watch_cpp("throwing.cpp", &["-O3", "-std=c++17"]);
    let numbers: Vec<u64> = answer.split(' ').map(|number| number.parse().unwrap()).collect();
    let [inuse_space, inuse_objects, alloc_space, alloc_objects, thrown] = numbers[..] else {
        panic!("{answer}")
    };
    assert_eq!(thrown, 300);
    let containers = report.sum(|site| !site.has("__cxa_allocate_exception"));
    assert_eq!(containers, Totals { inuse_space, inuse_objects, alloc_space, alloc_objects });
    let exceptions = report.below("__cxa_allocate_exception");
    assert_eq!((exceptions.alloc_objects, exceptions.inuse_objects), (300, 0));
    assert!(report.sites.iter().all(|site| site.has("main")));
}
