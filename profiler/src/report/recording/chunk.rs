//! The file around the messages: a header, then chunks that say their length and carry a checksum.
//!
//! A reader goes from chunk to chunk. The first one that is cut short or does not match its checksum ends what can be read:
//! where the next one would begin is not known any more.

use std::io::{self, Write};

/// The first eight bytes of a recording. The first is no ASCII and the last is a newline, so that a copy in a text mode
/// does not pass for whole.
pub const MAGIC: [u8; 8] = *b"\x89HSCOPE\n";
/// The version of the format. It grows when an older reader would show something wrong; messages may get new fields
/// without.
pub const VERSION: u32 = 1;
/// Bytes of the file's header: magic and version.
pub const FILE_HEADER: usize = 12;
/// Bytes of a chunk's header: kind, three zeros, stored length, plain length, checksum.
pub const CHUNK_HEADER: usize = 16;

/// The largest message, in bytes. A snapshot of a million sites has 20 MB at most, but for its first bytes it is numbers;
/// other messages unfold in memory to many times their size, and writers divide them.
const MAX_SNAPSHOT: u32 = 16 << 20;
const MAX_OTHER: u32 = 1 << 20;
/// zstd's own default: stronger levels cost time while the target runs.
const LEVEL: i32 = 3;

/// What a chunk holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// [`super::message::Head`]: the first chunk.
    Head,
    /// [`super::message::Definitions`].
    Definitions,
    /// [`super::message::Snapshot`].
    Snapshot,
    /// [`super::message::Quality`].
    Quality,
    /// [`super::message::Account`].
    Account,
    /// [`super::message::End`]: the last chunk.
    End,
    /// Of a later version: to be passed over.
    Unknown(u8),
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::Definitions => 2,
            Self::Snapshot => 3,
            Self::Quality => 4,
            Self::Account => 5,
            Self::End => 6,
            Self::Unknown(number) => number,
        }
    }

    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Head,
            2 => Self::Definitions,
            3 => Self::Snapshot,
            4 => Self::Quality,
            5 => Self::Account,
            6 => Self::End,
            other => Self::Unknown(other),
        }
    }

    /// The largest message of this kind that is read, in bytes.
    #[must_use]
    pub const fn largest(self) -> u32 {
        if matches!(self, Self::Snapshot) { MAX_SNAPSHOT } else { MAX_OTHER }
    }
}

/// Writes the file's header.
///
/// # Errors
/// Those of `out`.
pub fn write_header(out: &mut dyn Write) -> io::Result<()> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    out.write_all(&header)
}

/// Appends a chunk with this message, in one call, and flushes it; its length in the file.
///
/// # Errors
/// Those of `out`; `InvalidInput` where the message is larger than a reader takes.
pub fn write(kind: Kind, message: &[u8], out: &mut dyn Write) -> io::Result<usize> {
    let plain_length = u32::try_from(message.len()).ok().filter(|length| *length <= kind.largest());
    let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "a message is too large for a recording");
    let plain_length = plain_length.ok_or_else(too_large)?;
    let stored = zstd::bulk::compress(message, LEVEL)?;
    let stored_length = u32::try_from(stored.len()).map_err(|_| too_large())?;
    let mut chunk = vec![kind.number(), 0, 0, 0];
    chunk.extend(stored_length.to_le_bytes());
    chunk.extend(plain_length.to_le_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&chunk);
    checksum.update(&stored);
    chunk.extend(checksum.finalize().to_le_bytes());
    chunk.extend(stored);
    out.write_all(&chunk)?;
    out.flush()?;
    Ok(chunk.len())
}

/// Whether the bytes begin as a recording does, and its version.
#[must_use]
pub fn version(bytes: &[u8]) -> Option<u32> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    rest.first_chunk().map(|version| u32::from_le_bytes(*version))
}

/// One chunk, still compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// What it holds.
    pub kind: Kind,
    bytes: &'a [u8],
    plain_length: u32,
}

/// The chunks from `at` on, each with the place of the one behind it; where one is damaged, what is wrong with it, and
/// nothing more.
pub fn chunks(bytes: &[u8], at: usize) -> impl Iterator<Item = Result<(Stored<'_>, usize), String>> {
    let mut at = Some(at);
    std::iter::from_fn(move || {
        let begin = at.filter(|at| *at < bytes.len())?;
        let read = read(bytes.get(begin..).unwrap_or_default());
        at = read.as_ref().ok().map(|(_, length)| begin + length);
        Some(match read {
            Ok((chunk, length)) => Ok((chunk, begin + length)),
            Err(what) => Err(format!("{what} at byte {begin}")),
        })
    })
}

/// The chunk at the beginning of `bytes`, and its length there.
fn read(bytes: &[u8]) -> Result<(Stored<'_>, usize), &'static str> {
    let header: &[u8; CHUNK_HEADER] = bytes.first_chunk().ok_or("the file ends inside a chunk's header")?;
    let number = |at: usize| header.get(at..at + 4).and_then(|part| part.first_chunk().copied());
    let (Some(stored), Some(plain), Some(checksum)) = (number(4), number(8), number(12)) else {
        return Err("a chunk's header is damaged");
    };
    let (stored, plain) = (u32::from_le_bytes(stored), u32::from_le_bytes(plain));
    let kind = Kind::of(header[0]);
    let end = usize::try_from(stored).ok().and_then(|length| length.checked_add(CHUNK_HEADER));
    let end = end.ok_or("a chunk's header is damaged")?;
    let payload = bytes.get(CHUNK_HEADER..end).ok_or("the file ends inside a chunk")?;
    let mut sum = crc32fast::Hasher::new();
    sum.update(&header[..12]);
    sum.update(payload);
    if sum.finalize() != u32::from_le_bytes(checksum) {
        return Err("the checksum of a chunk does not match");
    }
    Ok((Stored { kind, bytes: payload, plain_length: plain }, end))
}

impl Stored<'_> {
    /// Bytes that it takes in the file.
    #[must_use]
    pub fn stored_length(&self) -> usize {
        CHUNK_HEADER + self.bytes.len()
    }

    /// The message's bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn plain(&self) -> Result<Vec<u8>, String> {
        if self.plain_length > self.kind.largest() {
            return Err(format!("a chunk claims {} bytes", self.plain_length));
        }
        let length = usize::try_from(self.plain_length).unwrap_or(usize::MAX);
        let plain = zstd::bulk::decompress(self.bytes, length);
        let plain = plain.map_err(|error| format!("a chunk cannot be decompressed ({error})"))?;
        if plain.len() == length { Ok(plain) } else { Err("a chunk has another length than it says".into()) }
    }
}
