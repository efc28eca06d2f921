//! ELF headers, sections and symbols that lie: cut short, on top of each other, pointing at themselves, without measure.

use heapscope::{
    target::{allocator::find_in, placement::place},
    unwind::rows::rows,
};
use object::elf::{SHT_DYNAMIC, SHT_GNU_HASH, SHT_HASH, SHT_RELA};

use crate::{
    frames_at, function_at, isolated, module_of,
    support::{
        case::{Case, case},
        elf::{Section, TEXT, elf, function_symbol},
        sense::{check_module, check_rows},
    },
};

pub(crate) const CASES: &[Case] = &[
    case("headers_truncated_at_every_length", || isolated("headers_truncated_at_every_length", truncated)),
    case("headers_each_byte_damaged", || isolated("headers_each_byte_damaged", each_byte)),
    case("headers_overlapping", || isolated("headers_overlapping", overlapping)),
    case("headers_cyclic", || isolated("headers_cyclic", cyclic)),
    case("headers_huge_sizes", || isolated("headers_huge_sizes", huge_sizes)),
    case("headers_huge_counts", || isolated("headers_huge_counts", huge_counts)),
    case("headers_sections_without_number", || {
        isolated("headers_sections_without_number", sections_without_number)
    }),
    case("headers_functions_without_number", || {
        isolated("headers_functions_without_number", functions_without_number)
    }),
];

/// A library of 5 kB with a build-id, `.dynsym`, relocations and `.eh_frame_hdr`.
const REAL: &[u8] = include_bytes!("../../fuzz/seeds/module/bare.so");

/// Has everything of ours read the file; returns whether it passed as a module.
fn read(file: &[u8]) -> bool {
    if let Ok(module) = rows(file) {
        check_rows(&module, file);
    }
    let Ok(module) = module_of(file) else { return false };
    check_module(&module);
    if let Ok(allocators) = find_in(&module) {
        for allocator in &allocators {
            assert!(allocator.functions.len() + allocator.wrappers.len() <= 5 * 128);
            for function in &allocator.functions {
                let _ = place(&module, function);
            }
        }
    }
    assert!(!frames_at(&module, TEXT + 0x10).is_empty());
    true
}

/// Text and the symbols of an allocator.
fn sections() -> Vec<Section> {
    let symbols =
        [vec![0; 24], function_symbol(1, TEXT, 0x20), function_symbol(8, TEXT + 0x20, 0x20)].concat();
    vec![
        Section::text([0x55, 0xC3].repeat(0x80)),
        Section::strings(".strtab", b"\0malloc\0free\0".to_vec()),
        Section::symbols(".symtab", 2, symbols),
    ]
}

fn truncated() {
    assert!(read(REAL));
    let whole = module_of(&elf(&sections())).unwrap();
    assert_eq!(function_at(&whole, TEXT + 0x21).as_deref(), Some("free"));
    assert_eq!(find_in(&whole).unwrap().len(), 1);
    for file in [REAL, &elf(&sections())] {
        for length in 0..file.len() {
            read(&file[..length]);
        }
    }
}

fn each_byte() {
    // The file header and the program headers, then the section headers at the end.
    for at in (0..0x240).chain(REAL.len() - 0x300..REAL.len()) {
        for value in [0x00, 0xFF] {
            let mut damaged = REAL.to_vec();
            damaged[at] = value;
            read(&damaged);
        }
    }
}

fn overlapping() {
    let whole_file = |mut section: Section| {
        (section.claimed_offset, section.claimed_size) = (Some(0), Some(0x800));
        section
    };
    let mut all = sections();
    all.push(Section::loaded(".eh_frame", 0, vec![0; 64]));
    all.push(Section::loaded(".note.gnu.build-id", 0x10, vec![0; 64]));
    assert!(read(&elf(&all.into_iter().map(whole_file).collect::<Vec<_>>())));
    // A thousand segments of text, each over the one before it.
    let many = (0..500).map(|number| Section { address: TEXT + number, ..Section::text(vec![0xE8; 0x800]) });
    assert!(read(&elf(&many.collect::<Vec<_>>())));
}

fn cyclic() {
    let mut all = sections();
    // Strings that have no end, a table of names that is its own table of symbols, and one that is linked to itself.
    all[1].data = vec![b'm'; 0x1000];
    assert!(read(&elf(&all)));
    let mut own = sections();
    own[2].link = 3;
    assert!(read(&elf(&own)));
    let mut names = sections();
    names[1].link = 2;
    names[2].link = 0xFFFF;
    assert!(read(&elf(&names)));
    // Hash tables whose chains run in a circle: bucket 1 leads to symbol 1, which leads to itself.
    let hash: Vec<u8> = [1_u32, 3, 1, 0, 1, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
    let gnu_hash: Vec<u8> =
        [1_u32, 1, 1, 0, u32::MAX, u32::MAX, 1, 2, 2, 2].iter().flat_map(|word| word.to_le_bytes()).collect();
    for (name, kind, data) in [(".hash", SHT_HASH, hash), (".gnu.hash", SHT_GNU_HASH, gnu_hash)] {
        let mut dynamic = sections();
        dynamic[2] = Section::symbols(".dynsym", 2, dynamic[2].data.clone());
        dynamic.push(Section { kind, link: 3, ..Section::loaded(name, 0x10_0000, data) });
        assert!(read(&elf(&dynamic)));
    }
    // Relocations whose symbols are relocations, and a dynamic section that begins again.
    let mut relocated = sections();
    relocated.push(Section {
        kind: SHT_RELA,
        link: 4,
        entry_size: 24,
        ..Section::unloaded(".rela", vec![7; 240])
    });
    relocated.push(Section {
        kind: SHT_DYNAMIC,
        link: 5,
        entry_size: 16,
        ..Section::loaded(".dynamic", 0x20_0000, vec![5; 160])
    });
    assert!(read(&elf(&relocated)));
}

fn huge_sizes() {
    for size in [1 << 63, u64::MAX, u64::MAX - 0x1000, 1 << 40, 1 << 32] {
        for damaged in 0..5 {
            let mut all = sections();
            all.push(Section::loaded(".eh_frame", 0x10_0000, vec![0; 64]));
            all.push(Section::loaded(
                ".note.gnu.build-id",
                0x20_0000,
                vec![4, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0x7F, 3, 0],
            ));
            all[damaged].claimed_size = Some(size);
            read(&elf(&all));
            all[damaged].claimed_offset = Some(size);
            read(&elf(&all));
        }
        let mut symbols = sections();
        symbols[2].data =
            [vec![0; 24], function_symbol(1, TEXT, size), function_symbol(8, size, size)].concat();
        assert!(read(&elf(&symbols)));
    }
}

fn huge_counts() {
    let file = elf(&sections());
    // Program headers, section headers, the index of their names, and the size of each header: 65535 of them.
    for field in [54, 56, 58, 60, 62] {
        for count in [u16::MAX, 0xFF00, 0] {
            let mut damaged = file.clone();
            damaged[field..field + 2].copy_from_slice(&count.to_le_bytes());
            read(&damaged);
        }
    }
    // PN_XNUM, and no number of sections: then the first section header has the numbers (System V ABI, chapter 4).
    let headers = usize::try_from(u64::from_le_bytes(*file[40..].first_chunk().unwrap())).unwrap();
    for number in [u64::MAX, 1 << 32, 1 << 20] {
        let mut damaged = file.clone();
        damaged[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
        damaged[60..62].copy_from_slice(&[0, 0]);
        damaged[62..64].copy_from_slice(&u16::MAX.to_le_bytes());
        damaged[headers + 32..headers + 40].copy_from_slice(&number.to_le_bytes());
        damaged[headers + 40..headers + 48].copy_from_slice(&[0xFF; 8]);
        read(&damaged);
    }
}

fn sections_without_number() {
    // A million are claimed, by the extended number, and 64,000 are there.
    let mut file = elf(&sections());
    let headers = usize::try_from(u64::from_le_bytes(*file[40..].first_chunk().unwrap())).unwrap();
    let one = file[headers + 64..headers + 128].to_vec();
    file.resize(file.len() + (1 << 22), 0);
    let end = file.len();
    for at in (headers + 256 + 64..end - 64).step_by(64) {
        file[at..at + 64].copy_from_slice(&one);
    }
    file[60..62].copy_from_slice(&[0, 0]);
    for claim in [1_u64 << 20, (1 << 16) + 1] {
        file[headers + 32..headers + 40].copy_from_slice(&claim.to_le_bytes());
        assert!(read(&file));
    }
}

fn functions_without_number() {
    let mut all = sections();
    all[0].data = vec![0xC3; 1 << 20];
    let functions =
        (0..1_u64 << 17).map(|number| function_symbol([1, 8][(number & 1) as usize], TEXT + number, 0));
    all[2].data = functions.flatten().collect();
    let module = module_of(&elf(&all)).unwrap();
    let allocators = find_in(&module).unwrap();
    let [allocator] = allocators.as_slice() else { panic!("{} allocators", allocators.len()) };
    assert!(allocator.functions.len() <= 128);
}
