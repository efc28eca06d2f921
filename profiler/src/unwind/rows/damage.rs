//! What damaged, hostile and stripped files may do: lose rows, never sense, never time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::unwind::{
    Unsupported,
    elf::{Format, FrameSection},
    table::{Capacity, TableBuilder},
};

/// A bound that turns a hang into a failure, on however crowded a machine.
const HANG: Duration = Duration::from_secs(120);

/// A library that this test has mapped, so that it exists wherever the test runs.
fn mapped_library(name: &str) -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains(name));
    fs::read(PathBuf::from(path.expect("a dynamically linked test"))).unwrap()
}

fn loader() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| mapped_library("/ld-linux-x86-64"))
}

/// What holds of the rows of any file, however damaged.
fn check_sense(module: &ModuleRows) {
    assert!(module.rows.windows(2).all(|pair| pair[0].start < pair[1].start));
    assert!(module.rows.windows(2).all(|pair| pair[0].rule != pair[1].rule));
    assert!(module.rows.iter().all(|row| row.start >= module.text_start));
    assert_eq!(module.rows.last().unwrap().rule, Rule::default());
    assert!(module.coverage.described + module.coverage.undescribed <= module.coverage.text);
    let mut builder = TableBuilder::new(Capacity { chunks: 8, pages: 4096, rules: 256 });
    if let Ok(table) = builder.add_module(module) {
        let mapping = table.mapping(
            crate::target::address::Avma(module.text_start.0),
            crate::target::address::Avma(u64::MAX),
            0,
        );
        for row in module.rows.iter().step_by(7) {
            let found = builder.tables(&[mapping]).rule_at(row.start.0).unwrap();
            assert!(found == row.rule || builder.refused_rules() + builder.crowded_pages() > 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_frames_lose_rows_but_never_sense(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut section = Image::parse(loader()).unwrap().frames[0].bytes.to_vec();
        for (at, value) in flips {
            let at = at.index(section.len());
            section[at] = value;
        }
        if let Some(cut) = cut {
            section.truncate(cut.index(section.len()));
        }
        let mut image = Image::parse(loader()).unwrap();
        image.frames[0].bytes = section.into();
        let begun = Instant::now();
        check_sense(&assemble(&image, Pruning::None, &[]));
        check_sense(&assemble(&image, Pruning::CallSites, &[]));
        prop_assert!(begun.elapsed() < HANG);
    }

    #[test]
    fn damaged_headers_are_errors_or_sense(
        flips in prop::collection::vec((0usize..1024, any::<u8>()), 1..6),
        tail in prop::collection::vec((1usize..4096, any::<u8>()), 0..6),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut file = loader().to_vec();
        for (at, value) in flips {
            file[at] = value;
        }
        // The section headers lie at the file's end.
        for (from_end, value) in tail {
            let at = file.len() - from_end;
            file[at] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let begun = Instant::now();
        if let Ok(module) = rows_with(&file, Pruning::None) {
            check_sense(&module);
        }
        prop_assert!(begun.elapsed() < HANG);
    }
}

#[test]
fn a_file_without_section_headers_has_the_same_rows() {
    for library in ["/libc.so", "/ld-linux-x86-64"] {
        let whole = mapped_library(library);
        let mut stripped = whole.clone();
        stripped[40..48].fill(0); // e_shoff
        stripped[60..64].fill(0); // e_shnum, e_shstrndx
        let (whole, stripped) = (rows(&whole).unwrap(), rows(&stripped).unwrap());
        assert!(whole.rows.len() > 100);
        assert_eq!(whole.rows, stripped.rows, "{library}");
        assert_eq!(whole.statistics, stripped.statistics, "{library}");
    }
}

#[test]
fn glibc_describes_the_byte_before_its_signal_trampoline() {
    // The handler returns to the trampoline's first byte, and the byte before that is looked up.
    const TRAMPOLINE: [u8; 9] = [0x48, 0xC7, 0xC0, 15, 0, 0, 0, 0x0F, 0x05]; // mov $15,%rax; syscall
    let libc = mapped_library("/libc.so");
    let image = Image::parse(&libc).unwrap();
    let text = &image.text[0];
    let trampoline = text.bytes.windows(9).position(|bytes| bytes == TRAMPOLINE).unwrap();
    let trampoline = text.start + trampoline as u64;
    let module = rows(&libc).unwrap();
    let row = module.rows.iter().rfind(|row| row.start.0 < trampoline).unwrap();
    assert_eq!((row.start, row.rule.cfa_kind), (Svma(trampoline - 1), cfa::SIGNAL));
}

#[test]
fn errors_name_what_is_wrong() {
    assert!(matches!(rows(b"#!/bin/sh"), Err(UnwindError::NotElf(_))));
    let mut file = loader().to_vec();
    file[18] = 183; // EM_AARCH64
    assert!(matches!(rows(&file), Err(UnwindError::WrongMachine { machine: 183 })));
}

/// An entry of `.eh_frame`: length, then `body`.
fn entry(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// A section with one CIE that runs `initial`, and FDEs with these instructions over the same text at 0x1000.
fn section_with(initial: &[u8], fdes: &[&[u8]]) -> Vec<u8> {
    let mut cie = vec![0, 0, 0, 0, 1, 0, 1, 0x78, 16];
    cie.extend(initial);
    let mut section = entry(&cie);
    for instructions in fdes {
        let mut body = u32::try_from(section.len() + 4).unwrap().to_le_bytes().to_vec();
        body.extend(0x1000u64.to_le_bytes());
        body.extend(0x100u64.to_le_bytes());
        body.extend(*instructions);
        section.extend(entry(&body));
    }
    section
}

fn assemble_section(section: &[u8]) -> ModuleRows {
    let image = Image {
        text: vec![Region { start: 0x1000, bytes: &[0xE8; 0x400] }],
        frames: vec![FrameSection {
            start: 0,
            bytes: section.into(),
            format: Format::EhFrame,
            max_fdes: u64::MAX,
        }],
        unreadable: 0,
        entry: 0,
        is_go: false,
    };
    assemble(&image, Pruning::None, &[])
}

/// `CFA = rsp + 8`, return address at CFA - 8.
const ORDINARY: [u8; 5] = [0x0C, 7, 8, 0x90, 1];

#[test]
fn a_damaged_fde_does_not_cost_those_behind_it() {
    // DW_CFA_restore_state without a state, an expression longer than the FDE, then a good one.
    let section = section_with(&ORDINARY, &[&[0x41, 0x0B], &[0x0F, 0x7F], &[0x0E, 16]]);
    let module = assemble_section(&section);
    assert_eq!((module.statistics.fdes, module.statistics.damaged_fdes), (3, 2));
    assert_eq!(module.rows[0].rule.cfa_offset, 16);
    // A CIE of an unknown version makes the FDEs that name it unreadable, and no others.
    let mut damaged = section.clone();
    damaged[8] = 99;
    let bad = damaged.len();
    damaged.extend(section_with(&ORDINARY, &[]));
    let mut fde = u32::try_from(damaged.len() + 4 - bad).unwrap().to_le_bytes().to_vec();
    fde.extend(0x1000u64.to_le_bytes());
    fde.extend(0x100u64.to_le_bytes());
    damaged.extend(entry(&fde));
    let module = assemble_section(&damaged);
    assert_eq!((module.statistics.fdes, module.statistics.damaged_fdes), (4, 3));
    assert_eq!(module.rows[0].rule.cfa_offset, 8);
}

#[test]
fn an_offset_beyond_32_bits_is_unsupported() {
    let module = assemble_section(&section_with(&ORDINARY, &[&[0x0E, 0x80, 0x80, 0x80, 0x80, 0x10]]));
    assert_eq!(Unsupported::of(module.rows[0].rule), Some(Unsupported::CfaOffset));
}

#[test]
fn work_is_bounded_where_one_long_cie_serves_many_fdes() {
    // 100,000 FDEs that would each run 200,000 instructions: an hour and more without the bound.
    let initial: Vec<u8> = [0x0A, 0x0B].repeat(100_000);
    let section = section_with(&initial, &vec![&[][..]; 100_000]);
    let begun = Instant::now();
    let module = assemble_section(&section);
    assert!(module.statistics.beyond_budget);
    assert!(begun.elapsed() < HANG, "{:?}", begun.elapsed());
}
