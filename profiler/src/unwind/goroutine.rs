//! Where Go's runtime changes stacks, which its call frame information does not say.
//!
//! C code that Go calls runs on the system thread's stack. `runtime.asmcgocall` (src/runtime/asm_amd64.s of Go) moves
//! there before the call and back behind it; by Go's `.debug_frame` it has a frame of no size, as if it had stayed. What
//! it does behind the call says where the goroutine's stack is, so this is read from its code: it is recognised whatever
//! the version, and in files without symbols.
//!
//! | behind the call | rule of the call |
//! |---|---|
//! | `mov g, [rsp+a]; mov s, [g+b]; sub s, [rsp+c]; …; mov rsp, s` | [`cfa::GOROUTINE`] |
//! | `mov s, [rsp+c]; mov rsp, s`: it was on the system thread's stack already | [`cfa::RSP_DEREF`] |
//! | `mov t, fs:[…]; …; mov rsp, [t'+…]`: `runtime.systemstack`, whose way leads through the thread's memory | [`Unsupported::StackSwitch`] |
//!
//! Two more places need a rule. Every goroutine begins as if `runtime.goexit` had called it, which nobody called. And
//! where C calls back into Go, the goroutine's stack goes on from `runtime.cgocallback` as if `runtime.systemstack_switch`
//! had called that, by its very first byte: what is looked up for a return address is the byte before, which belongs to
//! nobody. The code that stores this return address (`gosave_systemstack_switch`) tells it.

use std::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};
use profiler_common::tables::{Rule, cfa, rbp};

use super::{
    elf::Region,
    rows::Row,
    rule::{END, Unsupported, bare},
};
use crate::target::address::Svma;

/// Instructions behind the call that are looked at: the way back takes seven at most.
const MOST_INSTRUCTIONS: usize = 7;
/// The longest that they can be, in bytes.
const MOST_BYTES: usize = 15 * MOST_INSTRUCTIONS;

/// The rule at a function's first instruction.
const JUST_CALLED: Rule = Rule { cfa_offset: 8, rbp_kind: rbp::SAME, ..bare(cfa::RSP) };

/// Code for which another rule holds than the call frame information says.
pub(super) type Correction = (Range<u64>, Rule);

/// The corrections for the text of a Go program, in the order of addresses.
pub(super) fn corrections(text: &Region<'_>) -> Vec<Correction> {
    let mut found = Vec::new();
    for (index, code) in text.bytes.windows(11).enumerate() {
        let at = text.start + index as u64;
        match *code {
            // call reg
            [0xFF, 0xD0..=0xD7, ..] => {
                let behind = text.bytes.get(index + 2..).unwrap_or_default();
                let behind = behind.get(..MOST_BYTES).unwrap_or(behind);
                found.extend(way_back(behind).map(|rule| (at..at + 2, rule)));
            }
            // `goexit`: nop; call goexit1; nop. A function of its own, so aligned and followed by padding.
            [0x90, 0xE8, _, _, _, _, 0x90, 0xCC, ..] if at.is_multiple_of(16) => {
                found.push((at..at + 7, END))
            }
            // lea r9, [rip+distance]; mov [r14+…], r9
            [0x4C, 0x8D, 0x0D, a, b, c, d, 0x4D, 0x89, 0x4E, _] => {
                let distance = i32::from_le_bytes([a, b, c, d]);
                let stored = (at + 7).wrapping_add_signed(distance.into());
                if (text.start + 1..text.end()).contains(&stored) {
                    found.push((stored - 1..stored, JUST_CALLED));
                }
            }
            _ => {}
        }
    }
    found.sort_by_key(|(range, _)| range.start);
    found
}

/// The rule for a call with this code behind it, if the code changes stacks.
fn way_back(code: &[u8]) -> Option<Rule> {
    // Most calls are told apart by the first instruction behind them: a load from the stack or by fs.
    if !matches!(code, [0x48 | 0x4C, 0x8B, ..] | [0x64, 0x48 | 0x4C, 0x8B, ..]) {
        return None;
    }
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let first = load(&decoder.decode())?;
    let mut instructions: Vec<Instruction> = decoder.into_iter().take(MOST_INSTRUCTIONS - 1).collect();
    let switch = instructions.iter().position(|instruction| {
        instruction.op0_kind() == OpKind::Register
            && instruction.op0_register() == Register::RSP
            && matches!(instruction.code(), Code::Mov_rm64_r64 | Code::Mov_r64_rm64)
    })?;
    instructions.truncate(switch + 1);
    let to = *instructions.last()?;
    if first.segment == Register::FS {
        return (to.op1_kind() == OpKind::Memory).then(|| Unsupported::StackSwitch.rule());
    }
    if first.base != Register::RSP || to.op1_kind() != OpKind::Register {
        return None;
    }
    // The function's own frame has no size: what rsp becomes is where its return address lies.
    let behind_return_address = 8;
    if instructions.len() == 1 && to.op1_register() == first.into {
        let addend = behind_return_address;
        return Some(Rule {
            cfa_offset: first.offset,
            cfa_addend: addend,
            rbp_kind: rbp::SAME,
            ..bare(cfa::RSP_DEREF)
        });
    }
    let [high, depth, .., _] = instructions.as_slice() else { return None };
    let high = load(high).filter(|high| high.base == first.into && high.into == to.op1_register())?;
    let is_depth = depth.code() == Code::Sub_r64_rm64
        && depth.op0_register() == high.into
        && depth.memory_base() == Register::RSP
        && depth.memory_index() == Register::None;
    let depth = i16::try_from(depth.memory_displacement64().cast_signed()).ok().filter(|_| is_depth)?;
    Some(Rule {
        cfa_offset: first.offset,
        rbx_offset: depth,
        cfa_addend: u8::try_from(high.offset).ok()?,
        rbp_kind: rbp::SAME,
        ..bare(cfa::GOROUTINE)
    })
}

/// `mov into, segment:[base+offset]`
struct Load {
    into: Register,
    segment: Register,
    base: Register,
    offset: i32,
}

fn load(instruction: &Instruction) -> Option<Load> {
    let is_load = instruction.code() == Code::Mov_r64_rm64
        && instruction.op1_kind() == OpKind::Memory
        && instruction.memory_index() == Register::None;
    Some(Load {
        into: instruction.op0_register(),
        segment: instruction.segment_prefix(),
        base: instruction.memory_base(),
        offset: i32::try_from(instruction.memory_displacement64().cast_signed()).ok().filter(|_| is_load)?,
    })
}

/// Puts corrections into rows; both are sorted.
pub(super) fn correct(rows: &mut Vec<Row>, corrections: &[Correction]) {
    for (range, rule) in corrections {
        let behind = rows.partition_point(|row| row.start.0 <= range.end);
        let after =
            behind.checked_sub(1).and_then(|at| rows.get(at)).map_or_else(Rule::default, |row| row.rule);
        let from = rows.partition_point(|row| row.start.0 < range.start);
        let pair = [(range.start, *rule), (range.end, after)];
        rows.splice(from..behind.max(from), pair.map(|(start, rule)| Row { start: Svma(start), rule }));
    }
}

#[cfg(test)]
mod tests;
