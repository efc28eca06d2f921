//! What `heapscope doctor --unwind` says of files, and how it refuses what is none.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::{
    refused,
    support::{
        case::{Case, case, case_with},
        fixture,
        heapscope::{Heapscope, Outcome, heapscope},
        needs::{Need, library},
    },
};

pub(crate) const CASES: &[Case] = &[
    case_with("doctor::a_program_and_its_rows", &[Need::Program("cc")], a_program_and_its_rows),
    case_with(
        "doctor::text_without_unwind_information",
        &[Need::Program("cc")],
        text_without_unwind_information,
    ),
    case_with(
        "doctor::compressed_debug_sections",
        &[Need::Program("cc"), Need::Program("objcopy")],
        compressed_debug_sections,
    ),
    case_with("doctor::what_is_not_supported_is_named", &[Need::Library("libc.so.6")], what_is_not_supported),
    case("doctor::several_files_are_one_process", several_files_are_one_process),
    case("doctor::what_is_no_file", what_is_no_file),
];

fn doctor(arguments: &[&str]) -> Outcome {
    Heapscope::start(heapscope(&["doctor", "--unwind"]).args(arguments)).finish()
}

/// What stands behind a word at the beginning of a line.
fn line<'a>(output: &'a str, word: &str) -> &'a str {
    let found = output.lines().find_map(|line| line.trim_start().strip_prefix(word));
    found.unwrap_or_else(|| panic!("no {word}: {output}")).trim()
}

/// The number before a word.
fn number(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap().trim_end();
    before
        .rsplit([' ', '('])
        .next()
        .unwrap()
        .replace(',', "")
        .parse()
        .unwrap_or_else(|_| panic!("{word}: {text}"))
}

fn a_program_and_its_rows() {
    let program = fixture::calls();
    let program = program.to_str().unwrap();
    let outcome = doctor(&[program, "--rows"]);
    let output = outcome.output;
    assert_eq!((outcome.status, outcome.errors.as_str()), (0, ""));
    assert!(output.starts_with(&format!("{program}\n  text ")), "{output}");
    let rows = line(&output, "rows ");
    let (kept, raw) = (number(rows, " kept"), number(rows, ", "));
    assert!(kept * 2 < raw, "{rows}");
    assert!(line(&output, "FDEs ").ends_with("; none left out"), "{output}");
    assert!(line(&output, "together ").starts_with("1 table, 1 chunk of rows, "), "{output}");
    // _start has a caller according to nobody; main's frame is found by rsp or rbp.
    let listed =
        |output: &str| output.lines().filter(|line| line.trim_start().starts_with("0x0")).count() as u64;
    assert_eq!(listed(&output), kept);
    assert!(output.contains("  end of stack              -\n"), "{output}");
    assert!(output.contains("  rsp+16 ") && output.contains("  not described             -\n"), "{output}");
    let all = doctor(&[program, "--rows=all"]).output;
    // Equal neighbours are one row, and undescribed text has rows too.
    assert!(listed(&all) > kept * 2 && listed(&all) <= raw * 2, "{all}");
}

fn text_without_unwind_information() {
    let flags = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-g0"];
    let program = fixture::build("calls.c", &flags);
    let output = doctor(&[program.to_str().unwrap()]).output;
    let undescribed = &output[output.find("  undescribed").unwrap()..];
    // The functions of the fixture lie side by side.
    assert!(undescribed.contains(" green") || undescribed.contains(" main"), "{output}");
    assert!(!line(&output, "text ").contains(" 0.0% not although"), "{output}");
}

fn compressed_debug_sections() {
    let flags = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
    let program = fixture::build("calls.c", &flags);
    let rows = |path: &str| {
        let output = doctor(&[path, "--rows=all"]).output;
        let rows: Vec<String> =
            output.lines().filter(|l| l.starts_with("  0x0")).map(str::to_owned).collect();
        rows
    };
    let plain = rows(program.to_str().unwrap());
    let without = rows(fixture::build("calls.c", &[&flags[..], &["-g0"]].concat()).to_str().unwrap());
    assert!(plain.len() > without.len() + 20, ".debug_frame was not read: {plain:#?}");
    let folder = TempDir::new().unwrap();
    for form in ["zlib-gabi", "zlib-gnu", "zstd"] {
        let packed = folder.path().join(form);
        let flag = format!("--compress-debug-sections={form}");
        let done = Command::new("objcopy").arg(flag).args([&program, &packed]).output().unwrap();
        if !done.status.success() {
            // binutils may be built without zstd.
            assert_eq!(form, "zstd", "{done:?}");
            continue;
        }
        let before = fs::metadata(&program).unwrap().len();
        assert!(fs::metadata(&packed).unwrap().len() < before, "{form}: nothing was compressed");
        assert_eq!(rows(packed.to_str().unwrap()), plain, "{form}");
    }
}

fn what_is_not_supported() {
    let libc = library("libc.so.6").unwrap();
    let output = doctor(&[&libc]).output;
    let reason = "return address elsewhere than at CFA - 8: ";
    let functions = output.lines().find_map(|line| line.split_once(reason)).unwrap().1;
    assert!(functions.contains("vfork"), "{output}");
    assert!(line(&output, "CFA by ").contains("signal frame 1"), "{output}");
}

fn several_files_are_one_process() {
    let own = env!("CARGO_BIN_EXE_heapscope");
    let folder = TempDir::new().unwrap();
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    let both = doctor(&[own, own]);
    assert_eq!(both.status, 0);
    assert!(line(&both.output, "together ").starts_with("2 tables, "), "{}", both.output);
    let one_bad = doctor(&[own, empty.to_str().unwrap()]);
    assert_eq!(one_bad.status, 1, "{}", one_bad.output);
    assert!(
        line(&one_bad.output, "no table ").contains("not a readable 64-bit ELF file"),
        "{}",
        one_bad.output
    );
    assert!(line(&one_bad.output, "together ").starts_with("1 table, "), "{}", one_bad.output);
}

fn what_is_no_file() {
    for (path, reason) in [
        ("/nonexistent/program", "No such file"),
        ("/dev/zero", "not a regular file"),
        ("/", "not a regular file"),
    ] {
        let text = refused(&["doctor", "--unwind", path]);
        assert!(text.starts_with(&format!("--unwind {path}: ")) && text.contains(reason), "{text}");
    }
}
