//! Finds the executable bytes and the call frame information of an ELF file, with or without section headers.

use std::borrow::Cow;

use gimli::{BaseAddresses, EhFrameHdr};
use object::{
    LittleEndian,
    elf::{EM_X86_64, FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader64, SectionHeader64},
    read::elf::{FileHeader, ProgramHeader, SectionHeader},
};

use super::{UnwindError, compressed};

/// A run of bytes of the file with the address that the file states for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region<'data> {
    /// SVMA of the first byte.
    pub(super) start: u64,
    /// The bytes that the file really has; `start + bytes.len()` does not overflow.
    pub(super) bytes: &'data [u8],
}

impl<'data> Region<'data> {
    /// What of `offset..offset + size` lies inside the file: a truncated file still serves with what is left.
    fn clipped(file: &'data [u8], start: u64, offset: u64, size: u64) -> Option<Self> {
        let begin = usize::try_from(offset).ok()?;
        let end = usize::try_from(offset.saturating_add(size)).unwrap_or(usize::MAX).min(file.len());
        let bytes = file.get(begin..end)?;
        start.checked_add(u64::try_from(bytes.len()).ok()?)?;
        (!bytes.is_empty()).then_some(Self { start, bytes })
    }

    /// One past the last address.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The bytes from `from` up to `to`, or `None` if the region does not hold them all.
    pub(super) fn slice(&self, from: u64, to: u64) -> Option<&'data [u8]> {
        let begin = usize::try_from(from.checked_sub(self.start)?).ok()?;
        let end = usize::try_from(to.checked_sub(self.start)?).ok()?;
        self.bytes.get(begin..end)
    }
}

/// Where the call frame information comes from. The two formats differ in how an entry names its CIE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    EhFrame,
    DebugFrame,
}

/// One section of call frame information.
#[derive(Clone, Debug)]
pub(super) struct FrameSection<'data> {
    /// SVMA of the first byte; what is not loaded has 0.
    pub(super) start: u64,
    /// The bytes, decompressed.
    pub(super) bytes: Cow<'data, [u8]>,
    pub(super) format: Format,
    /// How many FDEs there are, where only the lookup table of `.eh_frame_hdr` tells where the section ends.
    pub(super) max_fdes: u64,
}

/// What of the file matters here.
#[derive(Debug)]
pub(super) struct Image<'data> {
    /// The executable segments, sorted, not overlapping, never none.
    pub(super) text: Vec<Region<'data>>,
    /// `.eh_frame` before `.debug_frame`: the former wins where both describe an address.
    pub(super) frames: Vec<FrameSection<'data>>,
    /// Sections that are compressed in a way that is not read.
    pub(super) unreadable: u64,
    /// The stated address at which the kernel or the dynamic loader enters the file; 0 for most libraries.
    pub(super) entry: u64,
    /// Whether Go's linker made it.
    pub(super) is_go: bool,
}

type Header = FileHeader64<LittleEndian>;
type Segment = ProgramHeader64<LittleEndian>;

impl<'data> Image<'data> {
    /// Reads the headers.
    ///
    /// # Errors
    /// Every case of [`UnwindError`].
    pub(super) fn parse(file: &'data [u8]) -> Result<Self, UnwindError> {
        let header = Header::parse(file)?;
        let endian = header.endian()?;
        let machine = header.e_machine(endian);
        if machine != EM_X86_64 {
            return Err(UnwindError::WrongMachine { machine });
        }
        let segments = header.program_headers(endian, file)?;
        let text = executable(segments, file);
        if text.is_empty() {
            return Err(UnwindError::NoText);
        }
        let mut image = Self {
            text,
            frames: Vec::new(),
            unreadable: 0,
            entry: header.e_entry(endian),
            is_go: is_go(header, file),
        };
        if !image.add_section(header, file, b".eh_frame", Format::EhFrame) {
            image.frames.extend(by_lookup_table(segments, file));
        }
        if !image.add_section(header, file, b".debug_frame", Format::DebugFrame) {
            image.add_section(header, file, b".zdebug_frame", Format::DebugFrame);
        }
        match (image.frames.is_empty(), image.unreadable) {
            (false, _) => Ok(image),
            (true, 0) => Err(UnwindError::NoUnwindInformation),
            (true, _) => Err(UnwindError::Compressed { limit: compressed::LIMIT }),
        }
    }

    /// Takes up a section by its name; whether it is there. Damaged section headers are as good as none: the loader does
    /// not need them either.
    fn add_section(&mut self, header: &Header, file: &'data [u8], name: &[u8], format: Format) -> bool {
        let Ok(sections) = header.sections(LittleEndian, file) else { return false };
        let Some((_, section)) = sections.section_by_name(LittleEndian, name) else { return false };
        let bytes = match compressed::contents(section, name, file) {
            compressed::Contents::Plain => plain(section, file).map(Cow::Borrowed),
            compressed::Contents::Decompressed(bytes) => Some(Cow::Owned(bytes)),
            compressed::Contents::Unreadable => {
                self.unreadable += 1;
                return true;
            }
        };
        let Some(bytes) = bytes else { return false };
        self.frames.push(FrameSection {
            start: section.sh_addr(LittleEndian),
            bytes,
            format,
            max_fdes: u64::MAX,
        });
        true
    }
}

/// Whether it has the table of functions that a Go program needs to run (src/debug/gosym of Go).
fn is_go(header: &Header, file: &[u8]) -> bool {
    let sections = header.sections(LittleEndian, file);
    sections.is_ok_and(|sections| sections.section_by_name(LittleEndian, b".gopclntab").is_some())
}

fn plain<'data>(section: &SectionHeader64<LittleEndian>, file: &'data [u8]) -> Option<&'data [u8]> {
    let (offset, size) = section.file_range(LittleEndian)?;
    Region::clipped(file, section.sh_addr(LittleEndian), offset, size).map(|region| region.bytes)
}

/// The executable segments in the order of their addresses; one that overlaps an earlier one is left out.
fn executable<'data>(segments: &[Segment], file: &'data [u8]) -> Vec<Region<'data>> {
    let mut text: Vec<_> = segments
        .iter()
        .filter(|s| s.p_type(LittleEndian) == PT_LOAD && s.p_flags(LittleEndian) & PF_X != 0)
        .filter_map(|s| segment_region(s, file))
        .collect();
    text.sort_by_key(|region| region.start);
    let mut end = 0;
    text.retain(|region| {
        let free = region.start >= end;
        if free {
            end = region.end();
        }
        free
    });
    text
}

fn segment_region<'data>(segment: &Segment, file: &'data [u8]) -> Option<Region<'data>> {
    let (offset, size) = segment.file_range(LittleEndian);
    Region::clipped(file, segment.p_vaddr(LittleEndian), offset, size)
}

/// `.eh_frame` by way of the segment that the C++ runtime uses (PT_GNU_EH_FRAME, Linux Standard Base Core 5.0, section
/// 10.6.2): its header points at `.eh_frame` and says how many FDEs there are, but not where the section ends.
fn by_lookup_table<'data>(segments: &[Segment], file: &'data [u8]) -> Option<FrameSection<'data>> {
    let lookup = segments.iter().find(|s| s.p_type(LittleEndian) == PT_GNU_EH_FRAME)?;
    let lookup = segment_region(lookup, file)?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(lookup.start);
    let parsed = EhFrameHdr::new(lookup.bytes, gimli::LittleEndian).parse(&bases, 8).ok()?;
    let start = parsed.eh_frame_ptr().direct().ok()?;
    let bytes = segments
        .iter()
        .filter(|s| s.p_type(LittleEndian) == PT_LOAD)
        .filter_map(|s| segment_region(s, file))
        .find_map(|loaded| loaded.slice(start, loaded.end()))?;
    let max_fdes = parsed.table().map_or(u64::MAX, |table| table.iter(&bases).size_hint().0 as u64);
    Some(FrameSection { start, bytes: Cow::Borrowed(bytes), format: Format::EhFrame, max_fdes })
}
