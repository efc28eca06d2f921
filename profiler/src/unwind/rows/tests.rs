//! Each kind of rule, gap and damage on sections made here, and what must hold of the real C library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gimli::{
    Encoding, Register, X86_64,
    write::{
        Address, CallFrameInstruction as Cfi, CommonInformationEntry, DebugFrame, EhFrame, EndianVec,
        Expression, FrameDescriptionEntry, FrameTable,
    },
};
use profiler_common::tables::{rbp, rbx};

use super::*;
use crate::unwind::{
    Unsupported,
    elf::{Format, FrameSection},
    walk::{SAVED_RBP, SAVED_RIP, SAVED_RSP},
};

/// Where the text of the sections made here begins.
const TEXT: u64 = 0x40_1000;
/// Each function made here has this many bytes.
const LENGTH: u64 = 0x20;

fn encoding() -> Encoding {
    Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 1 }
}

/// A CIE as compilers write it: at a function's first byte the CFA is rsp + 8 and the return address lies below it.
fn ordinary_cie() -> CommonInformationEntry {
    let mut cie = CommonInformationEntry::new(encoding(), 1, -8, X86_64::RA);
    cie.add_instruction(Cfi::Cfa(X86_64::RSP, 8));
    cie.add_instruction(Cfi::Offset(X86_64::RA, -8));
    cie
}

fn fde(start: u64, length: u64, instructions: &[(u32, Cfi)]) -> FrameDescriptionEntry {
    let mut fde = FrameDescriptionEntry::new(Address::Constant(start), u32::try_from(length).unwrap());
    for (offset, instruction) in instructions {
        fde.add_instruction(*offset, instruction.clone());
    }
    fde
}

fn eh_frame(table: &FrameTable) -> Vec<u8> {
    let mut section = EhFrame(EndianVec::new(gimli::LittleEndian));
    table.write_eh_frame(&mut section).unwrap();
    section.0.into_vec()
}

/// Where the file is entered; no text is there but in the test that is about it.
const ENTRY: u64 = TEXT + 0x10_000;

fn assemble_bytes(text: &[u8], section: &[u8], format: Format, pruning: Pruning) -> ModuleRows {
    let image = Image {
        text: vec![Region { start: TEXT, bytes: text }],
        frames: vec![FrameSection { start: 0, bytes: section.into(), format, max_fdes: u64::MAX }],
        unreadable: 0,
        entry: ENTRY,
        is_go: false,
    };
    assemble(&image, pruning, &[])
}

/// Rows of a table over text that is one `call` after the other.
fn rows_of(table: &FrameTable, text_bytes: usize) -> ModuleRows {
    assemble_bytes(&vec![0xE8; text_bytes], &eh_frame(table), Format::EhFrame, Pruning::None)
}

/// The rule of a function with these instructions at its first byte.
fn rule_with(cie: CommonInformationEntry, instructions: &[Cfi]) -> Rule {
    let mut table = FrameTable::default();
    let cie = table.add_cie(cie);
    let instructions: Vec<_> = instructions.iter().map(|i| (0, i.clone())).collect();
    table.add_fde(cie, fde(TEXT, LENGTH, &instructions));
    let module = rows_of(&table, 0x20);
    assert_eq!(module.statistics.damaged_fdes, 0);
    assert_eq!(module.rows[0].start, Svma(TEXT));
    module.rows[0].rule
}

fn breg(register: Register, offset: i64, deref: bool) -> Expression {
    let mut expression = Expression::new();
    expression.op_breg(register, offset);
    if deref {
        expression.op_deref();
    }
    expression
}

fn rule(cfa_kind: u8, cfa_offset: i32, rbp_kind: u8, rbp_offset: i16) -> Rule {
    Rule { cfa_offset, rbp_offset, cfa_kind, rbp_kind, rbx_kind: rbx::SAME, ..Rule::default() }
}

#[test]
fn the_rules_that_compilers_emit() {
    let cases = [
        (vec![], rule(cfa::RSP, 8, rbp::SAME, 0)),
        (
            vec![Cfi::CfaOffset(70_000), Cfi::Offset(X86_64::RBP, -16)],
            rule(cfa::RSP, 70_000, rbp::AT_CFA, -16),
        ),
        (
            vec![Cfi::Cfa(X86_64::RBP, 16), Cfi::Offset(X86_64::RBP, -16)],
            rule(cfa::RBP, 16, rbp::AT_CFA, -16),
        ),
        (vec![Cfi::SameValue(X86_64::RBP)], rule(cfa::RSP, 8, rbp::SAME, 0)),
        // A function that realigned its stack.
        (
            vec![
                Cfi::CfaExpression(breg(X86_64::RBP, -8, true)),
                Cfi::Expression(X86_64::RBP, breg(X86_64::RBP, 0, false)),
            ],
            rule(cfa::RBP_DEREF, -8, rbp::AT_RBP, 0),
        ),
        (vec![Cfi::CfaExpression(breg(X86_64::RSP, 24, true))], rule(cfa::RSP_DEREF, 24, rbp::SAME, 0)),
    ];
    for (instructions, expected) in cases {
        assert_eq!(rule_with(ordinary_cie(), &instructions), expected, "{instructions:?}");
    }
}

#[test]
fn a_lost_frame_pointer_is_not_an_unchanged_one() {
    let lost = [
        Cfi::Undefined(X86_64::RBP),
        Cfi::Register(X86_64::RBP, X86_64::R9),
        Cfi::ValOffset(X86_64::RBP, -16),
        Cfi::Offset(X86_64::RBP, -40_000),
        Cfi::Expression(X86_64::RBP, breg(X86_64::RBP, 0, true)),
    ];
    for instruction in lost {
        let found = rule_with(ordinary_cie(), std::slice::from_ref(&instruction));
        assert_eq!(found, rule(cfa::RSP, 8, rbp::UNKNOWN, 0), "{instruction:?}");
    }
}

#[test]
fn an_undefined_return_address_ends_the_stack() {
    let found = rule_with(ordinary_cie(), &[Cfi::Undefined(X86_64::RA), Cfi::Cfa(X86_64::R10, 0)]);
    assert_eq!(found.cfa_kind, cfa::END);
}

/// `rsp + 8 + ((rip & 15) >= 11) * 8`, as linkers write it, with one operation replaced.
fn plt_stub(at: usize, operation: u8) -> Cfi {
    let mut bytes = vec![0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
    bytes[at] = operation;
    Cfi::CfaExpression(Expression::raw(bytes))
}

fn deref_plus(addend: u64) -> Cfi {
    let mut expression = breg(X86_64::RSP, 40, true);
    expression.op_plus_uconst(addend);
    Cfi::CfaExpression(expression)
}

#[test]
fn the_rules_of_linkers_and_assembler() {
    let with_addend =
        |cfa_kind, offset, cfa_addend| Rule { cfa_addend, ..rule(cfa_kind, offset, rbp::SAME, 0) };
    let cases = [
        // A PLT with endbr64 pushes two bytes earlier.
        (plt_stub(6, 0x3b), with_addend(cfa::PLT, 8, 11)),
        (plt_stub(6, 0x39), with_addend(cfa::PLT, 8, 9)),
        // OpenSSL's big numbers.
        (deref_plus(8), with_addend(cfa::RSP_DEREF, 40, 8)),
        // _dl_runtime_resolve.
        (Cfi::Cfa(X86_64::RBX, 32), rule(cfa::RBX, 32, rbp::SAME, 0)),
    ];
    for (instruction, expected) in cases {
        assert_eq!(
            rule_with(ordinary_cie(), std::slice::from_ref(&instruction)),
            expected,
            "{instruction:?}"
        );
    }
}

#[test]
fn where_rbx_is_saved() {
    let kind_of = |instruction| {
        let found = rule_with(ordinary_cie(), &[instruction]);
        (found.rbx_kind, found.rbx_offset)
    };
    assert_eq!(kind_of(Cfi::SameValue(X86_64::RBX)), (rbx::SAME, 0));
    assert_eq!(kind_of(Cfi::Offset(X86_64::RBX, -48)), (rbx::AT_CFA, -48));
    for lost in [
        Cfi::Undefined(X86_64::RBX),
        Cfi::Register(X86_64::RBX, X86_64::R9),
        Cfi::Offset(X86_64::RBX, -40_000),
        Cfi::Expression(X86_64::RBX, breg(X86_64::RBP, -40, false)),
    ] {
        assert_eq!(kind_of(lost), (rbx::UNKNOWN, 0));
    }
}

#[test]
fn what_has_no_words_says_why() {
    let bare = CommonInformationEntry::new(encoding(), 1, -8, X86_64::RA);
    let cases = [
        (ordinary_cie(), Cfi::Cfa(X86_64::R10, 0), Unsupported::CfaRegister),
        (ordinary_cie(), Cfi::CfaExpression(breg(X86_64::RBX, 0, true)), Unsupported::CfaExpression),
        (ordinary_cie(), Cfi::CfaExpression(breg(X86_64::RSP, 0, false)), Unsupported::CfaExpression),
        (ordinary_cie(), deref_plus(256), Unsupported::CfaExpression),
        (ordinary_cie(), plt_stub(2, 0x76), Unsupported::CfaExpression),
        (ordinary_cie(), plt_stub(6, 0x40), Unsupported::CfaExpression),
        (ordinary_cie(), plt_stub(8, 0x32), Unsupported::CfaExpression),
        (ordinary_cie(), Cfi::Offset(X86_64::RA, -16), Unsupported::ReturnAddress),
        (ordinary_cie(), Cfi::Register(X86_64::RA, X86_64::RDI), Unsupported::ReturnAddress),
        (bare, Cfi::Cfa(X86_64::RSP, 8), Unsupported::ReturnAddress),
    ];
    for (cie, instruction, reason) in cases {
        let found = rule_with(cie, std::slice::from_ref(&instruction));
        assert_eq!(Unsupported::of(found), Some(reason), "{instruction:?}");
    }
    assert_eq!(Unsupported::of(Rule::default()), None);
}

fn signal_cie(saved_rsp: i32) -> (CommonInformationEntry, Vec<Cfi>) {
    let mut cie = CommonInformationEntry::new(encoding(), 1, -8, X86_64::RA);
    cie.signal_trampoline = true;
    let instructions = vec![
        Cfi::CfaExpression(breg(X86_64::RSP, saved_rsp.into(), true)),
        Cfi::Expression(X86_64::RBP, breg(X86_64::RSP, SAVED_RBP.into(), false)),
        Cfi::Expression(X86_64::RA, breg(X86_64::RSP, SAVED_RIP.into(), false)),
    ];
    (cie, instructions)
}

#[test]
fn only_the_kernels_own_signal_frame_is_one() {
    let (cie, instructions) = signal_cie(SAVED_RSP);
    assert_eq!(rule_with(cie, &instructions).cfa_kind, cfa::SIGNAL);
    let (cie, instructions) = signal_cie(SAVED_RSP + 8);
    assert_eq!(Unsupported::of(rule_with(cie, &instructions)), Some(Unsupported::SignalFrame));
}

#[test]
fn pruning_keeps_calls_system_calls_and_the_signal_trampoline() {
    let mut table = FrameTable::default();
    let ordinary = table.add_cie(ordinary_cie());
    let steps = [(1, Cfi::CfaOffset(16)), (8, Cfi::CfaOffset(24)), (16, Cfi::CfaOffset(32))];
    table.add_fde(ordinary, fde(TEXT, LENGTH, &steps));
    let (cie, instructions) = signal_cie(SAVED_RSP);
    let signal = table.add_cie(cie);
    let instructions: Vec<_> = instructions.into_iter().map(|i| (0, i)).collect();
    table.add_fde(signal, fde(TEXT + LENGTH, 10, &instructions));
    // 0..1 push, 1..8 a call, 8..16 nothing, 16..32 a system call.
    let mut text = vec![0x90; 0x40];
    text[0] = 0xFF;
    text[2] = 0xE8;
    text[20..22].copy_from_slice(&[0x0F, 0x05]);
    let section = eh_frame(&table);
    let kept = |pruning| {
        let module = assemble_bytes(&text, &section, Format::EhFrame, pruning);
        module.rows.iter().map(|r| (r.start.0 - TEXT, r.rule.cfa_kind, r.rule.cfa_offset)).collect::<Vec<_>>()
    };
    assert_eq!(
        kept(Pruning::CallSites),
        [(1, cfa::RSP, 16), (16, cfa::RSP, 32), (0x20, cfa::SIGNAL, 0), (0x40, cfa::NONE, 0)]
    );
    assert_eq!(kept(Pruning::None).len(), 6);
    // What lies behind the trampoline is padding: without a call in it it needs no row of its own.
    assert_eq!(kept(Pruning::None)[5], (0x2A, cfa::NONE, 0));
}

#[test]
fn text_without_an_fde_is_not_the_function_before() {
    let mut table = FrameTable::default();
    let cie = table.add_cie(ordinary_cie());
    table.add_fde(cie, fde(TEXT + 0x20, LENGTH, &[]));
    table.add_fde(cie, fde(TEXT + 0x60, LENGTH, &[(0, Cfi::CfaOffset(16))]));
    let calls = assemble_bytes(&[0xE8; 0x80], &eh_frame(&table), Format::EhFrame, Pruning::CallSites);
    let starts: Vec<_> = calls.rows.iter().map(|r| (r.start.0 - TEXT, r.rule.cfa_kind)).collect();
    assert_eq!(starts, [(0, 0), (0x20, cfa::RSP), (0x40, 0), (0x60, cfa::RSP), (0x80, 0)]);
    assert_eq!(calls.coverage, Coverage { text: 0x80, described: 0x40, undescribed: 0x40 });
    assert_eq!(*calls.undescribed, [(0, 0x20), (0x40, 0x60)].map(|(a, b)| Svma(TEXT + a)..Svma(TEXT + b)));
}

#[test]
fn of_overlapping_fdes_the_first_in_the_text_wins() {
    let mut table = FrameTable::default();
    let cie = table.add_cie(ordinary_cie());
    table.add_fde(cie, fde(TEXT + 0x10, 0x20, &[(8, Cfi::CfaOffset(32)), (0x18, Cfi::CfaOffset(40))]));
    table.add_fde(cie, fde(TEXT, 0x20, &[]));
    table.add_fde(cie, fde(TEXT, 0x20, &[(0, Cfi::CfaOffset(64))]));
    table.add_fde(cie, fde(TEXT + 8, 8, &[(0, Cfi::CfaOffset(72))]));
    let module = rows_of(&table, 0x30);
    let rows: Vec<_> = module.rows.iter().map(|r| (r.start.0 - TEXT, r.rule.cfa_offset)).collect();
    assert_eq!(rows, [(0, 8), (0x20, 32), (0x28, 40), (0x30, 0)]);
    assert_eq!(module.statistics.overlapping_fdes, 3);
}

#[test]
fn debug_frame_is_read_too() {
    let mut table = FrameTable::default();
    let cie = table.add_cie(ordinary_cie());
    table.add_fde(cie, fde(TEXT, LENGTH, &[(4, Cfi::CfaOffset(16))]));
    table.add_fde(cie, fde(0, LENGTH, &[]));
    let mut section = DebugFrame(EndianVec::new(gimli::LittleEndian));
    table.write_debug_frame(&mut section).unwrap();
    let module = assemble_bytes(&[0xE8; 0x20], section.0.slice(), Format::DebugFrame, Pruning::None);
    assert_eq!(module.rows.len(), 3);
    assert_eq!(module.rows[1], Row { start: Svma(TEXT + 4), rule: rule(cfa::RSP, 16, rbp::SAME, 0) });
    assert_eq!(module.statistics.outside_text, 1, "a discarded function at address 0");
}

#[test]
fn undescribed_text_at_the_entry_point_is_the_first_function_but_not_all_that_follows() {
    let mut table = FrameTable::default();
    let cie = table.add_cie(ordinary_cie());
    table.add_fde(cie, fde(TEXT, LENGTH, &[(0, Cfi::CfaOffset(16))]));
    let module = rows_of(&table, 0x10_400);
    let rows: Vec<_> = module.rows.iter().map(|row| (row.start.0, row.rule.cfa_kind)).collect();
    assert_eq!(
        rows,
        [(TEXT, cfa::RSP), (TEXT + LENGTH, cfa::NONE), (ENTRY, cfa::END), (ENTRY + ENTRY_CODE, cfa::NONE)]
    );
}
