//! Writes ELF files whose every field can be wrong on purpose: sections and segments go in, bytes come out, and nothing
//! is checked. The fuzz targets use it to keep the headers valid around a hostile section, the damage tests to make
//! headers hostile too.

use object::elf::{
    PF_R, PF_X, PT_LOAD, PT_NOTE, SHF_ALLOC, SHF_EXECINSTR, SHT_DYNSYM, SHT_NOTE, SHT_PROGBITS, SHT_STRTAB,
    SHT_SYMTAB,
};

const FILE_HEADER: usize = 64;
const SEGMENT_HEADER: usize = 56;
const SECTION_HEADER: usize = 64;
/// Where each kind of section begins. Text comes first, as linkers have it.
pub(crate) const TEXT: u64 = 0x1000;

/// One section; `size` and `offset` can state something else than is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) kind: u32,
    pub(crate) flags: u64,
    pub(crate) address: u64,
    pub(crate) link: u32,
    pub(crate) entry_size: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) claimed_offset: Option<u64>,
    pub(crate) claimed_size: Option<u64>,
}

impl Section {
    /// A section that no segment loads: debug information.
    pub(crate) fn unloaded(name: &'static str, data: Vec<u8>) -> Self {
        Self { name, kind: SHT_PROGBITS, data, ..Self::default() }
    }

    /// A section in a readable segment of its own.
    pub(crate) fn loaded(name: &'static str, address: u64, data: Vec<u8>) -> Self {
        let kind = if name.starts_with(".note") { SHT_NOTE } else { SHT_PROGBITS };
        Self { kind, flags: SHF_ALLOC.into(), address, ..Self::unloaded(name, data) }
    }

    /// `.text` at [`TEXT`], in an executable segment.
    pub(crate) fn text(code: Vec<u8>) -> Self {
        Self { flags: (SHF_ALLOC | SHF_EXECINSTR).into(), ..Self::loaded(".text", TEXT, code) }
    }

    /// `.symtab` or `.dynsym`, whose names are in section number `strings`.
    pub(crate) fn symbols(name: &'static str, strings: u32, data: Vec<u8>) -> Self {
        let kind = if name == ".dynsym" { SHT_DYNSYM } else { SHT_SYMTAB };
        Self { kind, link: strings, entry_size: 24, ..Self::unloaded(name, data) }
    }

    /// `.strtab` or `.dynstr`.
    pub(crate) fn strings(name: &'static str, data: Vec<u8>) -> Self {
        Self { kind: SHT_STRTAB, ..Self::unloaded(name, data) }
    }
}

/// An `Elf64_Sym` of a global function defined in section 1.
pub(crate) fn function_symbol(name: u32, address: u64, size: u64) -> Vec<u8> {
    let mut symbol = name.to_le_bytes().to_vec();
    symbol.extend([0x12, 0, 1, 0]); // STB_GLOBAL, STT_FUNC; default visibility; section 1
    symbol.extend(address.to_le_bytes());
    symbol.extend(size.to_le_bytes());
    symbol
}

/// An x86-64 shared object of these sections, numbered from 1. Its own table of section names comes last.
pub(crate) fn elf(sections: &[Section]) -> Vec<u8> {
    let mut sections = sections.to_vec();
    let mut names = vec![0];
    let mut name_offsets = Vec::new();
    for name in sections.iter().map(|section| section.name).chain([".shstrtab"]) {
        name_offsets.push(u32::try_from(names.len()).unwrap_or_default());
        names.extend(name.bytes().chain([0]));
    }
    sections.push(Section::strings(".shstrtab", names));
    let segments = sections.iter().filter(|section| section.flags & u64::from(SHF_ALLOC) != 0).count();
    let notes = sections.iter().filter(|section| section.kind == SHT_NOTE).count();

    let mut file = vec![0; FILE_HEADER + SEGMENT_HEADER * (segments + notes)];
    let mut segment_headers = Vec::new();
    let mut section_headers = vec![0; SECTION_HEADER];
    for (section, name) in sections.iter().zip(name_offsets) {
        // A segment's offset and address agree modulo its alignment, here 16.
        file.resize(file.len().next_multiple_of(16), 0);
        let offset = section.claimed_offset.unwrap_or(file.len() as u64);
        let size = section.claimed_size.unwrap_or(section.data.len() as u64);
        file.extend(&section.data);
        if section.flags & u64::from(SHF_ALLOC) != 0 {
            let rights = if section.flags & u64::from(SHF_EXECINSTR) != 0 { PF_R | PF_X } else { PF_R };
            let kinds = [Some(PT_LOAD), (section.kind == SHT_NOTE).then_some(PT_NOTE)];
            for kind in kinds.into_iter().flatten() {
                words(&mut segment_headers, &[kind, rights]);
                longs(&mut segment_headers, &[offset, section.address, section.address, size, size, 16]);
            }
        }
        words(&mut section_headers, &[name, section.kind]);
        longs(&mut section_headers, &[section.flags, section.address, offset, size]);
        words(&mut section_headers, &[section.link, 0]);
        longs(&mut section_headers, &[1, section.entry_size]);
    }
    file.resize(file.len().next_multiple_of(16), 0);
    let header = file_header(file.len(), segments + notes, sections.len() + 1);
    file.extend(section_headers);
    file.splice(..FILE_HEADER, header);
    file.splice(FILE_HEADER..FILE_HEADER + segment_headers.len(), segment_headers);
    file
}

fn file_header(section_headers: usize, segments: usize, sections: usize) -> Vec<u8> {
    let half = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    header.extend([3, 0, 62, 0, 1, 0, 0, 0]); // ET_DYN, EM_X86_64, EV_CURRENT
    longs(&mut header, &[0, FILE_HEADER as u64, section_headers as u64]);
    header.extend([0; 4]);
    for number in [FILE_HEADER, SEGMENT_HEADER, segments, SECTION_HEADER, sections, sections - 1] {
        header.extend(half(number));
    }
    header
}

fn words(bytes: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
}

fn longs(bytes: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
}
