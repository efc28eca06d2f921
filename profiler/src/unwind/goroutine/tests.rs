//! The crossing is found in the code that compilers of several years wrote, and nowhere else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

const START: u64 = 0x45_f000;

/// What follows the call in `runtime.asmcgocall` of Go 1.19.
const FROM_GOROUTINE: &[u8] = &[
    0xff, 0xd0, // call *%rax
    0x48, 0x8b, 0x7c, 0x24, 0x30, // mov 0x30(%rsp),%rdi
    0x48, 0x8b, 0x77, 0x08, // mov 0x8(%rdi),%rsi
    0x48, 0x2b, 0x74, 0x24, 0x28, // sub 0x28(%rsp),%rsi
    0x64, 0x48, 0x89, 0x3c, 0x25, 0xf8, 0xff, 0xff, 0xff, // mov %rdi,%fs:-8
    0x48, 0x89, 0xf4, // mov %rsi,%rsp
    0x89, 0x44, 0x24, 0x18, 0xc3, // mov %eax,0x18(%rsp); ret
];
/// The same where it was on the thread's own stack already.
const FROM_THREAD: &[u8] = &[
    0xff, 0xd0, // call *%rax
    0x48, 0x8b, 0x74, 0x24, 0x28, // mov 0x28(%rsp),%rsi
    0x48, 0x89, 0xf4, // mov %rsi,%rsp
    0x89, 0x44, 0x24, 0x18, 0xc3,
];
/// `runtime.systemstack`
const FROM_SYSTEM_STACK: &[u8] = &[
    0xff, 0xd7, // call *%rdi
    0x64, 0x48, 0x8b, 0x04, 0x25, 0xf8, 0xff, 0xff, 0xff, // mov %fs:-8,%rax
    0x48, 0x8b, 0x58, 0x30, // mov 0x30(%rax),%rbx
    0x48, 0x8b, 0x83, 0xc0, 0x00, 0x00, 0x00, // mov 0xc0(%rbx),%rax
    0x64, 0x48, 0x89, 0x04, 0x25, 0xf8, 0xff, 0xff, 0xff, // mov %rax,%fs:-8
    0x48, 0x8b, 0x60, 0x38, // mov 0x38(%rax),%rsp
    0xc3,
];
/// `runtime.goexit` and the padding behind it.
const GOEXIT: &[u8] = &[0x90, 0xe8, 0x1a, 0x2b, 0x00, 0x00, 0x90, 0xcc, 0xcc];

/// The beginning of `gosave_systemstack_switch`.
const SAVES: &[u8] = &[
    0x4c, 0x8d, 0x0d, 0x10, 0x00, 0x00, 0x00, // lea 0x10(%rip),%r9
    0x4d, 0x89, 0x4e, 0x40, // mov %r9,0x40(%r14)
];

fn corrections_of(code: &[u8]) -> Vec<Correction> {
    // Behind the code others go on.
    let bytes = [code, &[0x90; 64]].concat();
    corrections(&Region { start: START, bytes: &bytes })
}

fn goroutine(g: i32, high: u8, depth: i16) -> Rule {
    Rule { cfa_offset: g, rbx_offset: depth, cfa_addend: high, rbp_kind: rbp::SAME, ..bare(cfa::GOROUTINE) }
}

#[test]
fn each_crossing_has_its_rule() {
    let call = START..START + 2;
    let thread = Rule { cfa_offset: 40, cfa_addend: 8, rbp_kind: rbp::SAME, ..bare(cfa::RSP_DEREF) };
    assert_eq!(corrections_of(FROM_GOROUTINE), [(call.clone(), goroutine(48, 8, 40))]);
    assert_eq!(corrections_of(FROM_THREAD), [(call.clone(), thread)]);
    assert_eq!(corrections_of(FROM_SYSTEM_STACK), [(call, Unsupported::StackSwitch.rule())]);
    assert_eq!(corrections_of(GOEXIT), [(START..START + 7, END)]);
    assert_eq!(corrections_of(SAVES), [(START + 0x16..START + 0x17, JUST_CALLED)]);
}

#[test]
fn offsets_are_those_of_the_code() {
    let mut code = FROM_GOROUTINE.to_vec();
    (code[6], code[10], code[15]) = (8, 16, 0);
    assert_eq!(corrections_of(&code), [(START..START + 2, goroutine(8, 16, 0))]);
}

#[test]
fn other_code_is_left_alone() {
    // One byte changed: other registers, or other instructions.
    for (code, changes) in [
        (FROM_GOROUTINE, &[(5, 0x23), (8, 0x03), (9, 0x7f), (12, 0x03), (13, 0x7c), (27, 0x8b)][..]),
        (FROM_THREAD, &[(4, 0x7c), (8, 0x8b), (9, 0xfc)][..]),
        (FROM_SYSTEM_STACK, &[(2, 0x65), (33, 0x70)][..]),
        (SAVES, &[(0, 0x48), (2, 0x15), (4, 0x10), (9, 0x5e)][..]),
        (GOEXIT, &[(0, 0x91), (6, 0x91), (7, 0x90)][..]),
    ] {
        for &(at, byte) in changes {
            let mut changed = code.to_vec();
            changed[at] = byte;
            assert_eq!(corrections_of(&changed), [], "{at}: {changed:x?}");
        }
    }
    let away = [&[0xcc; 3], GOEXIT].concat();
    assert_eq!(corrections_of(&away), [], "in the middle of a function");
}

#[test]
fn code_that_is_cut_off_is_no_crossing() {
    for code in [FROM_GOROUTINE, FROM_THREAD, FROM_SYSTEM_STACK, SAVES, GOEXIT] {
        for end in 0..code.len().min(8) {
            assert_eq!(corrections(&Region { start: START, bytes: &code[..end] }), []);
        }
    }
}

#[test]
fn rows_keep_their_rules_around_a_correction() {
    let row = |start, offset| Row { start: Svma(start), rule: Rule { cfa_offset: offset, ..bare(cfa::RSP) } };
    let corrected = |start, rule| Row { start: Svma(start), rule };
    let inside = vec![row(10, 8), row(20, 16), row(30, 24)];
    for (range, expected) in [
        (12..14, vec![row(10, 8), corrected(12, END), row(14, 8), row(20, 16), row(30, 24)]),
        (10..20, vec![corrected(10, END), row(20, 16), row(30, 24)]),
        (18..32, vec![row(10, 8), corrected(18, END), row(32, 24)]),
        (40..41, vec![row(10, 8), row(20, 16), row(30, 24), corrected(40, END), row(41, 24)]),
        (2..4, vec![corrected(2, END), corrected(4, Rule::default()), row(10, 8), row(20, 16), row(30, 24)]),
    ] {
        let mut rows = inside.clone();
        correct(&mut rows, &[(range.clone(), END)]);
        assert_eq!(rows, expected, "{range:?}");
    }
}
