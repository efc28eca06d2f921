//! Debug information that lies: names that are each other's, functions within functions without end, counts without
//! measure. What is read of it is a name or none, never a hang.

use crate::{
    frames_at, function_at, isolated, module_of,
    support::{
        case::{Case, case},
        elf::{Section, TEXT, elf},
    },
};

pub(crate) const CASES: &[Case] = &[
    case("dwarf_truncated_at_every_length", || isolated("dwarf_truncated_at_every_length", truncated)),
    case("dwarf_bytes_damaged", || isolated("dwarf_bytes_damaged", bytes_damaged)),
    case("dwarf_cyclic", || isolated("dwarf_cyclic", cyclic)),
    case("dwarf_deep", || isolated("dwarf_deep", deep)),
    case("dwarf_huge_counts", || isolated("dwarf_huge_counts", huge_counts)),
];

/// What a compiler made of `profiler/fuzz/seeds/shelf.c`: sections one behind the other, each behind its length.
const REAL: [&[u8]; 2] = [
    include_bytes!("../../fuzz/seeds/elf_names/dwarf4"),
    include_bytes!("../../fuzz/seeds/elf_names/dwarf5"),
];
const SECTIONS: [&str; 8] = [
    ".debug_info",
    ".debug_abbrev",
    ".debug_line",
    ".debug_str",
    ".debug_line_str",
    ".debug_rnglists",
    ".debug_ranges",
    ".debug_aranges",
];

fn real(mut bytes: &[u8]) -> Vec<Section> {
    let mut sections = vec![Section::text(vec![0x90; 0x1000])];
    for name in SECTIONS {
        let (length, rest) = bytes.split_first_chunk().unwrap();
        let (data, rest) = rest.split_at(u16::from_le_bytes(*length).into());
        bytes = rest;
        sections.push(Section::unloaded(name, data.to_vec()));
    }
    sections
}

/// Looks up the addresses; what is found is whole.
fn look(sections: &[Section], addresses: impl IntoIterator<Item = u64>) {
    let module = module_of(&elf(sections)).unwrap();
    for at in addresses {
        let frames = frames_at(&module, at);
        assert!((1..=65).contains(&frames.len()) && frames.last().is_some_and(|frame| !frame.inlined));
    }
}

fn truncated() {
    for bytes in REAL {
        let whole = real(bytes);
        assert_eq!(function_at(&module_of(&elf(&whole)).unwrap(), TEXT + 0x48).as_deref(), Some("shelf"));
        for section in 1..whole.len() {
            for length in 0..whole[section].data.len() {
                let mut damaged = whole.clone();
                damaged[section].data.truncate(length);
                look(&damaged, [TEXT + 0x48]);
            }
        }
    }
}

fn bytes_damaged() {
    for bytes in REAL {
        let whole = real(bytes);
        for section in 1..whole.len() {
            for at in 0..whole[section].data.len() {
                let mut damaged = whole.clone();
                damaged[section].data[at] ^= 0xFF;
                look(&damaged, [TEXT + 0x48]);
            }
        }
    }
}

/// Abbreviations by number: 1 a unit, 2 a named function, 3 one that is specified elsewhere, 4 one whose origin is
/// elsewhere, 5 an inlined function, 6 a block. All but 3 and 4 have children. Written as tag, children, attributes.
const ABBREVIATIONS: &[u8] = &[
    1, 0x11, 1, 0x11, 0x01, 0x12, 0x07, 0, 0, // DW_TAG_compile_unit: low_pc addr, high_pc data8
    2, 0x2E, 1, 0x03, 0x08, 0x11, 0x01, 0x12, 0x07, 0, 0, // DW_TAG_subprogram: name string
    3, 0x2E, 0, 0x47, 0x13, 0x11, 0x01, 0x12, 0x07, 0, 0, // specification ref4
    4, 0x2E, 0, 0x31, 0x13, 0x11, 0x01, 0x12, 0x07, 0, 0, // abstract_origin ref4
    5, 0x1D, 1, 0x31, 0x13, 0x11, 0x01, 0x12, 0x07, 0,
    0, // DW_TAG_inlined_subroutine: abstract_origin ref4
    6, 0x0B, 1, 0, 0, // DW_TAG_lexical_block
    0,
];
/// Where the first entry behind the unit's own lies: 11 bytes of header, 17 of the unit's entry.
const FIRST: u32 = 28;
/// Bytes of an entry with a reference.
const REFERRING: u32 = 21;

/// The two addresses that most entries have: where they begin, and how long they are.
fn range(start: u64, size: u64) -> Vec<u8> {
    [start.to_le_bytes(), size.to_le_bytes()].concat()
}

/// An entry that refers to another.
fn referring(abbreviation: u8, to: u32) -> Vec<u8> {
    [&[abbreviation][..], &to.to_le_bytes(), &range(TEXT, 0x1000)].concat()
}

/// A file with one unit of DWARF 4 that has these entries.
fn unit(entries: &[u8]) -> Vec<Section> {
    let mut body = vec![4, 0, 0, 0, 0, 0, 8, 1];
    body.extend(range(TEXT, 0x1000));
    assert_eq!(body.len() + 4, FIRST as usize);
    body.extend(entries);
    let info = [&u32::try_from(body.len()).unwrap().to_le_bytes(), &body[..]].concat();
    vec![
        Section::text(vec![0x90; 0x1000]),
        Section::unloaded(".debug_info", info),
        Section::unloaded(".debug_abbrev", ABBREVIATIONS.to_vec()),
    ]
}

fn cyclic() {
    // The unit is as a reader wants it: a function with a name is found.
    let named = [&[2][..], b"named\0", &range(TEXT, 0x1000), &[0]].concat();
    assert_eq!(function_at(&module_of(&elf(&unit(&named))).unwrap(), TEXT).as_deref(), Some("named"));
    for abbreviation in [3, 4, 5] {
        let end: &[u8] = if abbreviation == 5 { &[0, 0] } else { &[0] };
        // Itself; each other's; in a ring of a thousand; a unit; beyond the unit.
        for to in [FIRST, FIRST + REFERRING, 11, 0, u32::MAX] {
            let two = [referring(abbreviation, to), referring(abbreviation, FIRST), end.to_vec()].concat();
            look(&unit(&two), [TEXT, TEXT + 0x10]);
            let inside = [&named[..named.len() - 1], &two, &[0]].concat();
            look(&unit(&inside), [TEXT, TEXT + 0x10]);
        }
        let ring = (0..1000).map(|number| referring(abbreviation, FIRST + (number + 1) % 1000 * REFERRING));
        look(&unit(&ring.collect::<Vec<_>>().concat()), [TEXT]);
        // A straight chain of 100,000: each name is the next one's.
        let chain = (1..100_000).map(|number| referring(abbreviation, FIRST + number * REFERRING));
        look(&unit(&chain.collect::<Vec<_>>().concat()), [TEXT]);
    }
}

fn deep() {
    let function = [&[2][..], b"deep\0", &range(TEXT, 0x1000)].concat();
    for depth in [60, 1000, 200_000] {
        let blocks = [&function[..], &vec![6; depth], &vec![0; depth + 2]].concat();
        look(&unit(&blocks), [TEXT]);
        let inlined = [&function[..], &referring(5, FIRST).repeat(depth), &vec![0; depth + 2]].concat();
        look(&unit(&inlined), [TEXT]);
        let functions = [&function.repeat(depth)[..], &vec![0; depth + 2]].concat();
        look(&unit(&functions), [TEXT]);
        // The same without the ends.
        look(&unit(&referring(5, FIRST).repeat(depth)), [TEXT]);
    }
}

fn huge_counts() {
    const MOST: [u8; 10] = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1];
    let four_gib: &[u8] = &[0x80, 0x80, 0x80, 0x80, 0x10];
    // A header of a line program of version 5 whose folders and files are so many, with entries of no bytes and of one.
    for count in [&MOST, four_gib] {
        for format in [&[0][..], &[1, 1, 0x0B], &[1, 2, 0x19]] {
            let mut header = vec![1, 1, 1, 0xFB, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
            for _ in 0..2 {
                header.extend([format, count].concat());
            }
            let mut program = vec![5, 0, 8, 0];
            program.extend(u32::try_from(header.len()).unwrap().to_le_bytes());
            program.extend(header);
            // Addresses without end: DW_LNS_advance_pc and DW_LNS_advance_line by so much, DW_LNS_copy.
            program.extend([&[2], count, &[3], count, &[1]].concat().repeat(1000));
            let line = [&u32::try_from(program.len()).unwrap().to_le_bytes(), &program[..]].concat();
            let mut sections = real(REAL[1]);
            sections[3].data = line;
            look(&sections, [TEXT + 0x48]);
        }
        // Abbreviations of such a number, and attributes of such a form.
        for field in 0..4 {
            let mut fields: Vec<&[u8]> = vec![&[1], &[0x11], &[1], &[0x11, 1, 0, 0, 0]];
            fields[field] = count;
            let mut sections = real(REAL[1]);
            sections[2].data = fields.concat();
            look(&sections, [TEXT + 0x48]);
        }
    }
    // Lengths of units, lists and tables that no section has.
    for section in 1..SECTIONS.len() {
        for length in [&[0xFF, 0xFF, 0xFF, 0xEF][..], &[[0xFF; 4], [0xFF; 4], [0xFF; 4]].concat()] {
            let mut sections = real(REAL[1]);
            let data = &mut sections[section].data;
            let there = length.len().min(data.len());
            data[..there].copy_from_slice(&length[..there]);
            look(&sections, [TEXT + 0x48]);
        }
    }
}
