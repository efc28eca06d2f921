//! The same addresses and the same stack through framehop and through our rows, tables and step.

use framehop::{
    ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};
use heapscope::unwind::{
    rows::{Pruning, rows, rows_with},
    walk::{Found, Rbx, Registers, Step, Tables, step},
};
use object::{Object, ObjectSection};
use profiler_common::{
    records::walk_end,
    tables::{Rule, cfa, rbp},
};

use crate::{
    compared::Compared,
    every,
    files::{BIAS, Subject, with_tables},
};

/// rsp of the frame that is stepped from.
const SP: u64 = 0x7ffc_0000_0000;
/// rbp of that frame, above rsp as in a real one.
const BP: u64 = SP + 0x8_0000;

/// Undescribed bytes behind a file's entry point that are taken for the first function (`unwind/rows.rs`).
const ENTRY_CODE: u64 = 128;

/// A stack whose every word tells its own address, and could be a stack address itself (for rules that dereference).
fn word_at(address: u64) -> u64 {
    address.wrapping_add(0x1000_0000)
}

/// What one of the two unwinders says of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Caller { ip: u64, sp: u64, bp: u64 },
    End,
    Failed,
}

/// What a frame-pointer step finds.
fn guess() -> Answer {
    Answer::Caller { ip: word_at(BP + 8), sp: BP + 16, bp: word_at(BP) }
}

fn our_answer(tables: &Tables<'_>, address: u64) -> Answer {
    let mut registers = Registers { ip: address + 1, sp: SP, bp: BP, bx: Rbx::Value(SP) };
    match step(&mut registers, Found::Called, tables, &mut |address| Some(word_at(address))) {
        Step::Caller(_) => Answer::Caller { ip: registers.ip, sp: registers.sp, bp: registers.bp },
        Step::End(walk_end::COMPLETE) => Answer::End,
        Step::End(_) => Answer::Failed,
    }
}

fn their_answer(unwinder: &UnwinderX86_64<&[u8]>, cache: &mut CacheX86_64, address: u64) -> Answer {
    let mut registers = UnwindRegsX86_64::new(address + 1, SP, BP);
    let frame = FrameAddress::from_return_address(address + 1).unwrap();
    match unwinder.unwind_frame(frame, &mut registers, cache, &mut |address| Ok(word_at(address))) {
        Ok(Some(ip)) => Answer::Caller { ip, sp: registers.sp(), bp: registers.bp() },
        Ok(None) => Answer::End,
        Err(_) => Answer::Failed,
    }
}

/// Compares at the calls with the table as it is used, and at the first and the last byte of every row with the full
/// one.
pub(crate) fn compare(subject: &Subject) {
    let file = object::File::parse(&*subject.bytes).unwrap();
    let section = file.section_by_name(".eh_frame").unwrap();
    let (start, bytes) = (section.address(), section.data().unwrap());
    let full = rows_with(&subject.bytes, Pruning::None).unwrap();
    let mut unwinder = UnwinderX86_64::new();
    unwinder.add_module(Module::new(
        subject.name(),
        BIAS..BIAS + full.rows.last().unwrap().start.0,
        BIAS,
        ExplicitModuleSectionInfo {
            base_svma: 0,
            eh_frame_svma: Some(start..start + bytes.len() as u64),
            eh_frame: Some(bytes),
            ..Default::default()
        },
    ));
    let mut cache = CacheX86_64::new();
    let entry = file.entry()..file.entry() + ENTRY_CODE;
    let mut compare_at = |what: &str, tables: &Tables<'_>, addresses: &[u64]| {
        let mut compared = Compared::default();
        for svma in addresses.iter().step_by(every(addresses.len())) {
            let ours = our_answer(tables, BIAS + svma);
            let theirs = their_answer(&unwinder, &mut cache, BIAS + svma);
            let rule = tables.rule_at(BIAS + svma).unwrap();
            if ours == theirs {
                compared.agree();
            } else {
                let reason = reason(*svma, rule, ours, theirs, entry.contains(svma));
                compared.differ(reason, || format!("{svma:#x}: {ours:x?} and {theirs:x?} by {rule:?}"));
            }
        }
        compared.conclude(&format!("framehop, {what} of {}", subject.name()));
    };
    with_tables(&rows(&subject.bytes).unwrap(), |tables| compare_at("calls", tables, &subject.calls));
    let edges: Vec<_> =
        full.rows.windows(2).flat_map(|pair| [pair[0].start.0, pair[1].start.0 - 1]).collect();
    with_tables(&full, |tables| compare_at("rows", tables, &edges));
}

/// Why the two may differ, where it is no fault.
fn reason(svma: u64, rule: Rule, ours: Answer, theirs: Answer, at_entry: bool) -> Option<&'static str> {
    Some(match (rule.cfa_kind, rule.rbp_kind) {
        // They take any register that they do not follow for rsp or rbp. We say that we cannot.
        (cfa::UNSUPPORTED, _) if ours == Answer::Failed => "unsupported by us",
        // They follow rsp and rbp only, and go by frame pointer where a rule names another register.
        (cfa::RBX, _) if theirs == guess() => "rbx is not followed by them",
        // They have no memory to evaluate an expression with, and go by frame pointer instead.
        (cfa::SIGNAL | cfa::RSP_DEREF | cfa::RBP_DEREF, _) if theirs == guess() => "no dereference by them",
        // We test the address that is looked up, they the return address behind it. No call returns into a stub, and
        // where a signal interrupted one, both test the same.
        (cfa::PLT, _) if svma % 16 == 15 => "last byte of a PLT stub",
        // They guess by frame pointer where nothing describes the text; we know the entry point.
        (cfa::END, _) if theirs == guess() && at_entry => "entry point",
        // They keep an rbp that they cannot find; we call it lost.
        (cfa::RSP..=cfa::RSP_DEREF, rbp::UNKNOWN) => "lost rbp",
        // They divide offsets by 8.
        _ if rule.cfa_offset % 8 != 0 || rule.rbp_offset % 8 != 0 => "offset not a multiple of 8",
        _ => return None,
    })
}
