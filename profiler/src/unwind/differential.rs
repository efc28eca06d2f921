//! The same addresses and the same stack through framehop and through our rows, tables and step; and the pruned rows
//! against the full ones at every call that a disassembler finds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::HashMap, fs, path::Path};

use framehop::{
    ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use profiler_common::{
    records::walk_end,
    tables::{MappingRange, cfa, rbp},
};

use super::{
    elf::Image,
    rows::{ModuleRows, Pruning, rows, rows_with},
    table::{Capacity, TableBuilder},
    walk::{Found, Rbx, Registers, Step, Tables, step},
};
use crate::target::address::Avma;

/// Where the module is mapped, minus its SVMA.
const BIAS: u64 = 0x5555_0000_0000;
/// rsp of the frame that is stepped from.
const SP: u64 = 0x7ffc_0000_0000;
/// rbp of that frame, above rsp as in a real one.
const BP: u64 = SP + 0x8_0000;
/// Addresses compared per file, at most.
const COMPARED: usize = 12_000;

const ROOMY: Capacity = Capacity { chunks: 512, pages: 1 << 16, rules: 65536 };

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

/// The tables of one module, mapped at [`BIAS`].
fn with_tables<T>(module: &ModuleRows, body: impl FnOnce(&Tables<'_>) -> T) -> T {
    let mut builder = TableBuilder::new(ROOMY);
    let table = builder.add_module(module).unwrap();
    let begin = Avma(BIAS + module.text_start.0);
    let end = Avma(BIAS + module.rows.last().unwrap().start.0);
    let mapping: MappingRange = table.mapping(begin, end, BIAS);
    body(&builder.tables(&[mapping]))
}

/// Compares the two unwinders on a file, and checks that every difference is one of those explained here.
fn compare_with_framehop(path: &Path) {
    let file = fs::read(path).unwrap();
    let module = rows_with(&file, Pruning::None).unwrap();
    let image = Image::parse(&file).unwrap();
    let frames = image.frames[0].region;
    let mut unwinder = UnwinderX86_64::new();
    unwinder.add_module(Module::new(
        path.display().to_string(),
        BIAS..BIAS + module.rows.last().unwrap().start.0,
        BIAS,
        ExplicitModuleSectionInfo {
            base_svma: 0,
            eh_frame_svma: Some(frames.start..frames.end()),
            eh_frame: Some(frames.bytes),
            ..Default::default()
        },
    ));
    let mut cache = CacheX86_64::new();
    // Of each row its first and its last byte.
    let addresses: Vec<_> = module
        .rows
        .windows(2)
        .flat_map(|pair| [pair[0].start.0, pair[1].start.0 - 1])
        .map(|svma| svma + BIAS)
        .collect();
    // Odd, so that first and last bytes both have their turn.
    let every = addresses.len().div_ceil(COMPARED) | 1;
    // At most so many bytes behind it are taken for the same code (rows.rs).
    let entry = BIAS + image.entry..BIAS + image.entry + 128;
    let mut differences: HashMap<&str, usize> = HashMap::new();
    let (mut compared, mut agreed) = (0, 0);
    let guess = Answer::Caller { ip: word_at(BP + 8), sp: BP + 16, bp: word_at(BP) };
    with_tables(&module, |tables| {
        for address in addresses.iter().step_by(every) {
            let ours = our_answer(tables, *address);
            let theirs = their_answer(&unwinder, &mut cache, *address);
            compared += 1;
            if ours == theirs {
                agreed += 1;
                continue;
            }
            let rule = tables.rule_at(*address).unwrap();
            let reason = match (rule.cfa_kind, rule.rbp_kind) {
                // They evaluate the PLT's expression, and take any register they do not know for a return address at
                // CFA - 8. We say that we cannot.
                (cfa::UNSUPPORTED, _) if ours == Answer::Failed => "unsupported",
                // They have no memory to evaluate an expression with, and go by frame pointer instead.
                (cfa::SIGNAL | cfa::RSP_DEREF | cfa::RBP_DEREF, _) if theirs == guess => "dereference",
                // They guess by frame pointer where nothing describes the text; we know the entry point.
                (cfa::END, _) if theirs == guess && entry.contains(address) => "entry point",
                // They keep an rbp that they cannot find; we call it lost.
                (cfa::RSP..=cfa::RSP_DEREF, rbp::UNKNOWN) => "lost rbp",
                // They divide offsets by 8.
                _ if rule.cfa_offset % 8 != 0 || rule.rbp_offset % 8 != 0 => "offset not a multiple of 8",
                _ => panic!("{path:?} at {:#x}: {ours:x?} and {theirs:x?} by {rule:?}", address - BIAS),
            };
            *differences.entry(reason).or_default() += 1;
        }
    });
    eprintln!("{}: {compared} compared, {agreed} agree, {differences:?}", path.display());
    assert!(compared > 500);
    assert!(agreed * 100 > compared * 99, "more than one in a hundred differs");
}

/// The pruned rows must have the right rule at the last byte of every call. Linear disassembly finds them; what it takes
/// for a call in data between functions does no harm, the rules there must agree as well.
fn compare_pruned_at_calls(path: &Path) {
    let file = fs::read(path).unwrap();
    let (full, pruned) = (rows_with(&file, Pruning::None).unwrap(), rows(&file).unwrap());
    assert!(pruned.rows.len() * 3 < full.rows.len(), "hardly anything was pruned");
    let image = Image::parse(&file).unwrap();
    let mut calls = 0;
    with_tables(&full, |full| {
        with_tables(&pruned, |pruned| {
            for text in &image.text {
                let mut decoder = Decoder::with_ip(64, text.bytes, BIAS + text.start, DecoderOptions::NONE);
                let mut instruction = Instruction::default();
                while decoder.can_decode() {
                    decoder.decode_out(&mut instruction);
                    let is_call =
                        matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
                            && (instruction.is_call_near() || instruction.is_call_near_indirect());
                    if is_call || instruction.mnemonic() == iced_x86::Mnemonic::Syscall {
                        let last_byte = instruction.next_ip() - 1;
                        assert_eq!(pruned.rule_at(last_byte), full.rule_at(last_byte), "{last_byte:#x}");
                        calls += 1;
                    }
                }
            }
        });
    });
    eprintln!("{}: {calls} calls have the rule of the full table", path.display());
    assert!(calls > 1000);
}

/// The library of this name that this test has mapped, or one of the usual places has.
fn library(name: &str) -> Option<std::path::PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapped =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains(name));
    let usual = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    mapped.map(Into::into).or_else(|| {
        usual
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|entries| entries.filter_map(Result::ok))
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().contains(name))
    })
}

fn on_library(name: &str, check: fn(&Path)) {
    match library(name) {
        Some(path) => check(&path),
        None => eprintln!("skipped: no {name} on this machine"),
    }
}

#[test]
fn framehop_agrees_on_libc() {
    compare_with_framehop(&library("/libc.so.6").expect("a test linked with glibc"));
}

#[test]
fn framehop_agrees_on_the_loader() {
    compare_with_framehop(&library("/ld-linux-x86-64").expect("a test linked with glibc"));
}

#[test]
fn framehop_agrees_on_libstdcxx() {
    on_library("/libstdc++.so.6", compare_with_framehop);
}

#[test]
fn framehop_agrees_on_libpython() {
    on_library("/libpython3.", compare_with_framehop);
}

#[test]
fn pruning_leaves_every_call_of_libc_its_rule() {
    compare_pruned_at_calls(&library("/libc.so.6").expect("a test linked with glibc"));
}

#[test]
fn pruning_leaves_every_call_of_libpython_its_rule() {
    on_library("/libpython3.", compare_pruned_at_calls);
}
