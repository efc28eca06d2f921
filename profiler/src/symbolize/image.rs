//! An ELF file's bytes, and its sections as they were before compression.

use std::{borrow::Cow, fs::File, io, sync::Arc};

use object::{
    LittleEndian, Object, ObjectSection,
    read::elf::{ElfFile64, ElfSection64},
};

use crate::{
    sys::mmap::MappedFile,
    target::compressed::{self, Contents},
};

/// A parsed ELF file of the only kind that a target can have.
pub(super) type Elf<'data> = ElfFile64<'data, LittleEndian>;

/// Bytes that the compressed sections of one file may take after decompression, by their own account.
const MOST_DECOMPRESSED: u64 = 4 << 30;

/// The bytes of an ELF file.
#[derive(Debug)]
pub(super) enum Image {
    /// A file, mapped.
    Mapped(MappedFile),
    /// Out of memory: the vDSO.
    Shared(Arc<[u8]>),
    /// Decompressed.
    Owned(Vec<u8>),
}

impl Image {
    /// Maps a file.
    pub(super) fn map(file: &File) -> io::Result<Self> {
        MappedFile::new(file).map(Self::Mapped)
    }

    /// The headers; `None` where this is no ELF file for x86-64, or its headers are damaged.
    pub(super) fn elf(&self) -> Option<Elf<'_>> {
        Elf::parse(self.bytes()).ok()
    }

    /// Whether the file lost bytes while it was read.
    pub(super) fn was_cut(&self) -> bool {
        matches!(self, Self::Mapped(file) if file.was_cut())
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => file,
            Self::Shared(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    /// The CRC-32 of the whole file, as a `.gnu_debuglink` states it.
    pub(super) fn crc(&self) -> u32 {
        crc32fast::hash(self.bytes())
    }
}

/// The build-id, where there is one.
pub(super) fn build_id(elf: &Elf<'_>) -> Option<Vec<u8>> {
    elf.build_id().ok().flatten().map(<[u8]>::to_vec)
}

/// Whether there is a section of this name with something in it (a debug file keeps the others' headers without content).
pub(super) fn has_section(elf: &Elf<'_>, name: &str) -> bool {
    elf.section_by_name(name).is_some_and(|section| section.file_range().is_some_and(|(_, size)| size > 0))
}

/// Hands out sections, decompressed (zlib, zstd) within bounds.
#[derive(Debug)]
pub(super) struct Sections<'image, 'data> {
    elf: &'image Elf<'data>,
    left: u64,
}

impl<'image, 'data> Sections<'image, 'data> {
    pub(super) fn of(elf: &'image Elf<'data>) -> Self {
        Self { elf, left: MOST_DECOMPRESSED }
    }

    /// The content of the section; nothing where it does not exist. `Err` says what is wrong with it.
    pub(super) fn content(&mut self, name: &str) -> Result<Cow<'data, [u8]>, String> {
        match self.elf.section_by_name(name) {
            Some(section) => self.decompressed(&section).map_err(|reason| format!("{name}: {reason}")),
            None => Ok(Cow::Borrowed(&[])),
        }
    }

    fn decompressed(
        &mut self,
        section: &ElfSection64<'data, '_, LittleEndian>,
    ) -> Result<Cow<'data, [u8]>, String> {
        let name = section.name_bytes().unwrap_or_default();
        match compressed::contents(section.elf_section_header(), name, self.elf.data(), self.left) {
            Contents::Plain => section.data().map(Cow::Borrowed).map_err(|error| error.to_string()),
            Contents::Decompressed(bytes) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Ok(Cow::Owned(bytes))
            }
            Contents::Unreadable => Err("it is compressed, and damaged or too large".into()),
        }
    }
}
