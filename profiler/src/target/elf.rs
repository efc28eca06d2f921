//! The parts of an ELF file that every module is asked for when it is opened: its segments and its build-id.
//!
//! Only the headers are read, each read is bounded, and nothing that they say is believed beyond the file's bytes.

use std::io;

use object::{
    LittleEndian as LE,
    elf::{
        ELF_NOTE_GNU, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, FileHeader64, NT_GNU_BUILD_ID, PF_X,
        PT_LOAD, PT_NOTE, ProgramHeader64,
    },
    pod::{from_bytes, slice_from_bytes},
    read::elf::NoteIterator,
};

use super::{
    address::{FileOffset, Svma},
    module::Segment,
};

/// Program headers that we accept; linkers write a dozen.
const MAX_PROGRAM_HEADERS: u16 = 512;
/// Bytes of one note segment that we read; the build-id has 36.
const MAX_NOTES: usize = 4096;
/// Bytes of a build-id that we accept; linkers write 16 or 20.
const MAX_BUILD_ID: usize = 64;

/// What the headers of a 64-bit x86 ELF file say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Headers {
    /// The loadable segments, in the file's order.
    pub(super) segments: Vec<Segment>,
    /// The GNU build-id.
    pub(super) build_id: Option<Vec<u8>>,
}

/// Reads the headers through `read(offset, length)`. The error says what is wrong with the file.
pub(super) fn read_headers(
    read: impl Fn(FileOffset, usize) -> io::Result<Vec<u8>>,
) -> Result<Headers, String> {
    let bytes =
        read(FileOffset(0), size_of::<FileHeader64<LE>>()).map_err(|_| "it has no ELF header".to_owned())?;
    let (header, _) =
        from_bytes::<FileHeader64<LE>>(&bytes).map_err(|()| "it has no ELF header".to_owned())?;
    let ident = &header.e_ident;
    if ident.magic != ELFMAG {
        return Err("it is not an ELF file".to_owned());
    }
    if ident.class != ELFCLASS64 || ident.data != ELFDATA2LSB || header.e_machine.get(LE) != EM_X86_64 {
        return Err("it is not for x86-64".to_owned());
    }
    let (count, entry_size) = (header.e_phnum.get(LE), usize::from(header.e_phentsize.get(LE)));
    if count > MAX_PROGRAM_HEADERS || (count > 0 && entry_size != size_of::<ProgramHeader64<LE>>()) {
        return Err(format!("{count} program headers of {entry_size} bytes are not believable"));
    }
    let bytes = read(FileOffset(header.e_phoff.get(LE)), usize::from(count) * entry_size)
        .map_err(|_| "its program headers lie outside the file".to_owned())?;
    let (headers, _) = slice_from_bytes::<ProgramHeader64<LE>>(&bytes, usize::from(count))
        .map_err(|()| "its program headers are cut short".to_owned())?;
    let segments = headers.iter().filter(|header| header.p_type.get(LE) == PT_LOAD).map(segment).collect();
    let build_id = headers.iter().find_map(|header| build_id(header, &read));
    Ok(Headers { segments, build_id })
}

fn segment(header: &ProgramHeader64<LE>) -> Segment {
    Segment {
        svma: Svma(header.p_vaddr.get(LE)),
        offset: FileOffset(header.p_offset.get(LE)),
        file_size: header.p_filesz.get(LE),
        executable: header.p_flags.get(LE) & PF_X != 0,
    }
}

/// A damaged note segment is as good as none: the build-id only helps to find debug files.
fn build_id(
    header: &ProgramHeader64<LE>,
    read: impl Fn(FileOffset, usize) -> io::Result<Vec<u8>>,
) -> Option<Vec<u8>> {
    if header.p_type.get(LE) != PT_NOTE {
        return None;
    }
    let length = usize::try_from(header.p_filesz.get(LE)).ok().filter(|&length| length <= MAX_NOTES)?;
    let bytes = read(FileOffset(header.p_offset.get(LE)), length).ok()?;
    let mut notes = NoteIterator::<FileHeader64<LE>>::new(LE, header.p_align.get(LE), &bytes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == ELF_NOTE_GNU
            && note.n_type(LE) == NT_GNU_BUILD_ID
            && note.desc().len() <= MAX_BUILD_ID
        {
            return Some(note.desc().to_vec());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::process::Command;

    use object::{Object, ObjectSegment};
    use proptest::prelude::*;

    use super::*;

    fn read_from(bytes: &[u8]) -> impl Fn(FileOffset, usize) -> io::Result<Vec<u8>> + '_ {
        |offset, length| {
            let start = usize::try_from(offset.0).unwrap();
            let end = start.checked_add(length).ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
        }
    }

    #[test]
    fn our_own_headers_agree_with_the_high_level_reader() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let headers = read_headers(read_from(&bytes)).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let expected: Vec<_> = file.segments().map(|s| (s.address(), s.file_range())).collect();
        let found: Vec<_> = headers.segments.iter().map(|s| (s.svma.0, (s.offset.0, s.file_size))).collect();
        assert_eq!(found, expected);
        assert!(
            headers.segments.iter().any(|s| s.executable) && !headers.segments.iter().all(|s| s.executable)
        );
        assert_eq!(headers.build_id.as_deref(), file.build_id().unwrap());
    }

    #[test]
    fn the_build_id_is_the_one_that_file_reports() {
        let Ok(output) = Command::new("readelf").args(["-n", "/bin/sh"]).output() else {
            eprintln!("skipped: readelf is not installed");
            return;
        };
        let id = read_headers(read_from(&std::fs::read("/bin/sh").unwrap())).unwrap().build_id.unwrap();
        let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("Build ID: {digits}")));
    }

    #[test]
    fn what_is_not_our_kind_of_file_is_refused() {
        let good = std::fs::read("/bin/sh").unwrap();
        let refused = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            read_headers(read_from(&bytes)).unwrap_err()
        };
        assert!(refused(1, b'x').contains("not an ELF"));
        assert!(refused(4, 1).contains("x86-64"));
        assert!(refused(18, 183).contains("x86-64"));
        assert!(refused(57, 0xff).contains("not believable"));
        assert!(refused(39, 0x70).contains("outside"));
        assert!(read_headers(read_from(b"#!/bin/sh")).unwrap_err().contains("no ELF header"));
    }

    proptest! {
        #[test]
        fn damaged_headers_never_panic(damage in prop::collection::vec((0_usize..1024, any::<u8>()), 0..40)) {
            let mut bytes = std::fs::read("/bin/sh").unwrap();
            bytes.truncate(2048);
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            let read = |offset: FileOffset, length: usize| {
                // The promise of a bound: whatever the headers say, no read is larger than this.
                assert!(length <= 64 * 1024);
                let start = usize::try_from(offset.0).unwrap_or(usize::MAX);
                let part = start.checked_add(length).and_then(|end| bytes.get(start..end));
                Ok(part.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
            };
            let _ = read_headers(read);
        }
    }
}
