//! `report` and `diff` on recordings that are at hand, absent, or none: no rights, no process, no kernel is needed.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use crate::{
    refused,
    support::{
        case::{Case, case},
        heapscope::{Heapscope, Outcome, heapscope},
    },
};

pub(crate) const CASES: &[Case] = &[
    case("reports::what_is_no_recording", what_is_no_recording),
    case("reports::what_a_recording_does_not_know", what_a_recording_does_not_know),
    case("reports::every_format_of_an_old_recording", every_format_of_an_old_recording),
    case("reports::a_source_that_is_gone", a_source_that_is_gone),
    case("reports::a_damaged_recording", a_damaged_recording),
];

fn recording() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/version-1.hscope");
    path.to_str().unwrap().to_owned()
}

fn outcome(arguments: &[&str]) -> Outcome {
    let outcome = Heapscope::start(&mut heapscope(arguments)).finish();
    assert_eq!(outcome.status, 0, "{arguments:?}: {}", outcome.errors);
    outcome
}

fn what_is_no_recording() {
    for file in ["/nonexistent.hscope", "/dev/null", "/etc/passwd", "/proc"] {
        let text = refused(&["report", file]);
        assert!(text.contains(file), "{text}");
        let text = refused(&["diff", &recording(), file]);
        assert!(text.contains(file), "{text}");
    }
    assert!(refused(&["report", "/etc/passwd"]).contains("not a recording of heapscope"));
}

fn what_a_recording_does_not_know() {
    let file = recording();
    for (arguments, said) in [
        (&["--by", "type"][..], "types of blocks are not known"),
        (&["--at", "10m"], "its last snapshot is of 5 s"),
        (&["--at", "nowhere"], "neither a time nor a mark: the marks are warm"),
        (&["--between", "start", "nowhere"], "choose from start, after warm-up, end"),
        (&["--annotate", "absent.c"], "--by file"),
        (&["--metric", "peak", "--at", "exit"], "leave out --at"),
        (&["-o", "x.txt"], ".svg"),
    ] {
        let text = refused(&[&["report", &file], arguments].concat());
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    assert!(refused(&["diff", &file, &file, "--by", "thread"]).contains("--by"));
    assert!(refused(&["diff", &file, &file, "-o", "x.pb.gz"]).contains(".svg, .folded or .json"));
}

fn every_format_of_an_old_recording() {
    let folder = TempDir::new().unwrap();
    let endings = [
        "svg",
        "html",
        "folded",
        "json",
        "pb.gz",
        "speedscope.json",
        "firefox.json",
        "heaptrack.gz",
        "dhat.json",
        "csv",
        "hscope",
    ];
    let paths = endings.map(|ending| folder.path().join(format!("x.{ending}")));
    let file = recording();
    let mut arguments = vec!["report", &file];
    for path in &paths {
        arguments.extend(["-o", path.to_str().unwrap()]);
    }
    let printed = outcome(&arguments).output;
    assert_eq!(printed.lines().filter(|line| line.starts_with("wrote ")).count(), endings.len(), "{printed}");
    assert!(paths.iter().all(|path| fs::metadata(path).unwrap().len() > 100));
    let copy = paths.last().unwrap().to_str().unwrap();
    let table = |file: &str| outcome(&["report", file]).output;
    assert_eq!(table(copy), table(&file), "a recording of a recording");
}

fn a_source_that_is_gone() {
    let printed = outcome(&["report", &recording(), "--annotate", "srv_shop.c"]).output;
    assert!(printed.starts_with("warning: the source /build/src/srv_shop.c cannot be read"), "{printed}");
    assert!(printed.contains("--source FILE") && printed.contains("9.0 MiB"), "{printed}");
    let folder = TempDir::new().unwrap();
    let source = folder.path().join("shop.c");
    fs::write(&source, "int shop;\n").unwrap();
    let source = source.to_str().unwrap();
    let printed = outcome(&["report", &recording(), "--annotate", "srv_shop.c", "--source", source]).output;
    assert!(
        printed.contains("was changed after the recording") && printed.contains("int shop;"),
        "{printed}"
    );
}

fn a_damaged_recording() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("cut.hscope");
    let whole = fs::read(recording()).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let file = path.to_str().unwrap();
    let Outcome { output, errors, .. } = outcome(&["report", file]);
    assert!(errors.contains(file) && errors.contains("is damaged"), "{errors}");
    assert!(output.contains("warning: The recording is damaged"), "{output}");
}
