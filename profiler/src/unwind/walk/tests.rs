//! Walks over stacks that are array literals, one for each rule and each end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use profiler_common::{limits::ROWS_PER_CHUNK, tables::pack_row};

use super::*;

/// Where the stacks lie.
const STACK: u64 = 0x7ffc_0000_0000;
/// Where the module with a table lies: one page of text.
const MODULE: u64 = 0x5555_0000_0000;
/// Where a mapping without a table lies.
const JIT: u64 = 0x6000_0000_0000;

/// Rules at every 256 bytes of the module, in this order.
fn with_rules<T>(rules: &[Rule], body: impl FnOnce(&Tables<'_>) -> T) -> T {
    let mut rows = vec![0; ROWS_PER_CHUNK];
    for (id, row) in (0..u16::try_from(rules.len()).unwrap()).zip(&mut rows) {
        *row = pack_row(id * 256, id);
    }
    let mappings = [
        MappingRange { begin: MODULE, end: MODULE + 0x4000, bias: MODULE, first_page: 0, pages: 1 },
        MappingRange { begin: JIT, end: JIT + 0x1000, bias: JIT, first_page: 0, pages: 0 },
    ];
    let pages = [PageRows { first: 0, count: u32::try_from(rules.len()).unwrap() }];
    body(&Tables { mappings: &mappings, pages: &pages, rows: &rows, rules })
}

/// An address behind a call in the text of the rule with this index.
fn at(rule: u64) -> u64 {
    MODULE + rule * 256 + 16
}

fn memory(stack: &[u64]) -> impl FnMut(u64) -> Option<u64> + '_ {
    |address| {
        let offset = address.checked_sub(STACK)?;
        assert!(offset.is_multiple_of(8), "{address:#x}");
        stack.get(usize::try_from(offset / 8).ok()?).copied()
    }
}

fn word(index: u64) -> u64 {
    STACK + 8 * index
}

fn rule(cfa_kind: u8, cfa_offset: i32, rbp_kind: u8, rbp_offset: i16) -> Rule {
    Rule { cfa_offset, rbp_offset, cfa_kind, rbp_kind, rbx_kind: rbx::SAME, ..Rule::default() }
}

const END: Rule = crate::unwind::rule::END;

/// What rbx holds where a test does not say otherwise.
const BX: Rbx = Rbx::Value(0xb00);

fn at_registers(ip: u64, sp: u64, bp: u64) -> Registers {
    Registers { ip, sp, bp, bx: BX }
}

fn step_once(
    rules: &[Rule],
    stack: &[u64],
    mut registers: Registers,
    found: Found,
) -> Result<(Registers, Found), u8> {
    let before = registers;
    with_rules(rules, |tables| match step(&mut registers, found, tables, &mut memory(stack)) {
        Step::Caller(found) => Ok((registers, found)),
        Step::End(end) => {
            assert_eq!(registers, before);
            Err(end)
        }
    })
}

#[test]
fn each_rule_is_its_equation() {
    let stack = [100, word(6), 102, 103, 104, 105, 106, 107];
    let here = at_registers(at(0), word(0), word(2));
    let cases = [
        // (sp', bp') = (sp + 16, bp)
        (rule(cfa::RSP, 16, rbp::SAME, 0), at_registers(word(6), word(2), word(2))),
        // (sp', bp') = (sp + 32, *(sp' - 32))
        (rule(cfa::RSP, 32, rbp::AT_CFA, -32), at_registers(103, word(4), 100)),
        // (sp', bp') = (bp + 16, *(sp' - 16))
        (rule(cfa::RBP, 16, rbp::AT_CFA, -16), at_registers(103, word(4), 102)),
        // (sp', bp') = (*(bp - 8), *bp)
        (rule(cfa::RBP_DEREF, -8, rbp::AT_RBP, 0), at_registers(105, word(6), 102)),
        // (sp', bp') = (*(sp + 8), 0)
        (rule(cfa::RSP_DEREF, 8, rbp::UNKNOWN, 0), at_registers(105, word(6), 0)),
        // (sp', bp') = (*(sp + 8) + 8, bp)
        (
            Rule { cfa_addend: 8, ..rule(cfa::RSP_DEREF, 8, rbp::SAME, 0) },
            at_registers(106, word(7), word(2)),
        ),
    ];
    for (rule, expected) in cases {
        assert_eq!(
            step_once(&[rule], &stack, here, Found::Called),
            Ok((expected, Found::Called)),
            "{rule:?}"
        );
    }
}

#[test]
fn rbx_is_read_when_a_frame_needs_it_and_not_before() {
    // malloc's caller saved rbx, the next left it alone: the dynamic loader's trampoline finds its CFA by it.
    let saves = Rule { rbx_kind: rbx::AT_CFA, rbx_offset: -16, ..rule(cfa::RSP, 24, rbp::SAME, 0) };
    let trampoline = rule(cfa::RBX, 16, rbp::SAME, 0);
    let loses = Rule { rbx_kind: rbx::UNKNOWN, ..saves };
    let rules = [saves, rule(cfa::RSP, 16, rbp::SAME, 0), trampoline, END, loses];
    let stack = [0, word(8), at(1), 0, at(2), 0, 0, 0, 0, at(3)];
    let walk_of = |first: u64, stack: &[u64]| {
        let registers = Registers { bx: Rbx::Value(3), ..at_registers(at(first), word(0), 0) };
        with_rules(&rules, |tables| walk(registers, tables, &mut memory(stack)))
    };
    let whole = walk_of(0, &stack);
    assert_eq!((whole.frames, whole.end), (vec![at(0), at(1), at(2), at(3)], walk_end::COMPLETE));
    // Lost, the walk ends rather than go astray.
    assert_eq!(walk_of(4, &stack).end, walk_end::NOT_ADVANCING);
    // Nobody saved it: it is what it was.
    let here = Registers { bx: Rbx::Value(word(1)), ..at_registers(at(0), word(0), 0) };
    let expected = Registers { bx: here.bx, ..at_registers(102, word(3), 0) };
    assert_eq!(
        step_once(&[trampoline], &[100, 101, 102], here, Found::Called),
        Ok((expected, Found::Called))
    );
    // A frame that is guessed may have changed it.
    let here = at_registers(JIT + 9, word(0), word(0));
    let expected = Registers { bx: Rbx::Value(0), ..at_registers(at(0), word(2), word(5)) };
    assert_eq!(step_once(&[], &[word(5), at(0)], here, Found::Called), Ok((expected, Found::Guessed)));
    // An address that cannot be read matters to those only who need it.
    let here = Registers { bx: Rbx::At(STACK + (1 << 30)), ..at_registers(at(0), word(0), 0) };
    let end_of = |rule| step_once(&[rule], &[100, 101], here, Found::Called).err();
    assert_eq!(end_of(rule(cfa::RSP, 16, rbp::SAME, 0)), None);
    assert_eq!(end_of(trampoline), Some(walk_end::UNREADABLE));
}

#[test]
fn a_signal_may_interrupt_a_plt_stub_on_either_side_of_its_push() {
    let stub = Rule { cfa_addend: 11, ..rule(cfa::PLT, 8, rbp::SAME, 0) };
    let sp_after = |ip| {
        let here = at_registers(ip, word(0), 0);
        step_once(&[stub], &[1, 2, 3], here, Found::Interrupted).unwrap().0.sp
    };
    assert_eq!([MODULE, MODULE + 10, MODULE + 32].map(sp_after), [word(1); 3]);
    assert_eq!([MODULE + 11, MODULE + 15, MODULE + 43].map(sp_after), [word(2); 3]);
}

#[test]
fn the_call_is_looked_up_but_what_a_signal_interrupted_as_it_is() {
    // The return address is the first byte of the next function: the call before it never returns.
    let rules = [rule(cfa::RSP, 8, rbp::SAME, 0), rule(cfa::RSP, 16, rbp::SAME, 0)];
    let here = at_registers(MODULE + 256, word(0), 0);
    let sp_after = |found| step_once(&rules, &[1, 2, 3], here, found).unwrap().0.sp;
    assert_eq!(sp_after(Found::Called), word(1));
    assert_eq!(sp_after(Found::Guessed), word(1));
    assert_eq!(sp_after(Found::Interrupted), word(2));
}

#[test]
fn a_signal_frame_gives_what_the_kernel_saved() {
    // The offsets of the C library's own declaration of what the kernel pushes.
    let context =
        std::mem::offset_of!(libc::ucontext_t, uc_mcontext) + std::mem::offset_of!(libc::mcontext_t, gregs);
    let index = |register: i32| (context + 8 * usize::try_from(register).unwrap()) / 8;
    let mut stack = [7u64; 32];
    stack[index(libc::REG_RBP)] = word(9);
    stack[index(libc::REG_RSP)] = word(1);
    stack[index(libc::REG_RIP)] = at(3);
    // The interrupted stack may lie anywhere, also below: that of a handler on an alternate stack.
    let here = at_registers(at(0), word(0), 5);
    let rules = [rule(cfa::SIGNAL, 0, rbp::UNKNOWN, 0)];
    let expected = Registers { bx: Rbx::At(word(16)), ..at_registers(at(3), word(1), word(9)) };
    assert_eq!(index(libc::REG_RBX), 16);
    assert_eq!(step_once(&rules, &stack, here, Found::Called), Ok((expected, Found::Interrupted)));
    assert_eq!(step_once(&rules, &stack[..16], here, Found::Called), Err(walk_end::UNREADABLE));
}

#[test]
fn without_a_table_a_plausible_frame_pointer_is_followed_and_marked() {
    let stack = [0, 0, word(5), at(0), 0, 0, 0];
    for ip in [JIT + 100, at(0)] {
        let step_with = |bp| {
            let here = at_registers(ip, word(1), bp);
            step_once(&[Rule::default()], &stack, here, Found::Called)
        };
        let expected = Registers { bx: Rbx::Value(0), ..at_registers(at(0), word(4), word(5)) };
        assert_eq!(step_with(word(2)), Ok((expected, Found::Guessed)));
        assert_eq!(step_with(word(0)), Err(walk_end::NO_TABLE), "below rsp");
        assert_eq!(step_with(word(2) + 4), Err(walk_end::NO_TABLE), "not aligned");
        assert_eq!(step_with(word(1) + MAX_GUESSED_FRAME + 8), Err(walk_end::NO_TABLE), "too far");
        assert_eq!(step_with(word(1) + MAX_GUESSED_FRAME), Err(walk_end::UNREADABLE), "just near enough");
        assert_eq!(step_with(word(4)), Err(walk_end::COMPLETE), "a return address of 0");
    }
}

#[test]
fn every_end_has_its_reason() {
    let stack = [0, 1, 2, 3];
    let here = at_registers(at(0), word(0), word(0));
    let end_of = |rule, here| step_once(&[rule], &stack, here, Found::Called).unwrap_err();
    assert_eq!(end_of(END, here), walk_end::COMPLETE);
    assert_eq!(end_of(rule(cfa::RSP, 8, 0, 0), here), walk_end::COMPLETE);
    assert_eq!(end_of(rule(cfa::UNSUPPORTED, 8, 0, 0), here), walk_end::UNSUPPORTED);
    assert_eq!(end_of(rule(99, 8, 0, 0), here), walk_end::UNSUPPORTED);
    assert_eq!(end_of(rule(cfa::RSP, 48, 0, 0), here), walk_end::UNREADABLE);
    assert_eq!(end_of(rule(cfa::RSP, 16, rbp::AT_CFA, 32), here), walk_end::UNREADABLE);
    assert_eq!(end_of(rule(cfa::RBP_DEREF, 64, 0, 0), here), walk_end::UNREADABLE);
    assert_eq!(end_of(rule(cfa::RSP, 0, 0, 0), here), walk_end::NOT_ADVANCING);
    assert_eq!(end_of(rule(cfa::RSP, i32::MIN, 0, 0), here), walk_end::NOT_ADVANCING);
    let lost = Registers { bp: 0, ..here };
    assert_eq!(end_of(rule(cfa::RBP, 16, 0, 0), lost), walk_end::NOT_ADVANCING);
    for ip in [0, 1, MODULE, MODULE + 0x4001, JIT - 1, u64::MAX] {
        assert_eq!(end_of(END, Registers { ip, ..here }), walk_end::NO_MAPPING, "{ip:#x}");
    }
    // The last byte of a mapping may be a call that never returns.
    assert_eq!(end_of(END, Registers { ip: MODULE + 0x4000, ..here }), walk_end::COMPLETE);
}

#[test]
fn tables_that_contradict_themselves_are_no_table() {
    let mapping = |pages| MappingRange { begin: 0, end: 1 << 40, bias: 0, first_page: u32::MAX, pages };
    for pages in [0, 1, u32::MAX] {
        let tables = Tables {
            mappings: &[mapping(pages)],
            pages: &[PageRows { first: u32::MAX, count: u32::MAX }],
            rows: &[0],
            rules: &[],
        };
        assert_eq!(tables.rule_at(0x4321_0000), Some(Rule::default()));
    }
}

#[test]
fn a_whole_stack() {
    let rules = [rule(cfa::RSP, 16, rbp::SAME, 0), rule(cfa::RBP, 16, rbp::AT_CFA, -16), END];
    // malloc's caller, a JIT frame, a function with a frame pointer, the thread's first function.
    let stack = [0, JIT + 9, word(5), at(1), 0, word(9), at(2), 0];
    let registers = at_registers(at(0), word(0), word(2));
    let found = with_rules(&rules, |tables| walk(registers, tables, &mut memory(&stack)));
    let frames = vec![at(0), JIT + 9, at(1), at(2)];
    assert_eq!(found, Walk { frames, guessed: [0b100, 0, 0, 0], end: walk_end::COMPLETE });
}

#[test]
fn the_frame_limit_cuts_the_stack_but_not_one_frame_too_early() {
    let rules = [rule(cfa::RSP, 8, rbp::SAME, 0), END];
    let registers = at_registers(at(0), word(0), 0);
    let walk_of = |depth: usize| {
        let mut stack = vec![at(0); depth - 2];
        stack.push(at(1));
        with_rules(&rules, |tables| walk(registers, tables, &mut memory(&stack)))
    };
    let whole = walk_of(MAX_FRAMES);
    assert_eq!((whole.frames.len(), whole.end), (MAX_FRAMES, walk_end::COMPLETE));
    let cut = walk_of(MAX_FRAMES + 1);
    assert_eq!((cut.frames.len(), cut.end), (MAX_FRAMES, walk_end::TRUNCATED));
}

#[test]
fn guesses_are_marked_up_to_the_last_frame() {
    let stack: Vec<u64> =
        (0..2 * MAX_FRAMES as u64 + 8).map(|i| if i % 2 == 0 { word(i + 2) } else { JIT + 5 }).collect();
    let registers = at_registers(JIT + 5, word(0), word(0));
    let found = with_rules(&[], |tables| walk(registers, tables, &mut memory(&stack)));
    assert_eq!(found.guessed, [u64::MAX - 1, u64::MAX, u64::MAX, u64::MAX]);
    assert_eq!((found.frames.len(), found.end), (MAX_FRAMES, walk_end::TRUNCATED));
}
