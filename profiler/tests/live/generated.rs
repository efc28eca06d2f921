//! Code that a program makes while it runs, as a JIT does.

use std::{fs, process::Command};

use crate::support::{
    case::{Case, case},
    fixture,
    heapscope::Heapscope,
    program::Program,
    report::Site,
    until,
};

pub(crate) const CASES: &[Case] = &[
    case("generated::code_with_frame_pointers", generated_code_with_frame_pointers),
    case("generated::code_without_frame_pointers", generated_code_without_frame_pointers),
    case("generated::thousands_of_executable_mappings", thousands_of_executable_mappings),
];

fn generated() -> (Program, Heapscope) {
    let program = Program::start_until(&mut Command::new(fixture::build("generated.c", &[])), "ready");
    let heapscope = Heapscope::attach(program.pid(), &[]);
    (program, heapscope)
}

/// Waits until heapscope has taken up all that the program has mapped.
fn known(program: &mut Program, heapscope: &Heapscope) {
    heapscope.catch_up(|mark| assert_eq!(program.ask(&format!("map {}", mark.display())), "mapped"));
}

fn generated_code_with_frame_pointers() {
    let (mut program, heapscope) = generated();
    assert_eq!(program.ask("with 1000"), "block");
    assert_eq!(program.ask("again"), "same");
    // Mapped a moment ago: where the walk did not know it yet, the stack ends there.
    known(&mut program, &heapscope);
    assert_eq!(program.ask("named 3000"), "block");
    let map = format!("/tmp/perf-{}.map", program.pid());
    known(&mut program, &heapscope);
    // In the page that is known by now, which is mapped anew.
    assert_eq!(program.ask("again"), "same");
    let report = heapscope.stop();
    let _ = fs::remove_file(map);
    report.assert_nothing_lost();
    let beyond = |site: &&Site| site.has("through");
    for site in report.sites.iter().filter(beyond) {
        assert!(
            site.stack.iter().all(|frame| frame.guessed == (frame.function.as_deref() == Some("through"))),
            "{site:#?}"
        );
        assert!(site.has("main"), "{site:#?}");
    }
    let again = report.sum(|site| site.has("through") && site.has("generated_function"));
    assert!(again.alloc_objects > 0, "{:#?}", report.sites);
}

fn generated_code_without_frame_pointers() {
    let (mut program, heapscope) = generated();
    for _ in 0..5 {
        assert_eq!(program.ask("without 1000"), "block");
    }
    known(&mut program, &heapscope);
    assert_eq!(program.ask("more 1000"), "block");
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let sites: Vec<&Site> = report
        .sites
        .iter()
        .filter(|site| site.totals.alloc_space == 1000 * site.totals.alloc_objects)
        .collect();
    assert!(!sites.is_empty());
    // Once the code is known, the walk goes on through it.
    assert!(sites.iter().any(|site| site.stack.iter().any(|frame| frame.guessed)), "{sites:#?}");
    for site in sites {
        // The step by rbp skips `through`, whose rbp it takes for that of the generated function: a guess.
        let functions = site.functions();
        let incomplete = functions.last().unwrap().starts_with("[stack incomplete");
        assert!(incomplete || site.stack.iter().any(|frame| frame.guessed), "{functions:?}");
        assert!(!site.is_whole(), "{functions:?}");
    }
}

fn thousands_of_executable_mappings() {
    let (mut program, heapscope) = generated();
    assert_eq!(program.ask("regions 5000"), "done");
    until("5,000 mappings", || {
        let maps = fs::read_to_string(format!("/proc/{}/maps", program.pid())).unwrap();
        maps.lines().filter(|line| line.contains(" r-xp ")).count() >= 5000
    });
    known(&mut program, &heapscope);
    // The C library lies above all of them, and is needed for every stack.
    assert_eq!(program.ask("plain 1000"), "block");
    let report = heapscope.stop();
    report.assert_nothing_lost();
    let site = report.sites.iter().find(|site| site.has("plain")).unwrap();
    assert!(site.is_whole(), "{:?}", site.functions());
    let warnings = &report.quality.warnings;
    // Many looks found many of them; the warning is one.
    let mut said = warnings.iter().filter(|warning| warning.contains("executable mappings more"));
    let (Some(said), None) = (said.next(), said.next()) else { panic!("{warnings:?}") };
    let number: u64 = said.split(' ').find_map(|word| word.replace(',', "").parse().ok()).unwrap();
    assert!((2950..3000).contains(&number), "{said}");
}
