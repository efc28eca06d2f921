//! From a place in a code object to its line: the three tables that CPython has had.

/// Which table a version has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineTable {
    /// `co_lnotab`, to 3.9 (`Objects/lnotab_notes.txt` of 3.9).
    Notes,
    /// `co_linetable` of 3.10 (PEP 626).
    Ranges,
    /// `co_linetable` from 3.11 on (`Objects/locations.md`).
    Locations,
}

impl LineTable {
    /// The line of the instruction at a byte of the code; `None` where the table gives it none.
    #[must_use]
    pub fn line_of(self, table: &[u8], first_line: i64, byte: u64) -> Option<u32> {
        let line = match self {
            Self::Notes => notes(table, first_line, byte),
            Self::Ranges => ranges(table, first_line, byte),
            Self::Locations => locations(table, first_line, byte),
        }?;
        u32::try_from(line).ok().filter(|line| *line > 0)
    }
}

/// Pairs of a step in bytes (unsigned) and a step in lines (signed), of which the lines hold from the new address on.
fn notes(table: &[u8], first_line: i64, byte: u64) -> Option<i64> {
    let (mut at, mut line) = (0u64, first_line);
    for pair in table.chunks_exact(2) {
        at = at.checked_add(u64::from(pair[0]))?;
        if at > byte {
            break;
        }
        line = line.checked_add(i64::from(pair[1].cast_signed()))?;
    }
    Some(line)
}

/// Pairs of a step in bytes (unsigned) and a step in lines (signed), of which the lines hold up to the new address; -128
/// says that there is no line.
fn ranges(table: &[u8], first_line: i64, byte: u64) -> Option<i64> {
    let (mut end, mut line) = (0u64, first_line);
    for pair in table.chunks_exact(2) {
        end = end.checked_add(u64::from(pair[0]))?;
        let step = pair[1].cast_signed();
        if step != -128 {
            line = line.checked_add(i64::from(step))?;
        }
        if byte < end {
            return (step != -128).then_some(line);
        }
    }
    None
}

/// Entries that begin with a byte whose highest bit is set: four bits of kind, three of length in code units, less one.
fn locations(table: &[u8], first_line: i64, byte: u64) -> Option<i64> {
    let (mut end, mut line) = (0u64, first_line);
    let mut entries = table.iter().copied().enumerate().filter(|(_, first)| first & 0x80 != 0);
    entries.find_map(|(at, first)| {
        let kind = first >> 3 & 15;
        end += (u64::from(first & 7) + 1) * 2;
        line = line.saturating_add(match kind {
            // One line with columns, or without; or a range of lines.
            13 | 14 => signed(table.get(at + 1..).unwrap_or_default()),
            10..=12 => i64::from(kind) - 10,
            _ => 0,
        });
        (byte < end).then_some((kind != 15).then_some(line))
    })?
}

/// A number of six bits a byte, the lowest first, its sign in the lowest bit.
fn signed(bytes: &[u8]) -> i64 {
    let mut value = 0i64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= i64::from(byte & 63) << (6 * index);
        if byte & 64 == 0 {
            break;
        }
    }
    if value & 1 == 1 { -(value >> 1) } else { value >> 1 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn notes_hold_from_their_address_on() {
        let line = |byte| LineTable::Notes.line_of(&[0, 1, 8, 2, 255, 0, 3, 0xff], 10, byte);
        assert_eq!(
            [line(0), line(7), line(8), line(265), line(266)].map(Option::unwrap),
            [11, 11, 13, 13, 12]
        );
        assert_eq!(LineTable::Notes.line_of(&[], 7, 100), Some(7));
    }

    #[test]
    fn ranges_hold_up_to_their_address() {
        let line = |byte| LineTable::Ranges.line_of(&[4, 1, 6, 0x80, 8, 3], 10, byte);
        assert_eq!(
            [line(0), line(3), line(4), line(9), line(10), line(18)],
            [Some(11), Some(11), None, None, Some(14), None]
        );
    }

    #[test]
    fn locations_of_every_kind() {
        // Two units on the first line (short form); one, a line further (one-line form); one, -3 lines (no columns); one
        // without a line; one, +70 lines (long form).
        let table = [0x81, 0x11, 0xd8, 0x01, 0x02, 0xe8, 0x07, 0xf8, 0xf0, 0x4c, 0x02, 0, 1, 1];
        let line = |byte| LineTable::Locations.line_of(&table, 10, byte);
        assert_eq!(
            [line(0), line(2), line(4), line(6), line(8), line(10)],
            [Some(10), Some(10), Some(11), Some(8), None, Some(78)]
        );
        assert_eq!(line(12), None);
    }

    #[test]
    fn damage_is_survived() {
        for kind in [LineTable::Notes, LineTable::Ranges, LineTable::Locations] {
            for byte in 0..=255u8 {
                for length in 0..12 {
                    let _ = kind.line_of(&vec![byte; length], i64::MAX, 500);
                }
            }
        }
    }
}
