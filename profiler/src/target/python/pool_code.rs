//! Where CPython opens pools for small objects: behind the store of 1 to a pool's count of objects.
//!
//! pymalloc serves most objects from an open pool, in code that is inlined hundreds of times. What all copies call when there
//! is none is one function (`allocate_from_new_pool` from 3.9 on, before a part of `pymalloc_alloc`), found by its symbol,
//! or in stripped files behind `PyObject_Malloc`. It hands out pools by `pool->ref.count = 1`, an instruction of its own
//! in every build that was looked at; the branch behind it costs little to probe.

use std::collections::{BTreeSet, HashSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpKind,
    Register,
};

use super::{
    functions::{ElfFile, function_at},
    layout::Version,
};
use crate::target::{
    address::Svma,
    module::Module,
    placement::{can_hold_a_probe, is_emulated, is_write, near_target},
};

/// Bytes of a function that are searched, at most.
const MOST_CODE: u64 = 1 << 16;
/// Instructions behind the store among which a better place is looked for.
const REACH: usize = 3;
/// More such stores than this are something else.
const MOST_PLACES: usize = 4;
/// Functions behind `PyObject_Malloc` that are looked at.
const MOST_CALLEES: usize = 64;

/// A place where a pool has just been opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolPlace {
    /// The stated address of the instruction for the probe.
    pub at: Svma,
    /// The number of the register that has the pool's address: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub register: u8,
}

/// The places of a file; none where they are not found. `named` are functions by their symbols, first stated address and
/// length; `object_malloc` leads to them where there are none.
pub(super) fn places(
    module: &Module,
    file: &ElfFile<'_>,
    version: Version,
    named: &[(u64, u64)],
    object_malloc: &[u64],
) -> Vec<PoolPlace> {
    let code_of = |start: u64, length: u64| {
        let offset = module.file_offset_of(Svma(start))?;
        module.bytes_at(offset, usize::try_from(length.min(MOST_CODE)).ok()?).ok()
    };
    let search = |start, length| {
        let code: Vec<u8> = code_of(start, length).unwrap_or_default();
        places_in(&code, start, version.pool_size())
    };
    let found: Vec<_> = named.iter().flat_map(|(start, length)| search(*start, *length)).collect();
    if !found.is_empty() {
        return found;
    }
    let mut functions = BTreeSet::new();
    for function in object_malloc.iter().filter_map(|address| function_at(file, *address)) {
        let length = function.range.end - function.range.start;
        let code = code_of(function.range.start, length).unwrap_or_default();
        let called = decode(&code, function.range.start).into_iter().filter_map(|i| near_target(&i));
        let outside = called.filter(|target| !function.range.contains(target)).take(MOST_CALLEES);
        let callees = outside.filter_map(|target| function_at(file, target)).map(|callee| callee.range);
        functions.extend(callees.chain([function.range.clone()]).map(|range| (range.start, range.end)));
    }
    functions.into_iter().flat_map(|(start, end)| search(start, end.saturating_sub(start))).collect()
}

fn decode(code: &[u8], start: u64) -> Decoder<'_> {
    Decoder::with_ip(64, code, start, DecoderOptions::NONE)
}

/// The places in a function with this code, if it is one that opens pools of this size.
fn places_in(code: &[u8], start: u64, pool_size: u64) -> Vec<PoolPlace> {
    let instructions: Vec<Instruction> = decode(code, start).into_iter().collect();
    let knows_pools = instructions.iter().any(|instruction| {
        (0..instruction.op_count())
            .any(|operand| instruction.try_immediate(operand).is_ok_and(|value| value == pool_size))
    });
    if !knows_pools {
        return Vec::new();
    }
    let targets: HashSet<u64> = instructions.iter().filter_map(near_target).collect();
    let bytes_of = |instruction: &Instruction| {
        let from = usize::try_from(instruction.ip().saturating_sub(start)).unwrap_or(usize::MAX);
        code.get(from..from.saturating_add(instruction.len())).unwrap_or_default()
    };
    let mut info = InstructionInfoFactory::new();
    let mut places = Vec::new();
    for (index, store) in instructions.iter().enumerate() {
        let Some(pool) = pool_of(store) else { continue };
        let mut at = can_hold_a_probe(store, bytes_of(store)).then_some(store.ip());
        for next in instructions.iter().skip(index + 1).take(REACH) {
            let overwrites = info.info(next).used_registers().iter().any(|used| {
                is_write(used.access()) && [pool, Register::RSP].contains(&used.register().full_register())
            });
            if targets.contains(&next.ip()) || next.is_invalid() {
                break;
            }
            if is_emulated(next, bytes_of(next)) && can_hold_a_probe(next, bytes_of(next)) {
                at = Some(next.ip());
                break;
            }
            if overwrites || next.flow_control() != FlowControl::Next {
                break;
            }
        }
        let register = u8::try_from(pool.number()).unwrap_or(u8::MAX);
        places.extend(at.map(|at| PoolPlace { at: Svma(at), register }));
    }
    if places.len() > MOST_PLACES { Vec::new() } else { places }
}

/// The register that has the pool's address, in `mov dword ptr [register], 1`.
fn pool_of(instruction: &Instruction) -> Option<Register> {
    let is_store = instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Memory
        && matches!(instruction.memory_size(), MemorySize::UInt32 | MemorySize::Int32)
        && instruction.op1_kind() == OpKind::Immediate32
        && instruction.immediate32() == 1;
    let base = instruction.memory_base();
    let is_plain = base.is_gpr64()
        && base != Register::RSP
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() == 0;
    (is_store && is_plain).then_some(base)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// mov dword ptr [rdx], 1; cmp esi, ebx; je +0x10; mov ecx, 0x4000; ret
    const OPENS: &[u8] = &[0xc7, 0x02, 1, 0, 0, 0, 0x39, 0xf3, 0x74, 0x10, 0xb9, 0, 0x40, 0, 0, 0xc3];

    #[test]
    fn the_branch_behind_the_store() {
        assert_eq!(places_in(OPENS, 0x1000, 0x4000), [PoolPlace { at: Svma(0x1008), register: 2 }]);
        assert!(places_in(OPENS, 0x1000, 0x1000).is_empty(), "pools of another size");
    }

    #[test]
    fn the_store_itself_where_others_come_to_the_branch_or_the_pool_is_gone() {
        // jmp to the branch, in front of it all.
        let jumped: Vec<u8> = [&[0xeb, 8][..], OPENS].concat();
        assert_eq!(places_in(&jumped, 0x1000, 0x4000), [PoolPlace { at: Svma(0x1002), register: 2 }]);
        // mov edx, esi between the two.
        let lost: Vec<u8> = [&OPENS[..6], &[0x89, 0xf2], &OPENS[6..]].concat();
        assert_eq!(places_in(&lost, 0x1000, 0x4000), [PoolPlace { at: Svma(0x1000), register: 2 }]);
    }

    #[test]
    fn other_stores_are_none() {
        // One of 8 bytes; with an offset; of 2; to the stack.
        for other in [
            &[0x48, 0xc7, 0x02, 1, 0, 0, 0][..],
            &[0xc7, 0x42, 8, 1, 0, 0, 0],
            &[0xc7, 0x02, 2, 0, 0, 0],
            &[0xc7, 0x04, 0x24, 1, 0, 0, 0],
        ] {
            assert!(places_in(&[other, &OPENS[6..]].concat(), 0x1000, 0x4000).is_empty(), "{other:x?}");
        }
        let many = [OPENS.repeat(5), OPENS.to_vec()].concat();
        assert!(places_in(&many, 0x1000, 0x4000).is_empty());
    }
}
