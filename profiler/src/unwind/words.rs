//! Rules in words, as `readelf --debug-dump=frames-interp` has them where it has any.

use std::fmt;

use profiler_common::tables::{Rule, cfa, rbp};

use super::Unsupported;

/// Shows how a rule finds the CFA: `rsp+8`, `*(rbp-8)`, `unsupported: …`.
#[derive(Clone, Copy, Debug)]
pub struct CfaInWords(pub Rule);

/// Shows how a rule finds the caller's rbp: `same`, `cfa-16`, `*(rbp+0)`, `lost`. The return address is at `cfa-8`.
#[derive(Clone, Copy, Debug)]
pub struct RbpInWords(pub Rule);

impl fmt::Display for CfaInWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        let offset = rule.cfa_offset;
        match rule.cfa_kind {
            cfa::RSP => write!(f, "rsp{offset:+}"),
            cfa::RBP => write!(f, "rbp{offset:+}"),
            cfa::RBX => write!(f, "rbx{offset:+}"),
            cfa::RSP_DEREF => write!(f, "*(rsp{offset:+}){}", Addend(rule)),
            cfa::RBP_DEREF => write!(f, "*(rbp{offset:+}){}", Addend(rule)),
            cfa::PLT => write!(f, "rsp{offset:+}+8*(rip%16>={})", rule.cfa_addend),
            cfa::GOROUTINE => {
                write!(f, "*(*(rsp{offset:+})+{})-*(rsp{:+})+8", rule.cfa_addend, rule.rbx_offset)
            }
            cfa::SIGNAL => f.write_str("signal frame"),
            cfa::END => f.write_str("end of stack"),
            cfa::NONE => f.write_str("not described"),
            _ => match Unsupported::of(rule) {
                Some(reason) => write!(f, "unsupported: {reason}"),
                None => f.write_str("unsupported"),
            },
        }
    }
}

struct Addend(Rule);

impl fmt::Display for Addend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.cfa_addend == 0 { Ok(()) } else { write!(f, "+{}", self.0.cfa_addend) }
    }
}

impl fmt::Display for RbpInWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        let offset = rule.rbp_offset;
        match (rule.cfa_kind, rule.rbp_kind) {
            (cfa::SIGNAL, _) => f.write_str("saved"),
            (cfa::END | cfa::NONE | cfa::UNSUPPORTED, _) => f.write_str("-"),
            (_, rbp::SAME) => f.write_str("same"),
            (_, rbp::AT_CFA) => write!(f, "cfa{offset:+}"),
            (_, rbp::AT_RBP) => write!(f, "*(rbp{offset:+})"),
            _ => f.write_str("lost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_rule_has_its_words() {
        let rule = |cfa_kind, cfa_offset, rbp_kind, rbp_offset| Rule {
            cfa_kind,
            cfa_offset,
            rbp_kind,
            rbp_offset,
            cfa_addend: 11,
            ..Rule::default()
        };
        for (rule, words) in [
            (rule(cfa::RSP, 8, rbp::SAME, 0), "rsp+8 same"),
            (rule(cfa::RBP, 16, rbp::AT_CFA, -16), "rbp+16 cfa-16"),
            (rule(cfa::RBX, 32, rbp::UNKNOWN, 0), "rbx+32 lost"),
            (rule(cfa::RBP_DEREF, -8, rbp::AT_RBP, 0), "*(rbp-8)+11 *(rbp+0)"),
            (Rule { cfa_addend: 0, ..rule(cfa::RSP_DEREF, 40, rbp::SAME, 0) }, "*(rsp+40) same"),
            (rule(cfa::PLT, 8, rbp::SAME, 0), "rsp+8+8*(rip%16>=11) same"),
            (
                Rule { rbx_offset: 40, ..rule(cfa::GOROUTINE, 48, rbp::SAME, 0) },
                "*(*(rsp+48)+11)-*(rsp+40)+8 same",
            ),
            (rule(cfa::SIGNAL, 0, rbp::UNKNOWN, 0), "signal frame saved"),
            (rule(cfa::END, 0, rbp::UNKNOWN, 0), "end of stack -"),
            (Rule::default(), "not described -"),
            (Unsupported::SignalFrame.rule(), "unsupported: signal frame of an unknown form -"),
            (rule(cfa::UNSUPPORTED, 99, rbp::SAME, 0), "unsupported -"),
            (rule(99, 0, rbp::SAME, 0), "unsupported same"),
        ] {
            assert_eq!(format!("{} {}", CfaInWords(rule), RbpInWords(rule)), words);
        }
    }
}
