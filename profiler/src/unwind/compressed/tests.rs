//! Every form that linkers write is unpacked, and none becomes more than it states or than the bound.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use object::{U32, U64, elf::SHF_COMPRESSED};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

const NAME: &[u8] = b".debug_frame";
const GNU_NAME: &[u8] = b".zdebug_frame";

fn zlib_of(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd_of(plain: &[u8]) -> Vec<u8> {
    compress_to_vec(plain, CompressionLevel::Fastest)
}

/// What is read of a file that is nothing but this section.
fn unpacked(name: &[u8], flags: u32, file: &[u8]) -> Option<Vec<u8>> {
    let section = SectionHeader64 {
        sh_name: U32::new(LittleEndian, 0),
        sh_type: U32::new(LittleEndian, object::elf::SHT_PROGBITS),
        sh_flags: U64::new(LittleEndian, flags.into()),
        sh_addr: U64::new(LittleEndian, 0),
        sh_offset: U64::new(LittleEndian, 0),
        sh_size: U64::new(LittleEndian, file.len() as u64),
        sh_link: U32::new(LittleEndian, 0),
        sh_info: U32::new(LittleEndian, 0),
        sh_addralign: U64::new(LittleEndian, 8),
        sh_entsize: U64::new(LittleEndian, 0),
    };
    match contents(&section, name, file) {
        Contents::Plain => Some(b"plain".to_vec()),
        Contents::Decompressed(bytes) => Some(bytes),
        Contents::Unreadable => None,
    }
}

/// With the header of `SHF_COMPRESSED` (`Elf64_Chdr`).
fn with_header(method: u32, size: u64, packed: &[u8]) -> Option<Vec<u8>> {
    let mut file = [method.to_le_bytes(), [0; 4]].concat();
    file.extend([size.to_le_bytes(), 8u64.to_le_bytes()].concat());
    file.extend(packed);
    unpacked(NAME, SHF_COMPRESSED, &file)
}

/// As `.zdebug_frame`.
fn with_mark(size: u64, packed: &[u8]) -> Option<Vec<u8>> {
    unpacked(GNU_NAME, 0, &[b"ZLIB".as_slice(), &size.to_be_bytes(), packed].concat())
}

#[test]
fn each_form_gives_what_was_packed() {
    let plain: Vec<u8> = (0..100_000u32).map(|i| (i / 7 % 251) as u8).collect();
    let size = plain.len() as u64;
    assert_eq!(with_header(ELFCOMPRESS_ZLIB, size, &zlib_of(&plain)).unwrap(), plain);
    assert_eq!(with_header(ELFCOMPRESS_ZSTD, size, &zstd_of(&plain)).unwrap(), plain);
    assert_eq!(with_mark(size, &zlib_of(&plain)).unwrap(), plain);
    assert_eq!(unpacked(NAME, 0, &plain).unwrap(), b"plain");
}

#[test]
fn a_size_that_is_not_true_is_not_believed() {
    let plain = vec![7; 4 << 20];
    let size = plain.len() as u64;
    for wrong in [0, 1, size - 1, size + 1, LIMIT, LIMIT + 1, u64::MAX] {
        assert_eq!(with_header(ELFCOMPRESS_ZLIB, wrong, &zlib_of(&plain)), None, "{wrong}");
        assert_eq!(with_header(ELFCOMPRESS_ZSTD, wrong, &zstd_of(&plain)), None, "{wrong}");
        assert_eq!(with_mark(wrong, &zlib_of(&plain)), None, "{wrong}");
    }
}

#[test]
fn damage_is_unreadable() {
    let plain = vec![7; 1000];
    for cut in 0..24 {
        let (zlib, zstd) = (zlib_of(&plain), zstd_of(&plain));
        let cut = |packed: &[u8]| packed[..cut.min(packed.len() - 1)].to_vec();
        assert_eq!(with_header(ELFCOMPRESS_ZLIB, 1000, &cut(&zlib)), None);
        assert_eq!(with_header(ELFCOMPRESS_ZSTD, 1000, &cut(&zstd)), None);
        assert_eq!(with_mark(1000, &cut(&zlib)), None);
    }
    assert_eq!(with_header(3, 1000, &zlib_of(&plain)), None, "a method of the future");
    for file in [&b""[..], b"ZLI", b"ZLIB\0\0\0", b"BILZ\0\0\0\0\0\0\x03\xe8"] {
        assert_eq!(unpacked(GNU_NAME, 0, file), None);
        assert_eq!(unpacked(NAME, SHF_COMPRESSED, file), None);
    }
}
