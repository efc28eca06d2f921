//! Which functions only hand their call on to another function that is probed anyway.
//!
//! `operator new[]` that jumps to `operator new`, or `reallocarray` that multiplies and jumps to `realloc`, would show
//! each block twice. But a function that calls another one *on some paths only* must keep its probe: glibc's `realloc`
//! jumps to `malloc` when it is given no block, and does its own work otherwise.
//!
//! So a function is a wrapper only if on every path from its entry the first call, or jump out of it, goes to a function
//! of the same class, or the path ends without having given or taken a block.

use std::collections::{HashMap, HashSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register,
};
use profiler_common::records::CallKind;

use crate::target::placement::{is_write, near_target};

/// Steps of a search, after which the function is taken to do its own work. Wrappers have a few dozen instructions.
const MAX_STEPS: usize = 2000;

/// What calls of a file can lead to.
pub(super) struct Callees<'a> {
    /// The probed functions, by stated address.
    pub(super) entries: HashMap<u64, CallKind>,
    /// The slots through which probed functions are called, here or in another file, by stated address.
    pub(super) slots: HashMap<u64, CallKind>,
    /// At most 16 bytes of code at a stated address; empty where there is none.
    pub(super) code_at: &'a dyn Fn(u64) -> Vec<u8>,
}

impl Callees<'_> {
    /// The function that a call or jump of this instruction leads to, directly, through a slot or through a PLT stub.
    fn of(&self, instruction: &Instruction) -> Option<CallKind> {
        let Some(target) = near_target(instruction) else { return self.through_slot(instruction) };
        self.entries.get(&target).copied().or_else(|| {
            let code = (self.code_at)(target);
            let mut stub = Decoder::with_ip(64, &code, target, DecoderOptions::NONE).into_iter();
            let jump = stub.find(|instruction| instruction.mnemonic() != Mnemonic::Endbr64)?;
            (jump.flow_control() == FlowControl::IndirectBranch).then(|| self.through_slot(&jump))?
        })
    }

    fn through_slot(&self, instruction: &Instruction) -> Option<CallKind> {
        let in_memory = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory;
        let slot = (in_memory && instruction.is_ip_rel_memory_operand())
            .then(|| instruction.ip_rel_memory_address())?;
        self.slots.get(&slot).copied()
    }
}

/// One path through the function, at one of its instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Path {
    address: u64,
    /// Whether rax holds a constant: an error's return value, not a block.
    returns_constant: bool,
    /// Whether memory other than the stack was written: what a function that frees cannot do without.
    wrote_memory: bool,
}

/// Whether the function with this code only hands its call on.
pub(super) fn is_wrapper(code: &[u8], entry: u64, kind: CallKind, callees: &Callees<'_>) -> bool {
    let end = entry.saturating_add(code.len() as u64);
    let mut info = InstructionInfoFactory::new();
    let mut open = vec![Path { address: entry, returns_constant: false, wrote_memory: false }];
    let mut seen = HashSet::new();
    let mut hands_on = false;
    while let Some(mut path) = open.pop() {
        if !seen.insert(path) {
            continue;
        }
        let position = path.address.checked_sub(entry).and_then(|offset| usize::try_from(offset).ok());
        let Some(rest) = position.and_then(|position| code.get(position..)) else { return false };
        let instruction = Decoder::with_ip(64, rest, path.address, DecoderOptions::NONE).decode();
        if instruction.is_invalid() || seen.len() > MAX_STEPS {
            return false;
        }
        let to_same_class = callees.of(&instruction).is_some_and(|callee| class(callee) == class(kind));
        let inside = near_target(&instruction).filter(|target| (entry..end).contains(target));
        match instruction.flow_control() {
            FlowControl::Next => {
                path.step(&instruction, &mut info);
                open.push(path);
            }
            FlowControl::Call | FlowControl::IndirectCall | FlowControl::IndirectBranch if to_same_class => {
                hands_on = true;
            }
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                match inside {
                    Some(target) => open.push(Path { address: target, ..path }),
                    None if to_same_class => hands_on = true,
                    None => return false,
                }
                if instruction.flow_control() == FlowControl::ConditionalBranch {
                    open.push(Path { address: instruction.next_ip(), ..path });
                }
            }
            FlowControl::Return if path.did_nothing(kind) => {}
            // ud2: the program ends here.
            FlowControl::Exception => {}
            _ => return false,
        }
    }
    hands_on
}

impl Path {
    fn step(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let info = info.info(instruction);
        let writes_rax = |used: &iced_x86::UsedRegister| {
            used.register().full_register() == Register::RAX && is_write(used.access())
        };
        if info.used_registers().iter().any(writes_rax) {
            self.returns_constant = sets_constant(instruction);
        }
        let writes_memory =
            |used: &iced_x86::UsedMemory| used.base() != Register::RSP && is_write(used.access());
        self.wrote_memory |= info.used_memory().iter().any(writes_memory);
        self.address = instruction.next_ip();
    }

    /// Whether a return here gives no block, or takes none.
    fn did_nothing(&self, kind: CallKind) -> bool {
        if kind == CallKind::Free { !self.wrote_memory } else { self.returns_constant }
    }
}

/// `xor eax, eax` or `mov eax, constant`.
fn sets_constant(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Xor => instruction.op0_register() == instruction.op1_register(),
        Mnemonic::Mov => matches!(instruction.op1_kind(), OpKind::Immediate32 | OpKind::Immediate32to64),
        _ => false,
    }
}

/// Functions of one class do the same with their blocks: give one, change one, take one.
fn class(kind: CallKind) -> u8 {
    match kind {
        CallKind::Malloc | CallKind::Calloc | CallKind::Memalign | CallKind::PosixMemalign => 0,
        CallKind::Realloc | CallKind::Reallocarray => 1,
        CallKind::Free => 2,
    }
}
