//! Attaching to a process that has mapped damaged libraries: the account is what it would be without them, and each
//! file of which something is lost is named in a warning.

use std::{fs, path::Path, process::Command};

use object::{Object, ObjectSection};
use tempfile::TempDir;

use crate::support::{
    case::{Case, case_with},
    fixture,
    heapscope::Heapscope,
    needs::{Need, library},
    program::Program,
};

pub(crate) const CASES: &[Case] = &[case_with(
    "attach_with_damaged_libraries",
    &[Need::Probes, Need::Program("cc"), Need::Library("libz.so.1")],
    with_damaged_libraries,
)];

fn with_damaged_libraries() {
    let whole = fs::read(library("libz.so.1").unwrap()).unwrap();
    let section = |name: &str| {
        let file = object::File::parse(&*whole).unwrap();
        let (start, size) = file.section_by_name(name).unwrap().file_range().unwrap();
        usize::try_from(start).unwrap()..usize::try_from(start + size).unwrap()
    };
    let filled = |name: &str, byte: u8| {
        let mut damaged = whole.clone();
        damaged[section(name)].fill(byte);
        damaged
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        damaged
    };
    // Each entry of the call frame information keeps its length and loses what it says.
    let mut hollow = whole.clone();
    let mut at = section(".eh_frame").start;
    while let Some(length) =
        hollow[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).filter(|l| *l > 0)
    {
        let next = at + 4 + usize::try_from(length).unwrap();
        hollow[at + 8..next].fill(0xEE);
        at = next;
    }
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let lossy = [
        file("libnoframes.so", &filled(".eh_frame", 0xFF)),
        file("libhollow.so", &hollow),
        file("libphnum.so", &with(56, &[0xFF, 0xFF])),
        file("libshoff.so", &with(40, &[0xFF; 8])),
        file("libcut.so", &whole[..5000]),
        file("libnotelf.so", &with(0, b"#!/bin/sh")),
    ];
    // Names alone are lost, and those nobody asks for.
    let harmless = [
        file("libwhole.so", &whole),
        file("libdynsym.so", &filled(".dynsym", 0xAA)),
        file("libdynstr.so", &filled(".dynstr", b'x')),
        file("libdynamic.so", &filled(".dynamic", 0x55)),
        file("libgnuhash.so", &filled(".gnu.hash", 0xFF)),
    ];
    let mut program = Program::start_until(
        Command::new(fixture::build("mapper.c", &[])).args(&lossy).args(&harmless),
        "ready",
    );
    let heapscope = Heapscope::attach(program.pid(), &[]);
    for _ in 0..3 {
        assert_eq!(program.ask("more"), "block");
    }
    let report = heapscope.stop();
    assert!(program.is_alive());
    report.assert_nothing_lost();
    report.assert_stacks_whole();
    let main = report.below("main");
    assert_eq!((main.inuse_space, main.inuse_objects), (3000, 3));
    let named = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        report.quality.warnings.iter().any(|warning| warning.contains(name))
    };
    for path in &lossy {
        assert!(named(path), "{} is not among {:#?}", path.display(), report.quality.warnings);
    }
    assert!(!named(&harmless[0]), "{:#?}", report.quality.warnings);
}
