//! Reports that cannot be written are refused before anything is traced: there may be no second chance to look.

use std::{
    fs,
    process::{Command, Stdio},
};

use heapscope::report::format::Format;
use tempfile::TempDir;

use crate::{
    refusal_of, refused,
    support::{
        case::{Case, case, case_with},
        fixture,
        heapscope::heapscope,
        needs::Need,
        program::Program,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("outputs::formats_that_are_not_written", formats_that_are_not_written),
    case("outputs::standard_output_is_for_one", standard_output_is_for_one),
    case_with(
        "outputs::places_that_cannot_be_written",
        &[Need::Program("cc")],
        places_that_cannot_be_written,
    ),
    case("outputs::the_program_is_not_started_in_vain", the_program_is_not_started_in_vain),
    case_with(
        "outputs::an_older_report_survives_a_failure",
        &[Need::Program("cc")],
        an_older_report_survives_a_failure,
    ),
];

fn formats_that_are_not_written() {
    let own = std::process::id().to_string();
    for name in ["x.pb", "x.txt", "x", "svg", "-"] {
        let text = refused(&["attach", &own, "-o", name]);
        assert!(text.contains(name), "{name}: {text}");
        for format in Format::ALL.map(Format::ending) {
            assert!(text.contains(format), "{name}: {format} is not offered: {text}");
        }
    }
    for name in ["pb", "xml"] {
        let text = refused(&["attach", &own, "-o", "-", "--format", name]);
        assert!(text.contains(name) && text.contains("folded"), "{text}");
    }
}

fn standard_output_is_for_one() {
    let text = refused(&["attach", "1", "--format", "json", "-o", "-", "-o", "-"]);
    assert!(text.contains("standard output"), "{text}");
}

fn places_that_cannot_be_written() {
    let target = Program::start_until(&mut Command::new(fixture::calls()), "ready");
    let pid = target.pid().to_string();
    let folder = TempDir::with_suffix(".svg").unwrap();
    for place in ["/nonexistent/dir/x.svg", "/proc/x.svg", folder.path().to_str().unwrap()] {
        let text = refused(&["attach", &pid, "-o", "fine.json", "-o", place]);
        assert!(text.contains(place) && text.contains("--output"), "{text}");
    }
}

fn the_program_is_not_started_in_vain() {
    let folder = TempDir::new().unwrap();
    let mark = folder.path().join("mark");
    for output in ["/nonexistent/dir/x.svg", "x.txt"] {
        let mut command = heapscope(&["run", "-o", output, "--", "touch"]);
        let text = refusal_of(command.arg(&mark).stdin(Stdio::null()));
        assert!(text.contains(output), "{text}");
        assert!(!mark.exists(), "the program ran");
    }
}

fn an_older_report_survives_a_failure() {
    let folder = TempDir::new().unwrap();
    let report = folder.path().join("last-week.svg");
    fs::write(&report, "<svg/>").unwrap();
    let program = fixture::build("calls.c", &["-static", "-s", "-Wl,-w"]);
    let target = Program::start_until(&mut Command::new(program), "ready");
    let text = refused(&["attach", &target.pid().to_string(), "-o", report.to_str().unwrap()]);
    assert!(text.contains("static program without symbols"), "{text}");
    assert_eq!(fs::read_to_string(report).unwrap(), "<svg/>");
}
