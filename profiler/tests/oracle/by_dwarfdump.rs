//! Our rules against the rows that LLVM's dumper prints: CFA, return address, rbp and rbx, expressions included.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use heapscope::unwind::{Unsupported, rows::rows};
use profiler_common::tables::{Rule, cfa, rbp, rbx};

use crate::{
    compared::Compared,
    every,
    files::{BIAS, Subject, with_tables},
};

pub(crate) const PROGRAM: &str = "llvm-dwarfdump";

/// A row as it is printed: `CFA=RSP+16: RBX=[CFA-16], RIP=[CFA-8]`.
struct TheirRow {
    start: u64,
    /// End of its FDE.
    end: u64,
    text: String,
}

impl TheirRow {
    fn cfa(&self) -> &str {
        self.text.split(": ").next().unwrap().trim_start_matches("CFA=")
    }

    /// Where the row says that a register is saved. An expression stands in brackets.
    fn register(&self, name: &str) -> Option<&str> {
        let (_, registers) = self.text.split_once(": ")?;
        let (_, place) = registers.split_once(&format!("{name}="))?;
        let end = if place.starts_with('[') {
            place.find(']')? + 1
        } else {
            place.find(',').unwrap_or(place.len())
        };
        place.get(..end)
    }
}

/// Reads the rows of `.eh_frame`, in the order of addresses.
fn their_rows(subject: &Subject) -> Vec<TheirRow> {
    let mut child =
        Command::new(PROGRAM).arg("--eh-frame").arg(&subject.path).stdout(Stdio::piped()).spawn().unwrap();
    let (mut rows, mut end) = (Vec::<TheirRow>::new(), 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, range)) = line.split_once(" FDE ").and_then(|(_, fde)| fde.split_once("pc=")) {
            end = hexadecimal(range.split_once("...").unwrap().1);
        } else if let Some((start, text)) = line.strip_prefix("  0x").and_then(|row| row.split_once(": ")) {
            rows.push(TheirRow { start: hexadecimal(start), end, text: text.to_owned() });
        }
    }
    assert!(child.wait().unwrap().success());
    // Stable: of two rows at one address the later is in force.
    rows.sort_by_key(|row| row.start);
    rows
}

fn hexadecimal(digits: &str) -> u64 {
    u64::from_str_radix(digits.trim(), 16).unwrap()
}

/// Compares at the calls that both describe.
pub(crate) fn compare(subject: &Subject) {
    let theirs = their_rows(subject);
    let mut compared = Compared::default();
    let mut undescribed = 0;
    with_tables(&rows(&subject.bytes).unwrap(), |tables| {
        for call in subject.calls.iter().step_by(every(subject.calls.len())) {
            let rule = tables.rule_at(BIAS + call).unwrap();
            let after = theirs.partition_point(|row| row.start <= *call);
            let row = after.checked_sub(1).map(|i| &theirs[i]).filter(|row| *call < row.end);
            let row = match row {
                Some(row) => row,
                None if matches!(rule.cfa_kind, cfa::NONE | cfa::END) => {
                    undescribed += 1;
                    continue;
                }
                None => {
                    compared.differ(None, || format!("{call:#x}: {rule:?} where they have nothing"));
                    continue;
                }
            };
            if agrees(rule, row) {
                compared.agree();
            } else {
                let reason = Unsupported::of(rule).map(|_| "unsupported by us");
                compared.differ(reason, || format!("{call:#x}: {rule:?} and {}", row.text));
            }
        }
    });
    compared.conclude(&format!("dwarfdump, calls of {} ({undescribed} undescribed)", subject.name()));
}

/// Whether the row says what the rule says.
fn agrees(rule: Rule, row: &TheirRow) -> bool {
    let offset = rule.cfa_offset;
    let plus = if rule.cfa_addend == 0 {
        String::new()
    } else {
        format!(", DW_OP_plus_uconst {:#x}", rule.cfa_addend)
    };
    let (cfa, return_address) = match rule.cfa_kind {
        cfa::END => return row.register("RIP") == Some("undefined"),
        cfa::RSP => (format!("RSP{offset:+}"), "[CFA-8]"),
        cfa::RBP => (format!("RBP{offset:+}"), "[CFA-8]"),
        cfa::RBX => (format!("RBX{offset:+}"), "[CFA-8]"),
        cfa::RSP_DEREF => (format!("DW_OP_breg7 RSP{offset:+}, DW_OP_deref{plus}"), "[CFA-8]"),
        cfa::RBP_DEREF => (format!("DW_OP_breg6 RBP{offset:+}, DW_OP_deref{plus}"), "[CFA-8]"),
        cfa::PLT => {
            let pushed = format!("DW_OP_lit15, DW_OP_and, DW_OP_lit{}, DW_OP_ge", rule.cfa_addend);
            let rip = "DW_OP_breg16 RIP+0";
            (
                format!("DW_OP_breg7 RSP{offset:+}, {rip}, {pushed}, DW_OP_lit3, DW_OP_shl, DW_OP_plus"),
                "[CFA-8]",
            )
        }
        cfa::SIGNAL => {
            return row.cfa() == "DW_OP_breg7 RSP+160, DW_OP_deref"
                && row.register("RIP") == Some("[DW_OP_breg7 RSP+168]")
                && row.register("RBP") == Some("[DW_OP_breg7 RSP+120]")
                && row.register("RBX") == Some("[DW_OP_breg7 RSP+128]");
        }
        _ => return false,
    };
    let saved = |offset: i16| if offset == 0 { "[CFA]".to_owned() } else { format!("[CFA{offset:+}]") };
    let at_rbp = format!("[DW_OP_breg6 RBP{:+}]", rule.rbp_offset);
    let their_rbp = row.register("RBP");
    let rbp_agrees = match rule.rbp_kind {
        rbp::SAME => matches!(their_rbp, None | Some("same")),
        rbp::AT_CFA => their_rbp == Some(&saved(rule.rbp_offset)),
        rbp::AT_RBP => their_rbp == Some(&at_rbp),
        _ => their_rbp.is_some_and(|place| !place.starts_with("[CFA") && place != at_rbp && place != "same"),
    };
    let their_rbx = row.register("RBX");
    let rbx_agrees = match rule.rbx_kind {
        rbx::SAME => matches!(their_rbx, None | Some("same")),
        rbx::AT_CFA => their_rbx == Some(&saved(rule.rbx_offset)),
        _ => their_rbx.is_some_and(|place| !place.starts_with("[CFA") && place != "same"),
    };
    row.cfa() == cfa && row.register("RIP") == Some(return_address) && rbp_agrees && rbx_agrees
}
