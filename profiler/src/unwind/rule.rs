//! Names the rule of one row of call frame information in the walker's words.

use gimli::{
    CfaRule, EndianSlice, LittleEndian, Reader, RegisterRule, UnwindContextStorage, UnwindExpression,
    UnwindSection, UnwindTableRow, X86_64,
};
use profiler_common::tables::{Rule, cfa, rbp};

use super::walk::{SAVED_RBP, SAVED_RIP, SAVED_RSP};

/// The bytes of a section, as gimli reads them.
pub(super) type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// Room for the register rules of a row. x86-64 has 17 that compilers describe and glibc's signal trampoline uses all
/// but one; a row with more than these is damaged. gimli's own 192 would let a hostile file make it copy much memory
/// for each byte of instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SmallRows;

impl UnwindContextStorage<usize> for SmallRows {
    type Rules = [(gimli::Register, RegisterRule<usize>); 32];
    type Stack = Box<[UnwindTableRow<usize, Self>; 8]>;
}

/// Why a row has a rule that the walker has no words for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unsupported {
    PltStub,
    CfaRegister,
    CfaExpression,
    CfaOffset,
    ReturnAddress,
    SignalFrame,
}

/// The rule that ends a walk as unsupported.
pub(super) const UNSUPPORTED: Rule =
    Rule { cfa_offset: 0, rbp_offset: 0, cfa_kind: cfa::UNSUPPORTED, rbp_kind: rbp::UNKNOWN };

/// The rule of a thread's first function, which has no caller.
pub(super) const END: Rule =
    Rule { cfa_offset: 0, rbp_offset: 0, cfa_kind: cfa::END, rbp_kind: rbp::UNKNOWN };
const SIGNAL: Rule = Rule { cfa_offset: 0, rbp_offset: 0, cfa_kind: cfa::SIGNAL, rbp_kind: rbp::UNKNOWN };

/// The rule of a row; `signal_frame` where its CIE has the augmentation `S`.
///
/// # Errors
/// The reason why only [`UNSUPPORTED`] fits.
pub(super) fn rule_of<'data, S: UnwindSection<Slice<'data>>>(
    row: &UnwindTableRow<usize, SmallRows>,
    signal_frame: bool,
    section: &S,
) -> Result<Rule, Unsupported> {
    let return_address = row.register(X86_64::RA);
    if return_address == Some(RegisterRule::Undefined) {
        return Ok(END);
    }
    if signal_frame {
        let at_saved = |register, offset| match row.register(register) {
            Some(RegisterRule::Expression(e)) => {
                register_offset(section, &e) == Some((X86_64::RSP, offset, false))
            }
            _ => false,
        };
        let from_context = matches!(row.cfa(), CfaRule::Expression(e)
            if register_offset(section, e) == Some((X86_64::RSP, SAVED_RSP, true)))
            && at_saved(X86_64::RA, SAVED_RIP)
            && at_saved(X86_64::RBP, SAVED_RBP);
        return if from_context { Ok(SIGNAL) } else { Err(Unsupported::SignalFrame) };
    }
    let (cfa_kind, cfa_offset) = match row.cfa() {
        CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } => (cfa::RSP, *offset),
        CfaRule::RegisterAndOffset { register: X86_64::RBP, offset } => (cfa::RBP, *offset),
        CfaRule::RegisterAndOffset { .. } => return Err(Unsupported::CfaRegister),
        CfaRule::Expression(expression) => match register_offset(section, expression) {
            Some((X86_64::RSP, offset, true)) => (cfa::RSP_DEREF, i64::from(offset)),
            Some((X86_64::RBP, offset, true)) => (cfa::RBP_DEREF, i64::from(offset)),
            _ if is_plt_stub(section, expression) => return Err(Unsupported::PltStub),
            _ => return Err(Unsupported::CfaExpression),
        },
    };
    let cfa_offset = i32::try_from(cfa_offset).map_err(|_| Unsupported::CfaOffset)?;
    if return_address != Some(RegisterRule::Offset(-8)) {
        return Err(Unsupported::ReturnAddress);
    }
    let (rbp_kind, rbp_offset) = saved_rbp(row, section);
    Ok(Rule { cfa_offset, rbp_offset, cfa_kind, rbp_kind })
}

/// Whether the walk can go on, but without knowing the caller's rbp.
pub(super) fn loses_rbp(rule: Rule) -> bool {
    rule.rbp_kind == rbp::UNKNOWN && matches!(rule.cfa_kind, cfa::RSP..=cfa::RSP_DEREF)
}

/// Where the caller's rbp is. The ABI has rbp preserved by the callee, so that no rule at all means "unchanged".
fn saved_rbp<'data, S: UnwindSection<Slice<'data>>>(
    row: &UnwindTableRow<usize, SmallRows>,
    section: &S,
) -> (u8, i16) {
    let found = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::SameValue) => return (rbp::SAME, 0),
        Some(RegisterRule::Offset(offset)) => i16::try_from(offset).ok().map(|o| (rbp::AT_CFA, o)),
        Some(RegisterRule::Expression(expression)) => match register_offset(section, &expression) {
            Some((X86_64::RBP, offset, false)) => i16::try_from(offset).ok().map(|o| (rbp::AT_RBP, o)),
            _ => None,
        },
        Some(_) => None,
    };
    found.unwrap_or((rbp::UNKNOWN, 0))
}

/// Reads the one kind of expression that compilers and glibc emit: `breg6 o` or `breg7 o`, then perhaps `deref`.
fn register_offset<'data, S: UnwindSection<Slice<'data>>>(
    section: &S,
    expression: &UnwindExpression<usize>,
) -> Option<(gimli::Register, i32, bool)> {
    let mut bytes = expression.get(section).ok()?.0;
    let register = match gimli::DwOp(bytes.read_u8().ok()?) {
        gimli::DW_OP_breg6 => X86_64::RBP,
        gimli::DW_OP_breg7 => X86_64::RSP,
        _ => return None,
    };
    let offset = i32::try_from(bytes.read_sleb128().ok()?).ok()?;
    match bytes.slice() {
        [] => Some((register, offset, false)),
        [operation] if *operation == gimli::DW_OP_deref.0 => Some((register, offset, true)),
        _ => None,
    }
}

/// Linkers describe a PLT as `rsp + 8 + ((rip & 15) >= 11) * 8`. No stack ever has a return address there.
fn is_plt_stub<'data, S: UnwindSection<Slice<'data>>>(
    section: &S,
    expression: &UnwindExpression<usize>,
) -> bool {
    expression
        .get(section)
        .is_ok_and(|e| e.0.slice().starts_with(&[gimli::DW_OP_breg7.0, 8, gimli::DW_OP_breg16.0, 0]))
}
