//! Where a function calls allocators: the instructions on which probes see these calls and no others.
//!
//! The function's code is decoded from its first byte to its last. What it calls is told by the called address, by the slot
//! that the dynamic loader fills, or by the stub that jumps through such a slot. Where anything in it could be a call of an
//! allocator that is not told so (a call through a pointer, an allocator's address as a value), the list may not be
//! complete, which [`CallsOf::obstacle`] says.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind,
    Register,
};
use profiler_common::records::{Call, CallKind};

use super::{
    find_in, is_code,
    names::{Family, Vocabulary},
    symbols::Symbols,
    wrapper::Callees,
};
use crate::target::{
    address::{FileOffset, Svma},
    error::TargetError,
    module::Module,
    placement::{can_hold_a_probe, is_emulated, is_write, near_target},
};

/// Bytes of a function that are looked at, and of all functions of a file; no real ones are as long.
const MOST_CODE: u64 = 1 << 20;
const MOST_CODE_OF_ALL: u64 = 64 << 20;
/// How far behind a call its probe may sit, in bytes.
const REACH: u64 = 48;

/// A function of the target by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedCode {
    /// As people write it.
    pub name: String,
    /// Its first instruction.
    pub entry: Svma,
    /// Bytes of its code.
    pub size: u64,
}

/// What is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Callee {
    /// The symbol.
    pub name: String,
    /// What it does with its arguments.
    pub call: Call,
    /// Where the loader puts its address, if it is called through such a slot.
    pub slot: Option<Svma>,
    /// Where it lies, if it lies in the same file.
    pub entry: Option<Svma>,
}

/// One call of an allocator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallSite {
    /// What is called.
    pub callee: Callee,
    /// The instruction that calls.
    pub at: FileOffset,
    /// The instruction that sees the result.
    pub after: FileOffset,
    /// How far that is behind the return address, in bytes.
    pub behind: u8,
    /// Whether the kernel emulates both.
    pub emulated: bool,
}

/// A jump to an allocator: it returns to the function's caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Jump {
    /// What it leads to.
    pub callee: Callee,
    /// The instruction.
    pub at: FileOffset,
    /// Whether the kernel emulates it.
    pub emulated: bool,
}

/// Why not every call is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// Calls through pointers, which may lead anywhere.
    Pointers(usize),
    /// It has the address of this function as a value.
    Address(String),
    /// A jump to this function that is taken sometimes.
    ConditionalJump(String),
    /// Behind a call of this function the code is reached from elsewhere, or takes no probe.
    NoPlace(String),
    /// Its code is too long, or is no code.
    Undecodable,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointers(1) => {
                out.write_str("1 of its calls goes through a pointer, which may lead to an allocator")
            }
            Self::Pointers(calls) => {
                write!(out, "{calls} of its calls go through pointers, which may lead to an allocator")
            }
            Self::Address(name) => write!(out, "it keeps the address of `{name}`, and may call it by that"),
            Self::ConditionalJump(name) => write!(out, "it jumps to `{name}` on a condition"),
            Self::NoPlace(name) => write!(out, "behind a call of `{name}` there is no place for a probe"),
            Self::Undecodable => out.write_str("its code could not be read"),
        }
    }
}

/// The calls of one function.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CallsOf {
    /// Calls that give a block.
    pub sites: Vec<CallSite>,
    /// Jumps that do, or that resize one.
    pub jumps: Vec<Jump>,
    /// Calls that resize one: these are seen in the function that is called.
    pub resizing: usize,
    /// Why there may be more.
    pub obstacle: Option<Obstacle>,
    /// Where it goes on a condition, out of itself: most likely to parts that a compiler has moved away, which have no name in
    /// a stripped file. Those that lie in the functions asked for are left out.
    pub leads_to: Vec<Svma>,
}

impl CallsOf {
    /// Whether it is known to call no allocator.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty() && self.jumps.is_empty() && self.resizing == 0 && self.obstacle.is_none()
    }
}

/// The calls of allocators in these functions of a file, in their order.
///
/// # Errors
/// Where the file cannot be read, or is damaged.
pub fn calls_of(module: &Arc<Module>, functions: &[NamedCode]) -> Result<Vec<CallsOf>, TargetError> {
    let data = module.data()?;
    let symbols = Symbols::parse(&data)
        .map_err(|reason| TargetError::DamagedElf { path: module.path.clone(), reason })?;
    let vocabulary = Vocabulary::new();
    let own: HashSet<Svma> = find_in(module)?
        .iter()
        .flat_map(|allocator| allocator.functions.iter().chain(&allocator.wrapping))
        .map(|function| function.entry)
        .collect();
    let is_one = |name: &str| vocabulary.get(name).filter(|known| known.call.kind != CallKind::Free);
    let mut entries = HashMap::new();
    for symbol in symbols.defined().filter(|symbol| symbol.is_function && is_code(module, symbol.address)) {
        let Some(known) = is_one(symbol.name) else { continue };
        if symbol.is_global || known.family != Family::Plain || own.contains(&Svma(symbol.address)) {
            entries.entry(symbol.address).or_insert(Known {
                name: symbol.name,
                call: known.call,
                slot: None,
                entry: Some(symbol.address),
            });
        }
    }
    let (mut slots, mut all_slots) = (HashMap::new(), HashSet::new());
    for (slot, name) in symbols.function_slots() {
        all_slots.insert(slot);
        if let Some(known) = is_one(name) {
            slots.insert(slot, Known { name, call: known.call, slot: Some(slot), entry: None });
        }
    }
    let code_at = |address: u64| {
        let start = module.file_offset_of(Svma(address)).and_then(|offset| usize::try_from(offset.0).ok());
        let code = start.and_then(|start| data.get(start..)).unwrap_or_default();
        code.get(..code.len().min(16)).unwrap_or_default().to_vec()
    };
    let callees = Callees { entries, slots, code_at: &code_at };
    let mut left = MOST_CODE_OF_ALL;
    let of = |function: &NamedCode| {
        left = left.saturating_sub(function.size);
        let size = function.size.min(module.bytes_from(function.entry));
        let entry = module.file_offset_of(function.entry);
        let code = entry.and_then(|entry| {
            let start = usize::try_from(entry.0).ok()?;
            data.get(start..start.checked_add(usize::try_from(size.min(MOST_CODE)).ok()?)?)
        });
        match (code, entry) {
            (Some(code), Some(entry)) if size == function.size && size <= MOST_CODE && left > 0 => {
                Reader { code, base: function.entry.0, entry, callees: &callees, all_slots: &all_slots }
                    .read()
            }
            _ => CallsOf { obstacle: Some(Obstacle::Undecodable), ..CallsOf::default() },
        }
    };
    let mut found: Vec<CallsOf> = functions.iter().map(of).collect();
    let is_asked_for = |at: Svma| {
        functions.iter().any(|f| at.0.checked_sub(f.entry.0).is_some_and(|offset| offset < f.size))
    };
    found.iter_mut().for_each(|calls| calls.leads_to.retain(|at| !is_asked_for(*at)));
    Ok(found)
}

/// A function that may be called, while a file is read.
#[derive(Clone, Copy)]
struct Known<'data> {
    name: &'data str,
    call: Call,
    slot: Option<u64>,
    entry: Option<u64>,
}

impl Known<'_> {
    fn finish(self) -> Callee {
        Callee {
            name: self.name.to_owned(),
            call: self.call,
            slot: self.slot.map(Svma),
            entry: self.entry.map(Svma),
        }
    }

    fn gives_a_block(self) -> bool {
        matches!(self.call.kind, CallKind::Allocate | CallKind::AllocateInto)
    }
}

/// One function while it is read.
struct Reader<'a, 'data> {
    code: &'a [u8],
    base: u64,
    entry: FileOffset,
    callees: &'a Callees<'a, Known<'data>>,
    all_slots: &'a HashSet<u64>,
}

impl Reader<'_, '_> {
    fn read(&self) -> CallsOf {
        let instructions: Vec<Instruction> =
            Decoder::with_ip(64, self.code, self.base, DecoderOptions::NONE).into_iter().collect();
        let mut calls = CallsOf::default();
        let mut pointers = 0;
        let targets: HashSet<u64> = instructions
            .iter()
            .filter(|instruction| instruction.flow_control() != FlowControl::Call)
            .filter_map(near_target)
            .collect();
        for (index, instruction) in instructions.iter().enumerate() {
            let callee = self.callees.of(instruction);
            let obstacle = match (instruction.flow_control(), callee) {
                _ if instruction.is_invalid() => Some(Obstacle::Undecodable),
                (FlowControl::Call | FlowControl::IndirectCall, Some(callee)) if callee.gives_a_block() => {
                    match self.site(&instructions[index..], &targets, callee) {
                        Some(site) => {
                            calls.sites.push(site);
                            None
                        }
                        None => Some(Obstacle::NoPlace(callee.name.to_owned())),
                    }
                }
                (FlowControl::Call | FlowControl::IndirectCall, Some(_)) => {
                    calls.resizing += 1;
                    None
                }
                (FlowControl::IndirectCall, None) => {
                    pointers += usize::from(!self.goes_through_a_slot(instruction));
                    None
                }
                (FlowControl::UnconditionalBranch | FlowControl::IndirectBranch, Some(callee)) => {
                    match self.jump(instruction, callee) {
                        Some(jump) => {
                            calls.jumps.push(jump);
                            None
                        }
                        None => Some(Obstacle::NoPlace(callee.name.to_owned())),
                    }
                }
                (FlowControl::ConditionalBranch, Some(callee)) => {
                    Some(Obstacle::ConditionalJump(callee.name.to_owned()))
                }
                (FlowControl::ConditionalBranch, None) => {
                    calls.leads_to.extend(near_target(instruction).filter(|to| !self.holds(*to)).map(Svma));
                    None
                }
                (FlowControl::Next, _) => self
                    .address_of_a_callee(instruction)
                    .map(|callee| Obstacle::Address(callee.name.to_owned())),
                _ => None,
            };
            calls.obstacle = calls.obstacle.or(obstacle);
        }
        if pointers > 0 {
            calls.obstacle.get_or_insert(Obstacle::Pointers(pointers));
        }
        calls
    }

    fn bytes(&self, instruction: &Instruction) -> Option<&[u8]> {
        let start = usize::try_from(instruction.ip().checked_sub(self.base)?).ok()?;
        self.code.get(start..start.checked_add(instruction.len())?)
    }

    fn holds(&self, address: u64) -> bool {
        address.checked_sub(self.base).is_some_and(|offset| offset < self.code.len() as u64)
    }

    fn offset(&self, instruction: &Instruction) -> Option<FileOffset> {
        Some(FileOffset(self.entry.0.checked_add(instruction.ip().checked_sub(self.base)?)?))
    }

    /// The places for the call that the first of these instructions is.
    fn site(&self, from: &[Instruction], targets: &HashSet<u64>, callee: Known<'_>) -> Option<CallSite> {
        let (call, behind) = from.split_first()?;
        let call_bytes = self.bytes(call)?;
        // Reached from elsewhere as well, its probe would see more than returns of this call.
        if !can_hold_a_probe(call, call_bytes) || targets.contains(&call.next_ip()) {
            return None;
        }
        let mut info = InstructionInfoFactory::new();
        let mut fallback = None;
        for instruction in behind {
            let distance = instruction.ip().wrapping_sub(call.next_ip());
            if instruction.is_invalid() || distance > REACH || targets.contains(&instruction.ip()) {
                break;
            }
            let bytes = self.bytes(instruction)?;
            let emulated = is_emulated(instruction, bytes);
            if can_hold_a_probe(instruction, bytes) && (emulated || fallback.is_none()) {
                let site = CallSite {
                    callee: callee.finish(),
                    at: self.offset(call)?,
                    after: self.offset(instruction)?,
                    behind: u8::try_from(distance).ok()?,
                    emulated: emulated && is_emulated(call, call_bytes),
                };
                if emulated {
                    return Some(site);
                }
                fallback = Some(site);
            }
            let used = info.info(instruction).used_registers();
            let changes = used.iter().any(|used| {
                let register = used.register().full_register();
                is_write(used.access()) && [Register::RAX, Register::RSP, Register::RBP].contains(&register)
            });
            if changes || instruction.flow_control() != FlowControl::Next {
                break;
            }
        }
        fallback
    }

    fn jump(&self, instruction: &Instruction, callee: Known<'_>) -> Option<Jump> {
        let bytes = self.bytes(instruction)?;
        can_hold_a_probe(instruction, bytes).then_some(())?;
        Some(Jump {
            callee: callee.finish(),
            at: self.offset(instruction)?,
            emulated: is_emulated(instruction, bytes),
        })
    }

    /// Whether an indirect call goes through a slot that the loader fills: then it is known what it calls.
    fn goes_through_a_slot(&self, instruction: &Instruction) -> bool {
        instruction.op0_kind() == OpKind::Memory
            && instruction.is_ip_rel_memory_operand()
            && self.all_slots.contains(&instruction.ip_rel_memory_address())
    }

    /// The function whose address this instruction makes a value of.
    fn address_of_a_callee(&self, instruction: &Instruction) -> Option<Known<'_>> {
        if instruction.is_ip_rel_memory_operand() {
            let address = instruction.ip_rel_memory_address();
            return match instruction.mnemonic() {
                Mnemonic::Lea => self.callees.at(address),
                _ => self.callees.slots.get(&address).copied(),
            };
        }
        // Programs at fixed addresses have them as constants.
        let constant = match instruction.code() {
            Code::Mov_r32_imm32 => u64::from(instruction.immediate32()),
            Code::Mov_r64_imm64 => instruction.immediate64(),
            _ => return None,
        };
        self.callees.at(constant)
    }
}

#[cfg(test)]
mod tests;
