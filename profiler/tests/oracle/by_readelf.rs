//! Our rules against the rows that readelf(1) of binutils works out: CFA, return address, rbp and rbx.
//!
//! Of expressions it only says that there is one. LLVM's dumper prints them, but the versions about do not restore the
//! CFA at `DW_CFA_restore_state`, so that half of their rows are wrong.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    rc::Rc,
};

use heapscope::unwind::{Unsupported, rows::rows, words::CfaInWords};
use profiler_common::tables::{Rule, cfa, rbp, rbx};

use crate::{
    compared::Compared,
    every,
    files::{BIAS, Subject, with_tables},
};

pub(crate) const PROGRAM: &str = "readelf";

/// What readelf says of a register: saved at CFA + n (`c-16`), as it was (`s`), by an expression (`exp`), in another
/// register (`r9`). What is undefined and what is not mentioned is `u` alike.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    cfa: String,
    rbp: String,
    rbx: String,
    return_address: String,
}

/// From an address on, up to the next row or the end of its FDE.
struct TheirRow {
    start: u64,
    end: u64,
    state: Rc<State>,
}

/// Reads the rows of `.eh_frame` from lines such as these, in the order of addresses:
///
/// ```text
/// 00000018 0000000000000024 0000001c FDE cie=00000000 pc=0000000000027280..00000000000273c1
///    LOC           CFA      rbx   rbp   ra
/// 0000000000027280 rsp+8    u     u     c-8
/// ```
///
/// An FDE that says nothing is as its CIE, for which only the heading is printed.
fn their_rows(subject: &Subject) -> Vec<TheirRow> {
    let mut child = Command::new(PROGRAM)
        .args(["--wide", "--debug-dump=frames-interp"])
        .arg(&subject.path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut rows, mut initial) = (Vec::<TheirRow>::new(), HashMap::<String, Rc<State>>::new());
    let (mut columns, mut cie, mut end) = (Vec::<String>::new(), String::new(), 0);
    let mut in_eh_frame = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // Another register is printed as `r3 (rbx)`.
        let words: Vec<&str> = line.split_whitespace().filter(|word| !word.starts_with('(')).collect();
        match words[..] {
            ["Contents", ..] => in_eh_frame = line.contains(".eh_frame "),
            _ if !in_eh_frame => {}
            ["LOC", ..] => columns = words.iter().map(|word| (*word).to_owned()).collect(),
            [offset, _, _, "CIE", ..] => (cie, end) = (offset.to_owned(), 0),
            [_, _, _, "FDE", of, range] => {
                let (start, past) = range.strip_prefix("pc=").unwrap().split_once("..").unwrap();
                end = hexadecimal(past);
                // A CIE of signal frames has no row.
                if let Some(state) = initial.get(of.strip_prefix("cie=").unwrap()) {
                    rows.push(TheirRow { start: hexadecimal(start), end, state: Rc::clone(state) });
                }
            }
            [start, _, ..] if words.len() == columns.len() => {
                let of = |name: &str| {
                    columns.iter().position(|column| column == name).map_or("u", |at| words[at]).to_owned()
                };
                let state =
                    State { cfa: of("CFA"), rbp: of("rbp"), rbx: of("rbx"), return_address: of("ra") };
                let state = Rc::new(state);
                if end == 0 {
                    initial.insert(cie.clone(), state);
                } else {
                    rows.push(TheirRow { start: hexadecimal(start), end, state });
                }
            }
            _ => {}
        }
    }
    // The status tells of warnings too, as of debug files that are not there.
    child.wait().unwrap();
    assert!(rows.len() > 100, "readelf printed {} rows", rows.len());
    // Stable: of two rows at one address the later is in force.
    rows.sort_by_key(|row| row.start);
    rows
}

fn hexadecimal(digits: &str) -> u64 {
    u64::from_str_radix(digits, 16).unwrap()
}

/// Compares at the calls that both describe.
pub(crate) fn compare(subject: &Subject) {
    let theirs = their_rows(subject);
    let mut compared = Compared::default();
    let (mut undescribed, mut expressions) = (0, 0);
    with_tables(&rows(&subject.bytes).unwrap(), |tables| {
        for call in subject.calls.iter().step_by(every(subject.calls.len())) {
            let rule = tables.rule_at(BIAS + call).unwrap();
            let after = theirs.partition_point(|row| row.start <= *call);
            let row = after.checked_sub(1).map(|i| &theirs[i]).filter(|row| *call < row.end);
            let Some(TheirRow { state, .. }) = row else {
                if matches!(rule.cfa_kind, cfa::NONE | cfa::END) {
                    undescribed += 1;
                } else {
                    compared.differ(None, || format!("{call:#x}: {rule:?} where they have nothing"));
                }
                continue;
            };
            if agrees(rule, state) {
                expressions += usize::from(state.cfa == "exp");
                compared.agree();
            } else {
                let reason = Unsupported::of(rule).map(|_| "unsupported by us");
                compared.differ(reason, || format!("{call:#x}: {rule:?} and {state:?}"));
            }
        }
    });
    let notes = format!("{undescribed} more are not described, {expressions} by expressions");
    compared.conclude(&format!("readelf, calls of {} ({notes})", subject.name()));
}

/// Whether the two say the same.
fn agrees(rule: Rule, theirs: &State) -> bool {
    if rule.cfa_kind == cfa::END {
        return theirs.return_address == "u";
    }
    let by_expression = matches!(rule.cfa_kind, cfa::RSP_DEREF | cfa::RBP_DEREF | cfa::PLT | cfa::SIGNAL);
    let cfa = if by_expression { "exp".to_owned() } else { CfaInWords(rule).to_string() };
    if rule.cfa_kind == cfa::SIGNAL {
        return theirs.cfa == cfa
            && [&theirs.rbp, &theirs.rbx, &theirs.return_address].iter().all(|r| *r == "exp");
    }
    let rbp_agrees = match rule.rbp_kind {
        rbp::SAME => matches!(theirs.rbp.as_str(), "u" | "s"),
        rbp::AT_CFA => theirs.rbp == format!("c{:+}", rule.rbp_offset),
        rbp::AT_RBP => theirs.rbp == "exp",
        _ => !theirs.rbp.starts_with('c') && theirs.rbp != "s",
    };
    let rbx_agrees = match rule.rbx_kind {
        rbx::SAME => matches!(theirs.rbx.as_str(), "u" | "s"),
        rbx::AT_CFA => theirs.rbx == format!("c{:+}", rule.rbx_offset),
        _ => !theirs.rbx.starts_with('c') && theirs.rbx != "s",
    };
    theirs.cfa == cfa && theirs.return_address == "c-8" && rbp_agrees && rbx_agrees
}
