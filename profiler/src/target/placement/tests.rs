//! Placements in hand-assembled functions, and in those of this machine's C library.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::target::{allocator, maps::Maps, module_cache::ModuleCache, process::Process};

const MALLOC: Call = Call::allocate(0);
const CALLOC: Call = Call::allocate(1).of_array(0);
const REALLOC: Call = Call::reallocate(0, 1);
const POSIX_MEMALIGN: Call = Call::allocate_into(0, 2);
const FREE: Call = Call::free(0);

const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
const NOP5: &[u8] = &[0x0f, 0x1f, 0x44, 0x00, 0x00];
const PUSH_RBP: &[u8] = &[0x55];
const PUSH_R12: &[u8] = &[0x41, 0x54];
const TEST_RDI: &[u8] = &[0x48, 0x85, 0xff];
const SUB_RSP_24: &[u8] = &[0x48, 0x83, 0xec, 0x18];
const RET: &[u8] = &[0xc3];
/// `je` to the place 0x40 bytes on: outside of every function here.
const JE: &[u8] = &[0x74, 0x40];

/// Offset, instruction, emulated, stack offset.
fn place_of(call: Call, parts: &[&[u8]]) -> Option<(u32, String, bool, u32)> {
    let placement = place_in(&parts.concat(), call, FileOffset(0x1000))?;
    assert_eq!(placement.file_offset.0, 0x1000 + u64::from(placement.offset_in_function));
    Some((placement.offset_in_function, placement.instruction, placement.emulated, placement.stack_offset))
}

#[track_caller]
fn assert_emulated(call: Call, parts: &[&[u8]], offset: u32, instruction: &str, stack_offset: u32) {
    assert_eq!(place_of(call, parts), Some((offset, instruction.to_owned(), true, stack_offset)));
}

#[track_caller]
fn assert_stepped(call: Call, parts: &[&[u8]], offset: u32, instruction: &str) {
    assert_eq!(place_of(call, parts), Some((offset, instruction.to_owned(), false, 0)));
}

#[test]
fn the_first_emulated_instruction_is_taken() {
    assert_emulated(MALLOC, &[PUSH_RBP, RET], 0, "push", 0);
    assert_emulated(MALLOC, &[ENDBR64, PUSH_R12, RET], 4, "push", 0);
    assert_emulated(FREE, &[TEST_RDI, JE, PUSH_RBP, RET], 3, "je", 0);
    // cmp byte ptr [rip+0], 0 before the je, as glibc's memalign begins.
    assert_emulated(POSIX_MEMALIGN, &[&[0x80, 0x3d, 0, 0, 0, 0, 0], JE, RET], 7, "je", 0);
    assert_emulated(MALLOC, &[&[0xe8, 0, 0, 0, 0], RET], 0, "call", 0);
    assert_emulated(MALLOC, &[&[0xe9, 0, 1, 0, 0]], 0, "jmp", 0);
    assert_emulated(MALLOC, &[&[0x0f, 0x84, 0, 1, 0, 0], RET], 0, "je", 0);
    assert_emulated(MALLOC, &[&[0x90], RET], 0, "nop", 0);
    assert_emulated(MALLOC, &[&[0x66, 0x90], RET], 0, "nop", 0);
}

#[test]
fn who_leaves_by_the_return_alone() {
    let returns = |parts: &[&[u8]]| place_in(&parts.concat(), MALLOC, FileOffset(0x1000)).unwrap().returns;
    assert!(returns(&[PUSH_RBP, RET]));
    // To the last byte; a loop; a call of another function; `ud2` behind a call that does not come back.
    assert!(returns(&[PUSH_RBP, &[0x74, 0x01], RET, RET]));
    assert!(returns(&[PUSH_RBP, TEST_RDI, &[0x74, 0xfa], RET]));
    assert!(returns(&[PUSH_RBP, &[0xe8, 0, 1, 0, 0], RET]));
    assert!(returns(&[PUSH_RBP, &[0xe8, 0, 1, 0, 0], &[0x0f, 0x0b]]));
    // One byte further, or before the entry; through a register; through a slot, as stubs do.
    assert!(!returns(&[PUSH_RBP, &[0x74, 0x02], RET, RET]));
    assert!(!returns(&[PUSH_RBP, &[0xeb, 0xf0]]));
    assert!(!returns(&[PUSH_RBP, &[0xff, 0xe0]]));
    assert!(!returns(&[PUSH_RBP, &[0xff, 0x25, 0, 0, 0, 0]]));
    // On into what follows; what is no code.
    assert!(!returns(&[PUSH_RBP, TEST_RDI]));
    assert!(!returns(&[PUSH_RBP, RET, &[0x06]]));
}

#[test]
fn what_only_looks_emulated_is_not_taken() {
    // xchg r8, rax; pause; push with an operand-size prefix; push of memory; jrcxz.
    for instruction in [
        &[0x49, 0x90][..],
        &[0xf3, 0x90],
        &[0x66, 0x55],
        &[0xff, 0x75, 0x08],
        &[0xe3, 0x40],
        &[0x0f, 0x1f, 0x40, 0x00],
    ] {
        let (offset, _, emulated, _) = place_of(MALLOC, &[instruction, RET]).unwrap();
        assert_eq!((offset, emulated), (0, false), "{instruction:x?}");
    }
    // The kernel refuses a branch with 0x66 and a branch with a hint: go on to what follows, or give up.
    assert_eq!(place_of(MALLOC, &[&[0x66, 0xe9, 0, 1, 0, 0]]), None);
    assert_eq!(place_of(MALLOC, &[&[0x3e, 0x74, 0x40], RET]), None);
}

#[test]
fn the_entry_is_stepped_where_nothing_better_comes_in_time() {
    assert_stepped(MALLOC, &[ENDBR64, TEST_RDI, RET], 0, "endbr64");
    // mov rbx, rdi is harmless; mov rdi, rbx takes the argument away; xor edi, edi does so by halves.
    assert_emulated(MALLOC, &[&[0x48, 0x89, 0xfb], PUSH_RBP, RET], 3, "push", 0);
    assert_stepped(MALLOC, &[&[0x48, 0x89, 0xdf], PUSH_RBP, RET], 0, "mov");
    assert_stepped(MALLOC, &[&[0x31, 0xff], PUSH_RBP, RET], 0, "xor");
    // mov rsi, rdi: malloc has no second argument, calloc has.
    assert_emulated(MALLOC, &[&[0x48, 0x89, 0xfe], PUSH_RBP, RET], 3, "push", 0);
    assert_stepped(CALLOC, &[&[0x48, 0x89, 0xfe], PUSH_RBP, RET], 0, "mov");
    // mul rsi writes rdx, the third argument of posix_memalign only.
    assert_emulated(CALLOC, &[&[0x48, 0xf7, 0xe6], PUSH_RBP, RET], 3, "push", 0);
    assert_stepped(POSIX_MEMALIGN, &[&[0x48, 0xf7, 0xe6], PUSH_RBP, RET], 0, "mul");
    // The unwinder would take a changed rbp for the caller's.
    assert_stepped(MALLOC, &[&[0x48, 0x89, 0xe5], PUSH_R12, RET], 0, "mov");
    // Out of reach: 70 times cmc.
    assert_stepped(MALLOC, &[&[0xf5; 70], PUSH_RBP, RET], 0, "cmc");
    assert_emulated(MALLOC, &[&[0xf5; 64], PUSH_RBP, RET], 64, "push", 0);
}

#[test]
fn a_return_probe_stays_before_every_change_of_the_stack() {
    assert_stepped(REALLOC, &[SUB_RSP_24, PUSH_RBP, RET], 0, "sub");
    // Entry only: further on, with the offset told. Two stepped pushes of an immediate, of 8 bytes each.
    assert_emulated(FREE, &[SUB_RSP_24, PUSH_RBP, RET], 4, "push", 24);
    assert_emulated(FREE, &[&[0x6a, 1], &[0x6a, 2], SUB_RSP_24, JE, RET], 8, "je", 40);
    assert_emulated(FREE, &[&[0x48, 0x81, 0xec, 0, 1, 0, 0], JE, RET], 7, "je", 256);
    // and rsp, -16; pop rax; add rsp, 8: the distance is unknown, or the stack shrinks.
    for instruction in [&[0x48, 0x83, 0xe4, 0xf0][..], &[0x58], &[0x48, 0x83, 0xc4, 0x08]] {
        let (offset, _, emulated, _) = place_of(FREE, &[instruction, PUSH_RBP, RET]).unwrap();
        assert_eq!((offset, emulated), (0, false), "{instruction:x?}");
    }
}

#[test]
fn a_free_is_seen_before_it_writes() {
    // mov [rdi], rax: puts the block into a list, for another thread to take.
    let store: &[u8] = &[0x48, 0x89, 0x07];
    assert_stepped(FREE, &[store, JE, RET], 0, "mov");
    assert_emulated(MALLOC, &[store, JE, RET], 3, "je", 0);
    // mov [rsp-8], rax: nobody's but its own.
    assert_emulated(FREE, &[&[0x48, 0x89, 0x44, 0x24, 0xf8], JE, RET], 5, "je", 0);
}

#[test]
fn the_five_byte_nop_is_never_taken() {
    assert_emulated(MALLOC, &[ENDBR64, NOP5, PUSH_RBP, RET], 9, "push", 0);
    assert_stepped(MALLOC, &[NOP5, TEST_RDI, RET], 5, "test");
    assert_stepped(MALLOC, &[NOP5, RET], 5, "ret");
    assert_eq!(place_of(MALLOC, &[NOP5]), None);
    // And not by its other spelling, nop with four prefixes.
    assert_stepped(MALLOC, &[&[0x66, 0x66, 0x66, 0x66, 0x90], TEST_RDI, RET], 5, "test");
}

#[test]
fn no_branch_of_the_function_leads_to_the_place() {
    // endbr64; push; jmp back, to each address in turn.
    let with_jump_to = |target: u8| {
        let code = [ENDBR64, PUSH_RBP, &[0xeb, target.wrapping_sub(7)], RET];
        place_of(MALLOC, &code).map(|(offset, _, emulated, _)| (offset, emulated))
    };
    assert_eq!(with_jump_to(5), Some((4, true)), "behind the push");
    for target in 1..=4 {
        assert_eq!(with_jump_to(target), Some((0, false)), "to {target}");
    }
    assert_eq!(with_jump_to(0), Some((4, true)), "to the entry, which passes the push as a call does");
    // A nop5 at the entry and a loop to what follows it: nothing is left.
    assert_eq!(place_of(MALLOC, &[NOP5, TEST_RDI, &[0xeb, 0xfb]]), None);
    // A function too long to be searched is probed at its entry only.
    let long = vec![0x90; MAX_FUNCTION + 1];
    assert_emulated(MALLOC, &[&long], 0, "nop", 0);
    assert_stepped(MALLOC, &[TEST_RDI, &long], 0, "test");
}

#[test]
fn damaged_code_gives_no_place_behind_it() {
    assert_eq!(place_of(MALLOC, &[]), None);
    // 0x06 is no instruction in 64-bit mode; a push cut short; a breakpoint, set by another.
    assert_eq!(place_of(MALLOC, &[&[0x06], PUSH_RBP]), None);
    assert_eq!(place_of(MALLOC, &[&[0x41]]), None);
    assert_eq!(place_of(MALLOC, &[&[0xcc], PUSH_RBP]), None);
    assert_stepped(MALLOC, &[TEST_RDI, &[0x06], PUSH_RBP], 0, "test");
}

proptest::proptest! {
    #[test]
    fn arbitrary_code_never_panics(code in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        for call in [MALLOC, CALLOC, REALLOC, POSIX_MEMALIGN, FREE] {
            if let Some(placement) = place_in(&code, call, FileOffset(u64::MAX - 10)) {
                proptest::prop_assert!((placement.offset_in_function as usize) < code.len());
                proptest::prop_assert!(!call.needs_return() || placement.stack_offset == 0);
            }
        }
    }
}

#[test]
fn every_function_of_this_c_library_has_a_place() {
    let us = Process::open(std::process::id()).unwrap();
    let maps = Maps::read(&us).unwrap();
    let found = allocator::find(&us, &maps, &mut ModuleCache::default()).unwrap().found;
    let glibc = found.iter().find(|allocator| allocator.name == "glibc").unwrap();
    let placed: Vec<(String, Placement)> = glibc
        .functions
        .iter()
        .map(|function| (function.name.clone(), place(&glibc.module, function).unwrap()))
        .collect();
    for (name, placement) in &placed {
        println!("{name} {placement:?}");
        assert!(placement.emulated, "{name}: {placement:?}");
    }
}
