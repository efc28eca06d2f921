//! Names the rule of one row of call frame information in the walker's words.

use std::fmt;

use gimli::{
    CfaRule, EndianSlice, LittleEndian, Reader, RegisterRule, UnwindContextStorage, UnwindExpression,
    UnwindSection, UnwindTableRow, X86_64,
};
use profiler_common::tables::{Rule, cfa, rbp, rbx};

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

/// Why a rule is [`cfa::UNSUPPORTED`]; it stands in the rule's `cfa_offset`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(i32)]
pub enum Unsupported {
    /// There was no room in the tables: too many distinct rules, or too many rows in one page of text.
    NoRoom = 0,
    /// The CFA is relative to another register than rsp, rbp and rbx.
    CfaRegister = 1,
    /// The CFA is an expression other than those that [`cfa`] names.
    CfaExpression = 2,
    /// The CFA's offset exceeds 32 bits.
    CfaOffset = 3,
    /// The return address is not at CFA - 8.
    ReturnAddress = 4,
    /// Marked as a signal trampoline, but not one of the Linux kernel's `struct rt_sigframe`.
    SignalFrame = 5,
    /// The function moves to another stack, and the way back is not on the one it moved to.
    StackSwitch = 6,
}

impl Unsupported {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::NoRoom,
        Self::CfaRegister,
        Self::CfaExpression,
        Self::CfaOffset,
        Self::ReturnAddress,
        Self::SignalFrame,
        Self::StackSwitch,
    ];

    /// The reason that a rule carries; `None` for a rule that is supported.
    #[must_use]
    pub fn of(rule: Rule) -> Option<Self> {
        let carried = |reason: &Self| rule == reason.rule();
        Self::ALL.into_iter().find(carried)
    }

    /// The rule that ends a walk for this reason.
    pub(super) const fn rule(self) -> Rule {
        Rule { cfa_offset: self as i32, ..bare(cfa::UNSUPPORTED) }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "no room in the tables",
            Self::CfaRegister => "CFA relative to a register that is not followed",
            Self::CfaExpression => "CFA by an expression that is not known",
            Self::CfaOffset => "CFA offset beyond 32 bits",
            Self::ReturnAddress => "return address elsewhere than at CFA - 8",
            Self::SignalFrame => "signal frame of an unknown form",
            Self::StackSwitch => "moved to another stack in a way that is not followed",
        })
    }
}

/// The rule of a thread's first function, which has no caller.
pub(super) const END: Rule = bare(cfa::END);
const SIGNAL: Rule = bare(cfa::SIGNAL);

/// A rule that needs no offsets and says nothing of registers.
pub(super) const fn bare(cfa_kind: u8) -> Rule {
    Rule {
        cfa_offset: 0,
        rbp_offset: 0,
        rbx_offset: 0,
        cfa_kind,
        cfa_addend: 0,
        rbp_kind: rbp::UNKNOWN,
        rbx_kind: rbx::UNKNOWN,
    }
}

/// The rule of a row; `signal_frame` where its CIE has the augmentation `S`.
///
/// # Errors
/// The reason why there is none.
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
        return if is_kernels_frame(row, section) { Ok(SIGNAL) } else { Err(Unsupported::SignalFrame) };
    }
    let (cfa_kind, cfa_offset, cfa_addend) = match row.cfa() {
        CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } => (cfa::RSP, *offset, 0),
        CfaRule::RegisterAndOffset { register: X86_64::RBP, offset } => (cfa::RBP, *offset, 0),
        CfaRule::RegisterAndOffset { register: X86_64::RBX, offset } => (cfa::RBX, *offset, 0),
        CfaRule::RegisterAndOffset { .. } => return Err(Unsupported::CfaRegister),
        CfaRule::Expression(expression) => match Place::of(section, expression) {
            Some(Place { register: X86_64::RSP, offset, loaded: Some(n) }) => (cfa::RSP_DEREF, offset, n),
            Some(Place { register: X86_64::RBP, offset, loaded: Some(n) }) => (cfa::RBP_DEREF, offset, n),
            _ => match plt_stub(section, expression) {
                Some((offset, pushed_from)) => (cfa::PLT, offset, pushed_from),
                None => return Err(Unsupported::CfaExpression),
            },
        },
    };
    let cfa_offset = i32::try_from(cfa_offset).map_err(|_| Unsupported::CfaOffset)?;
    if return_address != Some(RegisterRule::Offset(-8)) {
        return Err(Unsupported::ReturnAddress);
    }
    let (rbp_kind, rbp_offset) = saved_rbp(row, section);
    let (rbx_kind, rbx_offset) = saved_rbx(row);
    Ok(Rule { cfa_offset, rbp_offset, rbx_offset, cfa_kind, cfa_addend, rbp_kind, rbx_kind })
}

/// Whether the row describes the frame that the Linux kernel pushes for a signal handler.
fn is_kernels_frame<'data, S: UnwindSection<Slice<'data>>>(
    row: &UnwindTableRow<usize, SmallRows>,
    section: &S,
) -> bool {
    let saved = |offset: i32, loaded| Some(Place { register: X86_64::RSP, offset: offset.into(), loaded });
    let is_at = |register, offset| match row.register(register) {
        Some(RegisterRule::Expression(expression)) => Place::of(section, &expression) == saved(offset, None),
        _ => false,
    };
    matches!(row.cfa(), CfaRule::Expression(e) if Place::of(section, e) == saved(SAVED_RSP, Some(0)))
        && is_at(X86_64::RA, SAVED_RIP)
        && is_at(X86_64::RBP, SAVED_RBP)
}

/// Where the caller's rbp is. The ABI has rbp preserved by the callee, so that no rule at all means "unchanged".
fn saved_rbp<'data, S: UnwindSection<Slice<'data>>>(
    row: &UnwindTableRow<usize, SmallRows>,
    section: &S,
) -> (u8, i16) {
    let found = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::SameValue) => return (rbp::SAME, 0),
        Some(RegisterRule::Offset(offset)) => i16::try_from(offset).ok().map(|o| (rbp::AT_CFA, o)),
        Some(RegisterRule::Expression(expression)) => match Place::of(section, &expression) {
            Some(Place { register: X86_64::RBP, offset, loaded: None }) => {
                i16::try_from(offset).ok().map(|o| (rbp::AT_RBP, o))
            }
            _ => None,
        },
        Some(_) => None,
    };
    found.unwrap_or((rbp::UNKNOWN, 0))
}

/// Where the caller's rbx is, which the ABI has preserved too.
fn saved_rbx(row: &UnwindTableRow<usize, SmallRows>) -> (u8, i16) {
    let unknown = (rbx::UNKNOWN, 0);
    match row.register(X86_64::RBX) {
        None | Some(RegisterRule::SameValue) => (rbx::SAME, 0),
        Some(RegisterRule::Offset(offset)) => i16::try_from(offset).map_or(unknown, |o| (rbx::AT_CFA, o)),
        Some(_) => unknown,
    }
}

/// What the one kind of expression stands for that compilers, OpenSSL and glibc write: `breg o`, which is
/// `register + offset`; or that and `deref`, or that and `plus_uconst n`, which is the word there, plus `n`.
#[derive(PartialEq, Eq)]
struct Place {
    register: gimli::Register,
    offset: i64,
    /// What is added to the word at `register + offset`; `None` where the address itself is meant.
    loaded: Option<u8>,
}

impl Place {
    fn of<'data, S: UnwindSection<Slice<'data>>>(
        section: &S,
        expression: &UnwindExpression<usize>,
    ) -> Option<Self> {
        let mut bytes = expression.get(section).ok()?.0;
        let register = match gimli::DwOp(bytes.read_u8().ok()?) {
            gimli::DW_OP_breg6 => X86_64::RBP,
            gimli::DW_OP_breg7 => X86_64::RSP,
            _ => return None,
        };
        let offset = bytes.read_sleb128().ok()?;
        let mut operation = || bytes.read_u8().ok().map(gimli::DwOp);
        let loaded = match (operation(), operation()) {
            (None, _) => None,
            (Some(gimli::DW_OP_deref), None) => Some(0),
            (Some(gimli::DW_OP_deref), Some(gimli::DW_OP_plus_uconst)) => {
                Some(u8::try_from(bytes.read_uleb128().ok()?).ok()?)
            }
            _ => return None,
        };
        bytes.is_empty().then_some(Self { register, offset, loaded })
    }
}

/// Linkers describe a stub of the PLT as `rsp + offset + ((rip & 15) >= n) * 8`: it pushes one word, in the instruction
/// before its n-th byte. The answer is `(offset, n)`.
fn plt_stub<'data, S: UnwindSection<Slice<'data>>>(
    section: &S,
    expression: &UnwindExpression<usize>,
) -> Option<(i64, u8)> {
    let mut bytes = expression.get(section).ok()?.0;
    if gimli::DwOp(bytes.read_u8().ok()?) != gimli::DW_OP_breg7 {
        return None;
    }
    let offset = bytes.read_sleb128().ok()?;
    let &[rip, 0, lit15, and, n, ge, lit3, shl, plus] = bytes.slice() else { return None };
    let operations = [rip, lit15, and, ge, lit3, shl, plus].map(gimli::DwOp);
    let expected = [
        gimli::DW_OP_breg16,
        gimli::DW_OP_lit15,
        gimli::DW_OP_and,
        gimli::DW_OP_ge,
        gimli::DW_OP_lit3,
        gimli::DW_OP_shl,
        gimli::DW_OP_plus,
    ];
    let n = n.checked_sub(gimli::DW_OP_lit0.0).filter(|n| *n < 16)?;
    (operations == expected).then_some((offset, n))
}
