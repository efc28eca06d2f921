//! Help, completions, the manual page, and wrong usage.

use std::process::Stdio;

use crate::{
    refused,
    support::{
        case::{Case, case},
        heapscope::{Heapscope, Outcome, heapscope},
        program::{Lines, shell_status, wait},
    },
};

pub(crate) const CASES: &[Case] = &[
    case("usage::every_command_has_examples", every_command_has_examples),
    case("usage::wrong_usage_is_status_2", wrong_usage_is_status_2),
    case("usage::what_does_not_go_with_top", what_does_not_go_with_top),
    case("usage::sizes_that_exclude_everything", sizes_that_exclude_everything),
    case("usage::completions_and_manual", completions_and_manual),
    case("usage::a_reader_who_has_seen_enough", a_reader_who_has_seen_enough),
];

fn outcome(arguments: &[&str]) -> Outcome {
    Heapscope::start(&mut heapscope(arguments)).finish()
}

fn every_command_has_examples() {
    let overview = outcome(&["--help"]);
    assert_eq!((overview.status, overview.errors.as_str()), (0, ""));
    assert!(overview.output.contains("Examples:\n  sudo heapscope attach"), "{}", overview.output);
    for command in ["attach", "run", "top", "report", "diff", "doctor", "completions", "man"] {
        assert!(overview.output.contains(&format!("\n  {command} ")), "{command}: {}", overview.output);
        let help = outcome(&[command, "--help"]);
        assert_eq!((help.status, help.errors.as_str()), (0, ""), "{command}");
        assert!(help.output.contains("Examples:\n"), "{command}: {}", help.output);
        assert!(help.output.contains(&format!("heapscope {command}")), "{command}: {}", help.output);
    }
    let version = outcome(&["--version"]);
    assert_eq!(version.output, format!("heapscope {}\n", env!("CARGO_PKG_VERSION")));
}

fn wrong_usage_is_status_2() {
    for arguments in [
        &[][..],
        &["attach"],
        &["attach", "1", "2"],
        &["attach", "1", "--nonsense"],
        &["attach", "1", "-d", "soon"],
        &["attach", "1", "-d", "-5s"],
        &["attach", "1", "--interval", ""],
        &["attach", "1", "--min-size", "many"],
        &["attach", "1", "--max-size", "99999999999999999999"],
        &["attach", "1", "--probes", "magic"],
        &["attach", "1", "--top", "-1"],
        &["run"],
        &["run", "--"],
        &["run", "true"],
        &["top"],
        &["top", "1", "2"],
        &["doctor", "1", "2"],
        &["doctor", "--unwind"],
        &["doctor", "--rows"],
        &["doctor", "--unwind", "/bin/sh", "--rows=some"],
        &["doctor", "1234", "--unwind", "/bin/sh"],
        &["doctor", "--json", "--unwind", "/bin/sh"],
        &["completions", "tclsh"],
    ] {
        let attempt = outcome(arguments);
        assert_eq!((attempt.status, attempt.output.as_str()), (2, ""), "{arguments:?}: {}", attempt.errors);
        assert!(
            attempt.errors.contains("Usage:") || attempt.errors.contains("--help"),
            "{arguments:?}: {}",
            attempt.errors
        );
    }
}

fn what_does_not_go_with_top() {
    for (arguments, advice) in [
        (&["--children"][..], "attach 1 --children"),
        (&["-o", "x.svg"], "the key w"),
        (&["--interval", "5s"], "each second"),
        (&["--min-age", "5s"], "the key a"),
        (&["--at", "peak"], "the present"),
    ] {
        let text = refused(&[&["top", "1"], arguments].concat());
        assert!(text.contains(advice), "{arguments:?}: {text}");
    }
    let text = refused(&["top", "1"]);
    assert!(text.contains("needs a terminal") && text.contains("attach 1 --interval"), "{text}");
}

fn sizes_that_exclude_everything() {
    let text = refused(&["attach", "1", "--min-size", "2KiB", "--max-size", "1KiB"]);
    assert!(text.contains("--min-size 2048") && text.contains("--max-size 1024"), "{text}");
}

fn completions_and_manual() {
    for (shell, mark) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef heapscope"),
        ("fish", "complete -c heapscope"),
        ("elvish", "heapscope"),
    ] {
        let completions = outcome(&["completions", shell]);
        assert_eq!(completions.status, 0);
        assert!(completions.output.contains(mark), "{shell}: {}", completions.output);
        assert!(completions.output.contains("attach") && completions.output.contains("min-size"), "{shell}");
    }
    let manual = outcome(&["man"]);
    assert_eq!(manual.status, 0);
    assert!(manual.output.contains(".TH heapscope 1"), "{}", manual.output);
    assert!(manual.output.contains("attach") && manual.output.contains("Examples"), "{}", manual.output);
}

fn a_reader_who_has_seen_enough() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = heapscope(&["man"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let errors = Lines::of(child.stderr.take().unwrap());
    assert_eq!((shell_status(wait(&mut child)), errors.rest().as_str()), (0, ""));
}
