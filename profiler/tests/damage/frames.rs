//! Call frame information that lies: about where entries end, whom they belong to, what they describe, and how much.

use heapscope::unwind::rows::{ModuleRows, Pruning, rows_with};

use crate::{
    isolated,
    support::{
        case::{Case, case},
        elf::{Section, TEXT, elf},
        sense::check_rows,
    },
};

pub(crate) const CASES: &[Case] = &[
    case("frames_truncated_at_every_length", || isolated("frames_truncated_at_every_length", truncated)),
    case("frames_each_byte_damaged", || isolated("frames_each_byte_damaged", each_byte)),
    case("frames_overlapping", || isolated("frames_overlapping", overlapping)),
    case("frames_cyclic", || isolated("frames_cyclic", cyclic)),
    case("frames_huge_counts", || isolated("frames_huge_counts", huge_counts)),
    case("frames_of_one_long_cie", || isolated("frames_of_one_long_cie", one_long_cie)),
    case("frames_a_row_for_every_byte", || isolated("frames_a_row_for_every_byte", a_row_for_every_byte)),
];

/// What a compiler made, for text at [`TEXT`] and a section at [`EH_FRAME`].
const REAL: &[u8] = include_bytes!("../../fuzz/seeds/eh_frame/shelf5");
const EH_FRAME: u64 = 0x10_0000;

fn file_with(text_bytes: usize, eh_frame: &[u8]) -> Vec<u8> {
    let code = [0xE8, 0x90].repeat(text_bytes / 2);
    elf(&[Section::text(code), Section::loaded(".eh_frame", EH_FRAME, eh_frame.to_vec())])
}

fn rows_of(text_bytes: usize, eh_frame: &[u8]) -> ModuleRows {
    let file = file_with(text_bytes, eh_frame);
    let module = rows_with(&file, Pruning::None).unwrap();
    check_rows(&module, &file);
    module
}

/// An entry: its length, then `body`.
fn entry(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

/// A CIE without augmentation whose addresses are absolute: version 1, code and data alignment 1 and -8, RA in 16.
fn cie(instructions: &[u8]) -> Vec<u8> {
    entry(&[&[0, 0, 0, 0, 1, 0, 1, 0x78, 16], instructions].concat())
}

/// `CFA = rsp + 8`, return address at CFA - 8.
const ORDINARY: [u8; 5] = [0x0C, 7, 8, 0x90, 1];

/// An FDE at `at` in the section whose CIE lies at `of`.
fn fde(at: usize, of: usize, start: u64, size: u64, instructions: &[u8]) -> Vec<u8> {
    let distance = u32::try_from(at + 4).unwrap().wrapping_sub(u32::try_from(of).unwrap());
    entry(&[&distance.to_le_bytes(), &start.to_le_bytes()[..], &size.to_le_bytes(), instructions].concat())
}

fn truncated() {
    let whole = rows_of(0x1000, REAL);
    assert!(whole.statistics.fdes >= 4 && whole.rows.len() > 5, "{:?}", whole.statistics);
    let file = file_with(0x1000, REAL);
    for length in 0..file.len() {
        if let Ok(module) = rows_with(&file[..length], Pruning::None) {
            check_rows(&module, &file);
        }
    }
    for length in 1..REAL.len() {
        assert!(rows_of(0x1000, &REAL[..length]).statistics.fdes <= whole.statistics.fdes);
    }
}

fn each_byte() {
    for at in 0..REAL.len() {
        for value in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
            let mut damaged = REAL.to_vec();
            damaged[at] = value;
            rows_of(0x1000, &damaged);
        }
    }
}

fn overlapping() {
    // Each begins one byte behind the one before it and ends with the text; and as many for the very same bytes.
    let mut section = cie(&ORDINARY);
    for number in 0..4096 {
        let at = section.len();
        section.extend(fde(at, 0, TEXT + number, 0x4000 - number, &[0x0E, 16]));
        let at = section.len();
        section.extend(fde(at, 0, TEXT, 0x4000, &[0x41, 0x0E, 24]));
    }
    let module = rows_of(0x4000, &section);
    assert_eq!((module.statistics.fdes, module.statistics.overlapping_fdes), (8192, 8191));
    // The first of the file describes the text; nothing is described twice.
    assert_eq!((module.rows[0].rule.cfa_offset, module.coverage.described), (16, 0x4000));
}

fn cyclic() {
    // An FDE that is its own CIE, two that are each other's, one whose CIE is an FDE.
    let itself = entry(&[&4_u32.to_le_bytes()[..], &TEXT.to_le_bytes(), &16_u64.to_le_bytes()].concat());
    let module = rows_of(0x1000, &itself);
    assert_eq!((module.statistics.fdes, module.statistics.damaged_fdes), (1, 1));

    let first = fde(0, 24, TEXT, 16, &[]);
    let each_others = [&first[..], &fde(first.len(), 0, TEXT, 16, &[])].concat();
    assert_eq!(rows_of(0x1000, &each_others).statistics.damaged_fdes, 2);

    let mut chain = cie(&ORDINARY);
    let mut of = 0;
    for _ in 0..1000 {
        let at = chain.len();
        chain.extend(fde(at, of, TEXT, 16, &[]));
        of = at;
    }
    let module = rows_of(0x1000, &chain);
    assert_eq!((module.statistics.fdes, module.statistics.damaged_fdes), (1000, 999));
}

fn huge_counts() {
    const MOST: [u8; 10] = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1];
    let four_gib = [0x80, 0x80, 0x80, 0x80, 0x10];
    for count in [&MOST[..], &four_gib] {
        // Augmentation data, an expression, a register, an offset and an advance of that many.
        let augmented = entry(&[&[0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16][..], count].concat());
        let mut sections = vec![augmented];
        for instruction in
            [&[0x0F][..], &[0x10, 6], &[0x0C, 7], &[0x0C], &[0x05], &[0x0E], &[0x16, 6], &[0x2E]]
        {
            sections.push(cie(&[&ORDINARY[..], instruction, count].concat()));
        }
        for mut section in sections {
            let at = section.len();
            section.extend(fde(at, 0, TEXT, 16, &[]));
            rows_of(0x1000, &section);
        }
    }
    // An entry and an FDE that claim 2^63 bytes, and advances beyond all addresses.
    let mut endless = [&[0xFF; 4][..], &(1_u64 << 63).to_le_bytes()].concat();
    endless.extend(cie(&ORDINARY));
    assert_eq!(rows_of(0x1000, &endless).statistics.fdes, 0);
    let mut section = cie(&ORDINARY);
    for (start, size) in [(TEXT, 1 << 63), (TEXT, u64::MAX), (u64::MAX, u64::MAX), (0, u64::MAX), (TEXT, 0)] {
        let at = section.len();
        section.extend(fde(at, 0, start, size, &[]));
    }
    let at = section.len();
    section.extend(fde(at, 0, TEXT, 16, &[0x04, 0xFF, 0xFF, 0xFF, 0xFF].repeat(1000)));
    let module = rows_of(0x1000, &section);
    assert_eq!((module.statistics.fdes, module.coverage.described), (6, 16), "{:?}", module.statistics);
}

fn one_long_cie() {
    // 50,000 FDEs that would each run 100,000 instructions.
    let mut section = cie(&[0x0A, 0x0B].repeat(50_000));
    for _ in 0..50_000 {
        let at = section.len();
        section.extend(fde(at, 0, TEXT, 16, &[]));
    }
    assert!(rows_of(0x1000, &section).statistics.beyond_budget);
}

fn a_row_for_every_byte() {
    // A megabyte of text with another rule at each byte: the densest table that a file can ask for.
    let text = 1 << 20;
    let mut section = cie(&ORDINARY);
    let at = section.len();
    section.extend(fde(at, 0, TEXT, text as u64, &[0x41, 0x0E, 16, 0x41, 0x0E, 24].repeat(text / 2)));
    let module = rows_of(text, &section);
    assert!(module.statistics.raw_rows >= text as u64);
}
