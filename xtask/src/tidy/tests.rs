//! Each rule with code that breaks it, and with its nearest neighbours that do not.

use super::examine;

const BLOCKS: &str = "profiler/src/ledger/blocks.rs";
const REPORT: &str = "profiler/src/report/svg.rs";
const PROBE: &str = "profiler/src/probe/plan.rs";

/// What tidy says of a file with this text below a proper first line, as `line: what` with line 1 after that one.
fn found(file: &str, text: &str) -> Vec<String> {
    let findings = examine(file, &format!("//! Why.\n{text}"));
    findings.iter().map(|f| format!("{}: {}", f.line - 1, f.what)).collect()
}

#[track_caller]
fn breaks(file: &str, text: &str, what: &str) {
    let found = found(file, text);
    assert!(found.len() == 1 && found[0].contains(what), "{text}\ngives {found:?}");
}

#[track_caller]
fn holds(file: &str, text: &str) {
    assert_eq!(found(file, text), Vec::<String>::new(), "{text}");
}

#[test]
fn a_finding_has_a_place_that_editors_understand() {
    let findings = examine(BLOCKS, "fn f() {}\n");
    assert_eq!(
        findings[0].to_string(),
        "profiler/src/ledger/blocks.rs:1: opens without `//!`: say why the file exists"
    );
    assert_eq!(findings.len(), 1);
}

#[test]
fn first_line() {
    assert_eq!(examine(BLOCKS, "//! Why.\n"), []);
    assert_eq!(examine(BLOCKS, "\n//! Why.\n").len(), 1);
    assert_eq!(examine("profiler/tests/live.rs", "/// Not the file's.\nfn f() {}\n").len(), 1);
}

#[test]
fn file_length() {
    holds(BLOCKS, &"\n".repeat(399));
    breaks(BLOCKS, &"\n".repeat(400), "401 lines, 400 are allowed");
}

#[test]
fn damaged_source_is_a_finding() {
    breaks(BLOCKS, "fn f( {}", "does not parse");
}

#[test]
fn layers_downward_only() {
    holds(REPORT, "use crate::symbolize::frame::Frame;\nuse crate::report::profile::Profile;");
    holds(REPORT, "use crate::ledger::estimate::Variance;");
    breaks(
        REPORT,
        "use crate::probe::Probe;",
        "1: `report` names `probe`: it may import only ledger, symbolize",
    );
    breaks("profiler/src/symbolize/mod.rs", "use crate::ledger::Site;", "`symbolize` names `ledger`");
    breaks(REPORT, "use crate::target::Process;", "`report` names `target`");
    breaks("profiler/src/sys/bpf.rs", "use crate::target::Process;", "`sys` names `target`");
    breaks("profiler/src/target/mod.rs", "use crate::unwind::Rows;", "may import only sys");
    breaks(PROBE, "use crate::session::Session;", "`probe` names `session`");
    breaks(PROBE, "use crate::ledger::Ledger;", "`probe` names `ledger`");
    holds(PROBE, "use crate::{unwind::Rows, target::address::Avma, sys};");
    holds("profiler/src/session/mod.rs", "use crate::{ledger, probe, report, target};");
    breaks("profiler/src/session/mod.rs", "use crate::cli::Flags;", "`session` names `cli`");
    holds("profiler/src/cli/mod.rs", "use crate::session;");
}

#[test]
fn layers_hold_in_every_way_to_name_a_module() {
    breaks(REPORT, "\nuse crate::{\n    symbolize::frame,\n    target::module::Module,\n};", "4: `report`");
    breaks(REPORT, "use crate::target as innocent;", "`target`");
    breaks(REPORT, "use crate::target::*;", "`target`");
    breaks(REPORT, "fn f() -> crate::target::address::Avma { todo() }", "`target`");
    breaks(REPORT, "fn f() {\n    let x = crate::sys::page_size();\n}", "2: `report` names `sys`");
    breaks(REPORT, "fn f() { println!(\"{}\", crate::sys::page_size()); }", "`sys`");
    breaks(REPORT, "macro_rules! m { () => { $crate::sys::page_size() }; }", "`sys`");
    breaks(REPORT, "use super::super::sys;", "`sys`");
    breaks(REPORT, "mod tests { use super::super::super::sys; }", "`sys`");
    breaks(REPORT, "pub(in crate::session) fn f() {}", "`session`");
    breaks(REPORT, "use crate::*;", "the crate's root");
    breaks(REPORT, "use crate as everything;", "the crate's root");
    breaks(REPORT, "use crate::helpers::x;", "`crate::helpers` is not in the layer table");
    holds(REPORT, "mod tests { use super::*; use super::super::profile::Profile; }");
    holds(REPORT, "/// Not an import: [`crate::target`].\nfn f() -> &'static str { \"crate::target::x\" }");
}

#[test]
fn a_module_outside_the_table() {
    breaks("profiler/src/helpers.rs", "", "`helpers` is not in the layer table");
    breaks("profiler/src/helpers/mod.rs", "", "`helpers` is not in the layer table");
    holds("profiler/src/lib.rs", "pub mod ledger;\npub use crate::ledger::Ledger;");
}

#[test]
fn aya_and_clap_have_one_home() {
    breaks(PROBE, "use aya::maps::HashMap;", "`aya` is named only in profiler/src/probe/ebpf");
    breaks(PROBE, "fn f(x: ::aya_obj::Object) {}", "`aya_obj` is named only");
    holds("profiler/src/probe/ebpf/maps.rs", "use aya::maps::HashMap;");
    holds("profiler/src/probe/ebpf.rs", "use aya::maps::HashMap;");
    breaks("profiler/src/probe/ebpf_like.rs", "use aya::maps::HashMap;", "`aya`");
    breaks("profiler/src/session/mod.rs", "#[derive(clap::Parser)]\nstruct A;", "1: `clap` is named only");
    holds("profiler/src/cli/attach.rs", "use clap::Parser;");
    holds("profiler/build.rs", "use clap::Parser;");
}

#[test]
fn the_ledger_sees_numbers_only() {
    holds(
        BLOCKS,
        "use std::{collections::HashMap, time::Duration};\nuse profiler_common::records::LiveBlock;",
    );
    breaks(
        BLOCKS,
        "use crate::target::address::Avma;",
        "`ledger` names `target`: it may import no other layer",
    );
    breaks(BLOCKS, "use std::fs;", "the ledger never sees `std::fs`");
    breaks(BLOCKS, "use std::time::{Duration, Instant};", "`std::time::Instant`");
    breaks(BLOCKS, "use std::time;", "`std::time::Instant`");
    breaks(BLOCKS, "fn f() { let t = std::time::SystemTime::now(); }", "`std::time::SystemTime`");
    breaks(BLOCKS, "use nix::unistd::Pid;", "`nix`");
    holds(REPORT, "use std::time::SystemTime;\nuse std::io::Write;");
}

#[test]
fn unsafe_has_one_home() {
    let what = "`unsafe` stands only in profiler/src/sys";
    breaks(PROBE, "fn f() {\n    unsafe { g() }\n}", "2: `unsafe`");
    breaks(PROBE, "unsafe impl Send for X {}", what);
    breaks(PROBE, "unsafe extern \"C\" {}", what);
    breaks(PROBE, "#[unsafe(no_mangle)]\nfn f() {}", what);
    breaks(PROBE, "macro_rules! m { () => { unsafe { g() } }; }", what);
    breaks("profiler/tests/live.rs", "fn f() { unsafe { g() } }", what);
    breaks("xtask/src/main.rs", "fn f() { unsafe { g() } }", what);
    holds("profiler/src/sys/bpf.rs", "fn f() { unsafe { g() } }");
    holds("profiler-ebpf/src/main.rs", "fn f() { unsafe { g() } }");
    holds(PROBE, "// unsafe\nconst S: &str = \"unsafe\";");
}
