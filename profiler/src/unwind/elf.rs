//! Finds the executable bytes and the call frame information of an ELF file, with or without section headers.

use gimli::{BaseAddresses, EhFrameHdr};
use object::{
    LittleEndian,
    elf::{EM_X86_64, FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader64, SHF_COMPRESSED},
    read::elf::{FileHeader, ProgramHeader, SectionHeader},
};

use super::UnwindError;

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
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameSection<'data> {
    pub(super) region: Region<'data>,
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
    /// The stated address at which the kernel or the dynamic loader enters the file; 0 for most libraries.
    pub(super) entry: u64,
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
        let mut frames: Vec<_> = section(header, file, b".eh_frame", Format::EhFrame)
            .or_else(|| by_lookup_table(segments, file))
            .into_iter()
            .collect();
        frames.extend(section(header, file, b".debug_frame", Format::DebugFrame));
        if frames.is_empty() {
            return Err(UnwindError::NoUnwindInformation);
        }
        Ok(Self { text, frames, entry: header.e_entry(endian) })
    }
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

/// A section by its name. Damaged section headers are as good as none: the loader does not need them either.
fn section<'data>(
    header: &Header,
    file: &'data [u8],
    name: &[u8],
    format: Format,
) -> Option<FrameSection<'data>> {
    let sections = header.sections(LittleEndian, file).ok()?;
    let (_, section) = sections.section_by_name(LittleEndian, name)?;
    if section.sh_flags(LittleEndian) & u64::from(SHF_COMPRESSED) != 0 {
        return None;
    }
    let (offset, size) = section.file_range(LittleEndian)?;
    let region = Region::clipped(file, section.sh_addr(LittleEndian), offset, size)?;
    Some(FrameSection { region, format, max_fdes: u64::MAX })
}

/// `.eh_frame` by way of the segment that the C++ runtime uses (PT_GNU_EH_FRAME, Linux Standard Base Core 5.0, section
/// 10.6.2): its header points at `.eh_frame` and says how many FDEs there are, but not where the section ends.
fn by_lookup_table<'data>(segments: &[Segment], file: &'data [u8]) -> Option<FrameSection<'data>> {
    let lookup = segments.iter().find(|s| s.p_type(LittleEndian) == PT_GNU_EH_FRAME)?;
    let lookup = segment_region(lookup, file)?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(lookup.start);
    let parsed = EhFrameHdr::new(lookup.bytes, gimli::LittleEndian).parse(&bases, 8).ok()?;
    let start = parsed.eh_frame_ptr().direct().ok()?;
    let region = segments
        .iter()
        .filter(|s| s.p_type(LittleEndian) == PT_LOAD)
        .filter_map(|s| segment_region(s, file))
        .find_map(|loaded| Some(Region { start, bytes: loaded.slice(start, loaded.end())? }))?;
    let max_fdes = parsed.table().map_or(u64::MAX, |table| table.iter(&bases).size_hint().0 as u64);
    Some(FrameSection { region, format: Format::EhFrame, max_fdes })
}
