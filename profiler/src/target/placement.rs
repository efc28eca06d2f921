//! On which instruction of a function a probe is put.
//!
//! A uprobe on an instruction that the kernel emulates costs a fraction of one that it must single-step out of line, in
//! a virtual machine a fifteenth. So the first emulated instruction is taken at which the probe still sees what it needs:
//! the arguments in their registers, the caller's rbp, and where the return is probed too, the return address at [rsp].
//!
//! Every call passes the place exactly once: only the straight line from the entry is looked at, and no branch of the
//! function may lead into it. (A branch through a table, or out of a part of the function that was moved away as
//! `.cold`, is not seen; compilers do not let those lead back to before the function's first branch.)

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, Instruction, InstructionInfoFactory, IntelFormatter,
    Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};
use profiler_common::records::{Call, CallKind};

use super::{address::FileOffset, allocator::AllocatorFunction, error::TargetError, module::Module};

/// How far from the entry a probe may sit, in bytes. Prologues are shorter.
const REACH: u64 = 64;
/// Bytes of the longest instruction that x86-64 has.
const LONGEST_INSTRUCTION: usize = 15;
/// Bytes of a function that are searched for branches; a longer function is probed at its entry or not at all.
pub(super) const MAX_FUNCTION: usize = 64 << 10;
/// The registers of a function's integer arguments (System V ABI for x86-64, 3.2.3).
const ARGUMENTS: [Register; Call::ARGUMENTS as usize] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Where a probe sits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Bytes from the function's entry.
    pub offset_in_function: u32,
    /// The place in the file: what the kernel is told.
    pub file_offset: FileOffset,
    /// The mnemonic of the instruction there.
    pub instruction: String,
    /// Whether the kernel emulates it; else each hit is single-stepped, which costs much more.
    pub emulated: bool,
    /// Where the return address lies: `rsp + stack_offset`, in bytes. 0 where the return is probed too.
    pub stack_offset: u32,
    /// Whether the function leaves by its return alone: no jump of it leads elsewhere.
    pub returns: bool,
}

/// Finds the place for a probe on an allocator's function.
///
/// # Errors
/// Where the function's code cannot be read, or no instruction of it will do.
pub fn place(module: &Module, function: &AllocatorFunction) -> Result<Placement, TargetError> {
    let unplaceable =
        || TargetError::NoPlacement { path: module.path.clone(), function: function.name.clone() };
    let entry = module.file_offset_of(function.entry).ok_or_else(unplaceable)?;
    // One byte more than is searched tells a function that is too long.
    let size = function.size.min(module.bytes_from(function.entry));
    let length = usize::try_from(size).unwrap_or(usize::MAX).min(MAX_FUNCTION + 1);
    let code = module.bytes_at(entry, length)?;
    place_in(&code, function.call, entry).ok_or_else(unplaceable)
}

/// The instruction at a place, as a disassembler writes it; just its mnemonic where it cannot be read.
#[must_use]
pub fn instruction_at(module: &Module, placement: &Placement) -> String {
    let code = module.bytes_at(placement.file_offset, LONGEST_INSTRUCTION).unwrap_or_default();
    let address = module.svma_of(placement.file_offset).map_or(0, |address| address.0);
    let instruction = Decoder::with_ip(64, &code, address, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return placement.instruction.clone();
    }
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    let mut text = String::new();
    formatter.format(&instruction, &mut text);
    text
}

/// Finds the place in `code`, the whole function, whose entry lies at `entry` in the file.
#[must_use]
pub fn place_in(code: &[u8], call: Call, entry: FileOffset) -> Option<Placement> {
    let first_target = first_branch_target(code);
    let returns = leaves_by_return(code);
    let mut stack_offset = 0_u32;
    let mut fallback = None;
    let mut info = InstructionInfoFactory::new();
    for instruction in &mut decode(code) {
        let offset = instruction.ip();
        let entered_from_behind = offset > 0 && first_target.is_some_and(|target| target <= offset);
        if instruction.is_invalid() || offset > REACH || entered_from_behind {
            break;
        }
        let start = usize::try_from(offset).ok()?;
        let bytes = code.get(start..start + instruction.len())?;
        let emulated = is_emulated(&instruction, bytes);
        if can_hold_a_probe(&instruction, bytes) && (emulated || fallback.is_none()) {
            let placement = Placement {
                offset_in_function: u32::try_from(offset).ok()?,
                file_offset: FileOffset(entry.0.checked_add(offset)?),
                instruction: format!("{:?}", instruction.mnemonic()).to_lowercase(),
                emulated,
                stack_offset,
                returns,
            };
            if emulated {
                return Some(placement);
            }
            fallback = Some(placement);
        }
        match stack_growth_if_harmless(&instruction, call, &mut info) {
            Some(growth) => stack_offset = stack_offset.checked_add(growth)?,
            None => break,
        }
    }
    fallback
}

/// Whether a function stays in its code until it returns: no jump leads out of it, none leads to where cannot be told, and it
/// does not run on behind its end. Calls come back.
fn leaves_by_return(code: &[u8]) -> bool {
    let mut runs_on = true;
    for instruction in &mut decode(code) {
        if instruction.is_invalid() || instruction.flow_control() == FlowControl::IndirectBranch {
            return false;
        }
        runs_on = !matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::Return | FlowControl::Exception
        );
        let leads_to = near_target(&instruction).filter(|_| !instruction.is_call_near());
        if leads_to.is_some_and(|target| target >= code.len() as u64) {
            return false;
        }
    }
    !runs_on && code.len() <= MAX_FUNCTION
}

fn decode(code: &[u8]) -> Decoder<'_> {
    Decoder::with_ip(64, code, 0, DecoderOptions::NONE)
}

/// The lowest address behind the entry that a branch of the function leads to. A function too long to be searched is
/// taken to have one right behind its first byte.
fn first_branch_target(code: &[u8]) -> Option<u64> {
    if code.len() > MAX_FUNCTION {
        return Some(1);
    }
    let targets = decode(code).into_iter().filter_map(|instruction| near_target(&instruction));
    targets.filter(|&target| target > 0 && target < code.len() as u64).min()
}

/// Where a direct jump, conditional jump or call leads.
pub(super) fn near_target(instruction: &Instruction) -> Option<u64> {
    let near = [OpKind::NearBranch16, OpKind::NearBranch32, OpKind::NearBranch64];
    (instruction.op_count() > 0 && near.contains(&instruction.op0_kind()))
        .then(|| instruction.near_branch_target())
}

/// Legacy prefixes (Intel SDM volume 2, 2.1.1) and the rest of the instruction.
fn split_prefixes(bytes: &[u8]) -> (&[u8], &[u8]) {
    let is_prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    bytes.split_at(bytes.iter().position(|byte| !is_prefix(byte)).unwrap_or(bytes.len()))
}

/// Whether the kernel executes the instruction itself (arch/x86/kernel/uprobes.c: `branch_setup_xol_ops`,
/// `push_setup_xol_ops`). Kernels from 6.18 emulate the multi-byte `nop`s too; they are not counted on.
pub(super) fn is_emulated(instruction: &Instruction, bytes: &[u8]) -> bool {
    let (prefixes, rest) = split_prefixes(bytes);
    let narrowed = prefixes.contains(&0x66);
    match *rest {
        // push of a 64-bit register, alone or with REX.B.
        [0x50..=0x57] | [0x41, 0x50..=0x57] => prefixes.is_empty(),
        // jmp, call, and the conditional jumps. With 0x66 the kernel refuses them.
        [0xeb | 0xe9 | 0xe8 | 0x70..=0x7f, ..] | [0x0f, 0x80..=0x8f, ..] => !narrowed,
        // nop; with REX.B it would be an exchange of registers, with 0xf3 a pause.
        [0x90] => instruction.mnemonic() == Mnemonic::Nop,
        _ => false,
    }
}

/// Whether the kernel accepts a probe here, and the target survives it.
pub(super) fn can_hold_a_probe(instruction: &Instruction, bytes: &[u8]) -> bool {
    let (prefixes, rest) = split_prefixes(bytes);
    // `is_prefix_bad` of arch/x86/kernel/uprobes.c: es, cs, ss, ds and lock.
    let refused_prefix = prefixes.iter().any(|prefix| matches!(prefix, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0));
    let narrowed_branch = prefixes.contains(&0x66) && near_target(instruction).is_some();
    // Kernel 6.18 replaces a probed five-byte nop by a call, which overwrites the red zone of a leaf function.
    let five_byte_nop = bytes.len() == 5 && instruction.mnemonic() == Mnemonic::Nop;
    let breakpoint = rest.first() == Some(&0xcc);
    !(refused_prefix || narrowed_branch || five_byte_nop || breakpoint)
}

/// By how many bytes the instruction grows the stack, where a probe behind it still sees what it needs; else `None`.
fn stack_growth_if_harmless(
    instruction: &Instruction,
    call: Call,
    info: &mut InstructionInfoFactory,
) -> Option<u32> {
    if instruction.flow_control() != FlowControl::Next {
        return None;
    }
    let info = info.info(instruction);
    // Once a block may have been put back into a list, another thread may get it before its free is seen.
    let writes_memory = |used: &UsedMemory| used.base() != Register::RSP && is_write(used.access());
    if call.kind == CallKind::Free && info.used_memory().iter().any(writes_memory) {
        return None;
    }
    let mut moves_stack = false;
    for used in info.used_registers() {
        let register = used.register().full_register();
        if is_write(used.access()) {
            moves_stack |= register == Register::RSP;
            // The unwinder takes rbp for the caller's.
            if register == Register::RBP || is_argument(call, register) {
                return None;
            }
        }
    }
    match (moves_stack, call.needs_return()) {
        (false, _) => Some(0),
        (true, true) => None,
        (true, false) => u32::try_from(stack_growth(instruction)?).ok(),
    }
}

/// The growth by a push or by `sub rsp, n`; `None` for whatever else moves the stack.
fn stack_growth(instruction: &Instruction) -> Option<i64> {
    let is_sub = instruction.mnemonic() == Mnemonic::Sub && instruction.op0_register() == Register::RSP;
    match instruction.mnemonic() {
        Mnemonic::Push => Some(-i64::from(instruction.stack_pointer_increment())),
        _ if is_sub && instruction.op1_kind() == OpKind::Immediate8to64 => Some(instruction.immediate8to64()),
        _ if is_sub && instruction.op1_kind() == OpKind::Immediate32to64 => {
            Some(instruction.immediate32to64())
        }
        _ => None,
    }
}

pub(super) fn is_write(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// Whether the probe reads this register.
fn is_argument(call: Call, register: Register) -> bool {
    let read = [call.size, call.count, call.block];
    (call.kind.is_of_mappings() && ARGUMENTS.contains(&register))
        || read.iter().any(|&index| ARGUMENTS.get(usize::from(index)) == Some(&register))
}

#[cfg(test)]
mod tests;
