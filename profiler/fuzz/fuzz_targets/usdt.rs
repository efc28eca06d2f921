//! The notes of USDT probes: in a whole ELF file, or alone in a valid one; and where they say that arguments are.
#![no_main]

use heapscope::target::usdt::{self, MEMORY_PROVIDER, UsdtProbe};
use heapscope_fuzz::{module_in_memory, with_usdt_notes};
use libfuzzer_sys::fuzz_target;
use profiler_common::told::Argument;

const REGISTERS: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// The probes of a file, which are the same for those who read it as bytes and as a module.
fn probes(file: &[u8]) -> Vec<UsdtProbe> {
    let probes = usdt::find_in_bytes(file, MEMORY_PROVIDER);
    if let Ok(module) = module_in_memory(file) {
        assert_eq!(usdt::find_in(&module, MEMORY_PROVIDER), probes);
        for probe in &probes {
            let _ = module.file_offset_of(probe.address);
            let _ = probe.semaphore.and_then(|address| module.file_offset_of(address));
        }
    }
    assert!(probes.len() <= 1024 && probes.len() <= file.len() / 36, "each has a note of its own");
    for probe in &probes {
        assert!(![&probe.name, &probe.arguments].iter().any(|text| text.contains('\0')));
        check_arguments(&probe.arguments);
    }
    probes
}

/// Arguments are understood in full or not at all: what was understood, written anew, means the same.
fn check_arguments(text: &str) {
    let read = usdt::arguments::<3>(text);
    if let Ok([first, ..]) = &read {
        assert_eq!(usdt::arguments::<1>(text).as_ref(), Ok(&[*first]), "{text:?}");
    }
    match read {
        Ok(arguments) => {
            let read: Vec<&str> = text.split_ascii_whitespace().take(3).collect();
            assert!(!read.iter().any(|text| text.contains('+')), "no assembler writes {text:?}");
            let again = arguments.map(written).join(" ");
            assert_eq!(usdt::arguments::<3>(&again), Ok(arguments), "{text:?} is {again:?}");
        }
        Err(refused) => assert!(text.contains(&refused)),
    }
}

fn written(argument: Argument) -> String {
    let Argument { offset, kind, register, index, shift, bytes, signed, padding } = argument;
    assert!([1, 2, 4, 8].contains(&bytes) && signed <= 1 && shift <= 3 && padding == [0, 0]);
    let name = |register: u8| REGISTERS[usize::from(register)];
    let sign = if signed == 1 { "-" } else { "" };
    let place = match kind {
        Argument::CONSTANT => format!("${offset}"),
        Argument::REGISTER => format!("%{}", name(register)),
        Argument::MEMORY => format!("{offset}(%{})", name(register)),
        Argument::INDEXED => format!("{offset}(%{},%{},{})", name(register), name(index), 1 << shift),
        _ => panic!("an argument of kind {kind}"),
    };
    format!("{sign}{bytes}@{place}")
}

fuzz_target!(|input: &[u8]| {
    probes(input);
    probes(&with_usdt_notes(input));
    check_arguments(&String::from_utf8_lossy(input));
});
