//! Whether a file's debug information can be handed to the crate that reads it.
//!
//! blazesym unpacks compressed sections without a limit and opens whatever file a link names. A few kilobytes would stand
//! for any amount of memory, and a link to a FIFO would make us wait for good. So both are looked at first. Unpacking is
//! measured, not believed: a section is as large as it says, or it is refused.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use flate2::bufread::ZlibDecoder;
use object::{
    Endianness, ReadCache,
    elf::{ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, FileHeader64},
    read::elf::{FileHeader, SectionHeader, SectionTable},
};
use xz2::{bufread::XzDecoder, stream::Stream};

/// Bytes that the sections of one file may take when unpacked.
const MAX_UNPACKED: u64 = 4 << 30;
/// The same for `.gnu_debugdata`, which holds function symbols alone: 100 kB packed and 1 MB unpacked in a large library.
const MAX_DEBUGDATA: u64 = 128 << 20;
/// Memory that unpacking it may take: the dictionary of `xz -9` has 64 MiB.
const MAX_DICTIONARY: u64 = 80 << 20;

/// What of a file can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Soundness {
    /// All of it.
    Sound,
    /// Its symbol tables, but not its debug information.
    Symbols,
    /// Nothing.
    Nothing,
}

type Cache = ReadCache<File>;
type Sections<'data> = SectionTable<'data, FileHeader64<Endianness>, &'data Cache>;

/// Looks at the file and those that it links to; `debug_dirs` are where links lead besides the file's own folder.
pub(super) fn soundness(path: &Path, debug_dirs: &[PathBuf]) -> Soundness {
    let mut linked = Vec::new();
    let own = examine(path, &mut linked).unwrap_or(Soundness::Nothing);
    let leads_astray = || {
        linked.iter().flat_map(|link| places(path, link, debug_dirs)).any(|place| !is_sound_or_absent(&place))
    };
    if own == Soundness::Sound && leads_astray() { Soundness::Symbols } else { own }
}

/// Whether blazesym would find nothing there, or a file that it can read. What a linked file links to is not followed.
fn is_sound_or_absent(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(metadata) => {
            metadata.is_file()
                && examine(path, &mut Vec::new()).is_some_and(|found| found == Soundness::Sound)
        }
        Err(_) => true,
    }
}

/// `None` where it is no ELF file.
fn examine(path: &Path, links: &mut Vec<PathBuf>) -> Option<Soundness> {
    // Opened anew by its path: the held file's offset is not ours to move.
    let cache = ReadCache::new(File::open(path).ok()?);
    let header = FileHeader64::<Endianness>::parse(&cache).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, &cache).ok()?;
    let mut file = File::open(path).ok()?;
    let (mut found, mut total) = (Soundness::Sound, 0_u64);
    for section in sections.iter() {
        let name = sections.section_name(endian, section).unwrap_or_default();
        if let Ok(Some((compression, offset, size))) = section.compression(endian, &cache) {
            let claim = compression.ch_size.get(endian);
            total = total.saturating_add(claim);
            let packed = part(&mut file, offset, size)?;
            if total > MAX_UNPACKED || !is_honest(compression.ch_type.get(endian), packed, claim) {
                if !name.starts_with(b".debug_") {
                    return Some(Soundness::Nothing);
                }
                found = Soundness::Symbols;
            }
        }
        if name == b".gnu_debugdata" {
            let (offset, size) = section.file_range(endian)?;
            if !is_small_debugdata(part(&mut file, offset, size)?) {
                return Some(Soundness::Nothing);
            }
        }
    }
    links.extend(linked_paths(&sections, endian, &cache));
    Some(found)
}

fn part(file: &mut File, offset: u64, size: u64) -> Option<BufReader<io::Take<&mut File>>> {
    file.seek(SeekFrom::Start(offset)).ok()?;
    Some(BufReader::new(file.take(size)))
}

/// Whether a compressed section unpacks to the size that it claims. What is packed in an unknown way nobody unpacks.
fn is_honest(kind: u32, packed: impl io::BufRead, claim: u64) -> bool {
    match kind {
        ELFCOMPRESS_ZLIB => unpacks_to(ZlibDecoder::new(packed), claim) == Some(claim),
        ELFCOMPRESS_ZSTD => zstd::stream::read::Decoder::with_buffer(packed)
            .is_ok_and(|decoder| unpacks_to(decoder, claim) == Some(claim)),
        _ => true,
    }
}

fn is_small_debugdata(packed: impl io::BufRead) -> bool {
    let stream = Stream::new_stream_decoder(MAX_DICTIONARY, 0);
    let unpacked =
        stream.ok().and_then(|stream| unpacks_to(XzDecoder::new_stream(packed, stream), MAX_DEBUGDATA));
    unpacked.is_some_and(|unpacked| unpacked <= MAX_DEBUGDATA)
}

/// The bytes that come out, counted up to one more than `limit`; `None` where the data is damaged.
fn unpacks_to(decoder: impl Read, limit: u64) -> Option<u64> {
    io::copy(&mut decoder.take(limit.saturating_add(1)), &mut io::sink()).ok()
}

/// The files that `.gnu_debuglink`, `.gnu_debugaltlink` and `.debug_sup` name, as they name them.
fn linked_paths(sections: &Sections<'_>, endian: Endianness, cache: &Cache) -> Vec<PathBuf> {
    // `.debug_sup` begins with a version and a flag (DWARF 5, section 7.3.6).
    let links = [(&b".gnu_debuglink"[..], 0), (b".gnu_debugaltlink", 0), (b".debug_sup", 3)];
    let name = |(section, before): (&[u8], usize)| {
        let (_, section) = sections.section_by_name(endian, section)?;
        let name = section.data(endian, cache).ok()?.get(before..)?.split(|&byte| byte == 0).next()?;
        (!name.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(name)))
    };
    links.into_iter().filter_map(name).collect()
}

/// Where blazesym looks for a linked file: in each debug directory, beside the file, and in each debug directory under
/// the file's own folder and those above it.
fn places(path: &Path, link: &Path, debug_dirs: &[PathBuf]) -> Vec<PathBuf> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = real.parent().unwrap_or(Path::new("/"));
    let own = folder.strip_prefix("/").unwrap_or(folder);
    let below = debug_dirs.iter().flat_map(|dir| own.ancestors().map(move |part| dir.join(part).join(link)));
    debug_dirs.iter().map(|dir| dir.join(link)).chain([folder.join(link)]).chain(below).collect()
}
