//! Compressed debug information that swells without measure, and links to other files that lead nowhere good.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::{Compression, write::ZlibEncoder};
use heapscope::{
    symbolize::symbolizer::{CodeLocation, SymbolizeOptions, Symbolizer},
    target::{
        address::Svma,
        module::{Content, Module},
    },
};
use object::elf::{ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, SHF_COMPRESSED};
use rustix::fs::{FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::{
    frames_at, function_at, isolated, module_of,
    support::{
        case::{Case, case},
        elf::{Section, TEXT, elf, function_symbol},
    },
};

pub(crate) const CASES: &[Case] = &[
    case("packed_claims_too_much", || isolated("packed_claims_too_much", claims_too_much)),
    case("packed_holds_too_much", || isolated("packed_holds_too_much", holds_too_much)),
    case("packed_debugdata_holds_too_much", || isolated("packed_debugdata_holds_too_much", debugdata_bomb)),
    case("links_to_themselves", || isolated("links_to_themselves", links_to_themselves)),
    case("links_that_would_wait", || isolated("links_that_would_wait", links_that_would_wait)),
];

/// How often a bomb repeats a piece that unpacks to this many zeros: together more than a case may have.
const PIECE: usize = 1 << 20;
const TIMES: usize = 1 << 10;

/// A gigabyte in a zlib stream (RFC 1950): blocks that were flushed stand for themselves.
fn zlib_bomb() -> Vec<u8> {
    const HEADER: usize = 2;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&vec![0; PIECE]).unwrap();
    encoder.flush().unwrap();
    let flushed = encoder.get_ref();
    let (header, piece) = flushed.split_at(HEADER);
    [header, &piece.repeat(TIMES)].concat()
}

/// The same in frames of zstd, one behind the other.
fn zstd_bomb() -> Vec<u8> {
    zstd::encode_all(&*vec![0; PIECE], 1).unwrap().repeat(TIMES)
}

/// The same in one block of xz (The .xz File Format, 1.2.1): behind its header stand chunks of LZMA2, the first of which
/// needs none before it. Behind its control byte are the size unpacked and packed, less one, and a byte of properties.
fn xz_bomb() -> Vec<u8> {
    const STREAM_HEADER: usize = 12;
    const CHUNK_HEADER: usize = 6;
    let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(&vec![0; PIECE]).unwrap();
    let whole = encoder.finish().unwrap();
    let block_header = (usize::from(whole[STREAM_HEADER]) + 1) * 4;
    let (headers, chunks) = whole.split_at(STREAM_HEADER + block_header);
    assert!(chunks[0] >= 0xE0, "the first chunk sets everything anew");
    let packed = usize::from(u16::from_be_bytes([chunks[3], chunks[4]])) + 1;
    [headers, &chunks[..CHUNK_HEADER + packed].repeat(TIMES)].concat()
}

/// A section with the header of a compressed one (System V ABI, chapter 4).
fn compressed(name: &'static str, kind: u32, claim: u64, data: &[u8]) -> Section {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(claim.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(data);
    Section { flags: SHF_COMPRESSED.into(), ..Section::unloaded(name, bytes) }
}

fn with_symbol(mut more: Vec<Section>) -> Vec<u8> {
    let mut sections = vec![
        Section::text(vec![0xC3; 0x100]),
        Section::strings(".strtab", b"\0named\0".to_vec()),
        Section::symbols(".symtab", 2, [vec![0; 24], function_symbol(1, TEXT, 0x100)].concat()),
    ];
    sections.append(&mut more);
    elf(&sections)
}

fn claims_too_much() {
    let honest = {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&[0; 100]).unwrap();
        encoder.finish().unwrap()
    };
    for claim in [u64::MAX, 1 << 63, 1 << 40, 4 << 30, 3 << 30, 1 << 30, 0] {
        for kind in [ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, 77] {
            for name in [".debug_info", ".debug_str", ".debug_line", ".symtab"] {
                frames_at(
                    &module_of(&with_symbol(vec![compressed(name, kind, claim, &honest)])).unwrap(),
                    TEXT,
                );
            }
        }
    }
}

fn holds_too_much() {
    for (kind, data) in [(ELFCOMPRESS_ZLIB, zlib_bomb()), (ELFCOMPRESS_ZSTD, zstd_bomb())] {
        // The header is modest, the data is not.
        for claim in [0, 100, 1 << 20] {
            for name in [".debug_info", ".debug_str", ".debug_abbrev"] {
                frames_at(
                    &module_of(&with_symbol(vec![compressed(name, kind, claim, &data)])).unwrap(),
                    TEXT,
                );
            }
        }
    }
}

fn debugdata_bomb() {
    let bomb = xz_bomb();
    assert!(bomb.len() < 1 << 20);
    // Without a `.symtab`, so that this is where names come from.
    let file = elf(&[Section::text(vec![0xC3; 0x100]), Section::unloaded(".gnu_debugdata", bomb)]);
    assert_eq!(function_at(&module_of(&file).unwrap(), TEXT), None);
    // One of the usual size is read.
    let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(&with_symbol(Vec::new())).unwrap();
    let usual = encoder.finish().unwrap();
    let file = elf(&[Section::text(vec![0xC3; 0x100]), Section::unloaded(".gnu_debugdata", usual)]);
    assert_eq!(function_at(&module_of(&file).unwrap(), TEXT).as_deref(), Some("named"));
}

/// The sections with which a file names others: a debug file, one that it shares with others, the same in DWARF 5.
fn links(to: &Path) -> Vec<Section> {
    let name = [to.as_os_str().as_encoded_bytes(), b"\0"].concat();
    let padding = name.len().next_multiple_of(4) - name.len();
    let id = [7; 20];
    vec![
        Section::unloaded(".gnu_debuglink", [&name[..], &vec![0; padding], &[1, 2, 3, 4]].concat()),
        Section::unloaded(".gnu_debugaltlink", [&name[..], &id].concat()),
        Section::unloaded(".debug_sup", [&[5, 0, 0], &name[..], &[20], &id].concat()),
    ]
}

/// A build-id of twenty times seven: what the links ask for.
fn build_id() -> Section {
    let note = [&[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0][..], b"GNU\0", &[7; 20]].concat();
    Section::loaded(".note.gnu.build-id", 0x10_0000, note)
}

fn file_named(path: &Path, bytes: &[u8]) -> Arc<Module> {
    fs::write(path, bytes).unwrap();
    let content = Content::File(fs::File::open(path).unwrap());
    Arc::new(Module::new(path.to_owned(), content, false).unwrap())
}

/// The name at the text's beginning, with debug files looked for in `folder`.
fn named_in(folder: &Path, module: &Arc<Module>) -> Option<String> {
    let mut symbolizer =
        Symbolizer::new(SymbolizeOptions { demangle: true, debug_dirs: vec![folder.to_owned()] });
    let address = TEXT + 1;
    let location =
        CodeLocation { address, module: Some((Arc::clone(module), Svma(address))), guessed: false };
    symbolizer.frames(&location).pop()?.function.clone()
}

fn links_to_themselves() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("self.so");
    let other = folder.path().join("other.so");
    for to in [PathBuf::from("self.so"), path.clone(), PathBuf::from("other.so"), PathBuf::from("../self.so")]
    {
        for link in links(&to) {
            // The other file leads back.
            let back = links(Path::new("self.so"));
            fs::write(&other, with_symbol([vec![build_id()], back].concat())).unwrap();
            let module = file_named(&path, &with_symbol(vec![build_id(), link]));
            assert_eq!(named_in(folder.path(), &module).as_deref(), Some("named"));
        }
    }
}

/// Opening a FIFO waits for a writer, reading /dev/zero has no end.
fn links_that_would_wait() {
    let folder = TempDir::new().unwrap();
    let fifo = folder.path().join("fifo");
    mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let path = folder.path().join("waits.so");
    for to in
        [fifo.as_path(), Path::new("fifo"), Path::new("/dev/zero"), Path::new("/dev/tty"), Path::new("/")]
    {
        for link in links(to) {
            let module = file_named(&path, &with_symbol(vec![build_id(), link]));
            assert_eq!(named_in(folder.path(), &module).as_deref(), Some("named"), "{}", to.display());
        }
    }
}
