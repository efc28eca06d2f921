//! Debug sections that a linker compressed, read within a bound on what they may become.
//!
//! Two forms: `SHF_COMPRESSED` with a header (System V ABI, chapter 4, "compression header"), by zlib or zstd; and the
//! older `.zdebug_*` of the GNU tools, which begins with `ZLIB` and the size. A few bytes of either can stand for
//! gigabytes, so the size that is stated is held to [`LIMIT`], and what is unpacked to the size that is stated. `object`
//! could decompress, but it unpacks zstd to its end, and takes a zlib stream that was cut for whole.

use std::io::Read;

use flate2::read::ZlibDecoder;
use object::{
    LittleEndian,
    elf::{ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, SectionHeader64},
    read::elf::SectionHeader,
};
use ruzstd::decoding::StreamingDecoder;

/// Bytes that a section may have once it is decompressed. The `.debug_frame` of the largest known files has 20 MB.
pub(super) const LIMIT: u64 = 128 << 20;

/// The head of a `.zdebug_*` section: the letters, then the size as a big-endian number of eight bytes.
const GNU_MARK: &[u8; 4] = b"ZLIB";

/// The contents of a section.
pub(super) enum Contents {
    /// As they stand in the file.
    Plain,
    /// Unpacked.
    Decompressed(Vec<u8>),
    /// Compressed, but damaged, larger than [`LIMIT`], or by another method.
    Unreadable,
}

/// Decompresses a section of this name, if it is compressed.
pub(super) fn contents(section: &SectionHeader64<LittleEndian>, name: &[u8], file: &[u8]) -> Contents {
    let unpacked = if name.starts_with(b".z") {
        gnu(section, file)
    } else {
        match section.compression(LittleEndian, file) {
            Ok(None) => return Contents::Plain,
            Ok(Some((header, offset, size))) => by_header(
                header.ch_type.get(LittleEndian),
                header.ch_size.get(LittleEndian),
                bytes_at(file, offset, size),
            ),
            Err(_) => None,
        }
    };
    unpacked.map_or(Contents::Unreadable, Contents::Decompressed)
}

fn by_header(method: u32, size: u64, packed: Option<&[u8]>) -> Option<Vec<u8>> {
    match method {
        ELFCOMPRESS_ZLIB => zlib(packed?, size),
        ELFCOMPRESS_ZSTD => zstd(packed?, size),
        _ => None,
    }
}

fn gnu(section: &SectionHeader64<LittleEndian>, file: &[u8]) -> Option<Vec<u8>> {
    let (offset, size) = section.file_range(LittleEndian)?;
    let (size, packed) = bytes_at(file, offset, size)?.strip_prefix(GNU_MARK)?.split_first_chunk()?;
    zlib(packed, u64::from_be_bytes(*size))
}

fn bytes_at(file: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let begin = usize::try_from(offset).ok()?;
    file.get(begin..begin.checked_add(usize::try_from(size).ok()?)?)
}

fn zlib(packed: &[u8], size: u64) -> Option<Vec<u8>> {
    exactly(ZlibDecoder::new(packed), size)
}

fn zstd(packed: &[u8], size: u64) -> Option<Vec<u8>> {
    exactly(StreamingDecoder::new(packed).ok()?, size)
}

/// All that a decoder gives, if that is as much as was stated. One byte more is asked for, so that a longer stream is
/// noticed and one that ends in time has its checksum looked at.
fn exactly(decoder: impl Read, size: u64) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    if size > LIMIT {
        return None;
    }
    decoder.take(size + 1).read_to_end(&mut unpacked).ok()?;
    (unpacked.len() as u64 == size).then_some(unpacked)
}

#[cfg(test)]
mod tests;
