//! Probes that a program has itself (USDT): notes in `.note.stapsdt` say where they are and where their arguments are.
//!
//! The format is SystemTap's (`sys/sdt.h`): the note's description has three addresses (the probe's instruction, the base
//! that tells how far a prelinker has moved the file, the semaphore or 0) and three strings (provider, name, arguments).
//! An argument is `SIZE@PLACE` in the assembler's notation: `8@%rdi`, `-4@$5`, `8@-16(%rbp)`, `4@8(%rax,%rcx,4)`. What is
//! not written so is refused, never guessed.

use object::{
    LittleEndian as LE,
    elf::{FileHeader64, SHN_UNDEF, SectionHeader64},
    pod,
};
use profiler_common::told::Argument;

use super::{
    address::{FileOffset, Svma},
    module::Module,
};

/// The provider of the probes by which programs tell of their allocations (OpenTelemetry's eBPF profiler,
/// design-docs/00003-memory-profiling).
pub const MEMORY_PROVIDER: &str = "otel_memory";

/// Sections of a file that are looked at; real ones have fifty.
const MOST_SECTIONS: usize = 4096;
/// Bytes of notes, and of names of sections, that are read.
const MOST_BYTES: u64 = 4 << 20;
/// Probes of a file that are kept.
const MOST_PROBES: usize = 1024;
/// The note's type and owner.
const TYPE: u32 = 3;
const OWNER: &[u8] = b"stapsdt\0";

/// A place of a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsdtProbe {
    /// Its name, without the provider's.
    pub name: String,
    /// Its instruction.
    pub address: Svma,
    /// The counter of its listeners; while that is 0 the program does not make the arguments.
    pub semaphore: Option<Svma>,
    /// Where its arguments are, as the note says it.
    pub arguments: String,
}

/// The probes of a provider in a module, in the order of its notes; none where it has no such notes, or they are damaged.
#[must_use]
pub fn find_in(module: &Module, provider: &str) -> Vec<UsdtProbe> {
    find(&|offset, length| module.bytes_at(FileOffset(offset), length).ok(), provider)
}

/// The same in the bytes of a file.
#[must_use]
pub fn find_in_bytes(file: &[u8], provider: &str) -> Vec<UsdtProbe> {
    let read = |offset: u64, length: usize| {
        let start = usize::try_from(offset).ok()?;
        file.get(start..start.checked_add(length)?).map(<[u8]>::to_vec)
    };
    find(&read, provider)
}

/// Reads so many bytes from an offset in a file.
type Read<'r> = &'r dyn Fn(u64, usize) -> Option<Vec<u8>>;

fn find(read: Read<'_>, provider: &str) -> Vec<UsdtProbe> {
    notes(read).map_or_else(Vec::new, |(notes, base)| parse(&notes, base, provider))
}

/// The content of `.note.stapsdt`, and the address of `.stapsdt.base`.
fn notes(read: Read<'_>) -> Option<(Vec<u8>, Option<u64>)> {
    let bytes = read(0, size_of::<FileHeader64<LE>>())?;
    let (header, _) = pod::from_bytes::<FileHeader64<LE>>(&bytes).ok()?;
    let count = usize::from(header.e_shnum.get(LE)).min(MOST_SECTIONS);
    if usize::from(header.e_shentsize.get(LE)) != size_of::<SectionHeader64<LE>>() {
        return None;
    }
    let table = read(header.e_shoff.get(LE), count.checked_mul(size_of::<SectionHeader64<LE>>())?)?;
    let (sections, _) = pod::slice_from_bytes::<SectionHeader64<LE>>(&table, count).ok()?;
    let content = |section: &SectionHeader64<LE>| {
        let size = section.sh_size.get(LE);
        (size <= MOST_BYTES).then(|| read(section.sh_offset.get(LE), usize::try_from(size).ok()?))?
    };
    let strings = usize::from(header.e_shstrndx.get(LE));
    let names = if strings == usize::from(SHN_UNDEF) { None } else { content(sections.get(strings)?) }?;
    let by_name = |wanted: &[u8]| {
        sections.iter().find(|section| {
            let name = usize::try_from(section.sh_name.get(LE)).ok().and_then(|start| names.get(start..));
            name.is_some_and(|name| name.starts_with(wanted) && name.get(wanted.len()) == Some(&0))
        })
    };
    let base = by_name(b".stapsdt.base").map(|section| section.sh_addr.get(LE));
    Some((content(by_name(b".note.stapsdt")?)?, base))
}

/// The notes: sizes of owner and description, type; owner and description, each padded to four bytes.
fn parse(notes: &[u8], base: Option<u64>, provider: &str) -> Vec<UsdtProbe> {
    let mut rest = notes;
    let mut found = Vec::new();
    while let Some((head, behind)) = rest.split_at_checked(12) {
        let word =
            |at: usize| head.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
        let (Some(owner_size), Some(size), Some(kind)) = (word(0), word(4), word(8)) else { break };
        let padded = |size: u32| usize::try_from(size).ok().and_then(|size| size.checked_next_multiple_of(4));
        let (Some(owner_size), Some(padded_size)) = (padded(owner_size), padded(size)) else { break };
        let Some((owner, behind)) = behind.split_at_checked(owner_size) else { break };
        let Some((description, behind)) = behind.split_at_checked(padded_size.min(behind.len())) else {
            break;
        };
        rest = behind;
        if kind != TYPE || owner != OWNER || found.len() >= MOST_PROBES {
            continue;
        }
        found.extend(probe(description, base, provider));
    }
    found
}

fn probe(description: &[u8], base: Option<u64>, provider: &str) -> Option<UsdtProbe> {
    let (words, strings) = description.split_at_checked(24)?;
    let word = |at: usize| words.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let (address, noted_base, semaphore) = (word(0)?, word(8)?, word(16)?);
    let moved = base.map_or(0, |base| base.wrapping_sub(noted_base));
    let mut strings = strings.split(|byte| *byte == 0).map(str::from_utf8);
    if strings.next()?.ok()? != provider {
        return None;
    }
    Some(UsdtProbe {
        name: strings.next()?.ok()?.to_owned(),
        address: Svma(address.wrapping_add(moved)),
        semaphore: (semaphore != 0).then(|| Svma(semaphore.wrapping_add(moved))),
        arguments: strings.next().and_then(Result::ok).unwrap_or_default().to_owned(),
    })
}

/// Registers by their numbers in machine code, in their four widths.
const REGISTERS: [[&str; 4]; 16] = [
    ["rax", "eax", "ax", "al"],
    ["rcx", "ecx", "cx", "cl"],
    ["rdx", "edx", "dx", "dl"],
    ["rbx", "ebx", "bx", "bl"],
    ["rsp", "esp", "sp", "spl"],
    ["rbp", "ebp", "bp", "bpl"],
    ["rsi", "esi", "si", "sil"],
    ["rdi", "edi", "di", "dil"],
    ["r8", "r8d", "r8w", "r8b"],
    ["r9", "r9d", "r9w", "r9b"],
    ["r10", "r10d", "r10w", "r10b"],
    ["r11", "r11d", "r11w", "r11b"],
    ["r12", "r12d", "r12w", "r12b"],
    ["r13", "r13d", "r13w", "r13b"],
    ["r14", "r14d", "r14w", "r14b"],
    ["r15", "r15d", "r15w", "r15b"],
];

/// The first of a probe's arguments, as many as are asked for.
///
/// # Errors
/// The argument that is absent (empty), or not written in the notation above.
pub fn arguments<const COUNT: usize>(text: &str) -> Result<[Argument; COUNT], String> {
    let mut parts = text.split_ascii_whitespace();
    let mut arguments = [Argument::default(); COUNT];
    for place in &mut arguments {
        let part = parts.next().unwrap_or_default();
        *place = argument(part).ok_or_else(|| part.to_owned())?;
    }
    Ok(arguments)
}

fn argument(text: &str) -> Option<Argument> {
    let (size, place) = text.split_once('@')?;
    let (signed, size) = match size.strip_prefix('-') {
        Some(size) => (1, size),
        None => (0, size),
    };
    let bytes = match size {
        "1" | "2" | "4" | "8" => size.parse().ok()?,
        _ => return None,
    };
    let sized = Argument { bytes, signed, ..Argument::default() };
    if let Some(constant) = place.strip_prefix('$') {
        return Some(Argument { offset: number(constant)?, kind: Argument::CONSTANT, ..sized });
    }
    if let Some(name) = place.strip_prefix('%') {
        return Some(Argument { kind: Argument::REGISTER, register: register(name, 4)?, ..sized });
    }
    let (offset, address) = place.strip_suffix(')')?.split_once('(')?;
    let offset = if offset.is_empty() { 0 } else { number(offset)? };
    let mut parts = address.split(',');
    let base = register(parts.next()?.strip_prefix('%')?, 1)?;
    let at = Argument { offset, kind: Argument::MEMORY, register: base, ..sized };
    let Some(index) = parts.next() else { return Some(at) };
    let shift = match parts.next().unwrap_or("1") {
        "1" => 0,
        "2" => 1,
        "4" => 2,
        "8" => 3,
        _ => return None,
    };
    let index = register(index.strip_prefix('%')?, 1)?;
    parts.next().is_none().then_some(Argument { kind: Argument::INDEXED, index, shift, ..at })
}

/// A register by one of the first of its names.
fn register(name: &str, names: usize) -> Option<u8> {
    let found = REGISTERS.iter().position(|known| known.iter().take(names).any(|known| *known == name))?;
    u8::try_from(found).ok()
}

fn number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(hexadecimal) => (hexadecimal, 16),
        None => (digits, 10),
    };
    // The library takes a sign of its own. A constant may be written without its sign.
    let magnitude = Some(digits).filter(|digits| !digits.starts_with('+'))?;
    let value = u64::from_str_radix(magnitude, radix).ok()?.cast_signed();
    Some(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    fn note(provider: &str, name: &str, words: [u64; 3], arguments: &str) -> Vec<u8> {
        let strings = format!("{provider}\0{name}\0{arguments}\0");
        let description = [&words.map(u64::to_le_bytes).concat(), strings.as_bytes()].concat();
        let size = u32::try_from(description.len()).unwrap();
        let mut note = [8, size, TYPE].map(u32::to_le_bytes).concat();
        note.extend(OWNER);
        note.extend(&description);
        note.resize(note.len().next_multiple_of(4), 0);
        note
    }

    #[test]
    fn notes_are_read_and_those_of_others_are_not() {
        let notes = [
            note("libc", "setjmp", [1, 2, 0], "8@%rdi -4@%esi 8@%rax"),
            note("otel_memory", "alloc", [0x1000, 0x2000, 0x3000], "8@%rdi 8@-16(%rbp) 8@$512"),
            note("otel_memory", "free", [0x1010, 0x2000, 0], "8@%rax"),
        ]
        .concat();
        let probe = |name: &str, address, semaphore: Option<u64>, arguments: &str| UsdtProbe {
            name: name.into(),
            address: Svma(address),
            semaphore: semaphore.map(Svma),
            arguments: arguments.into(),
        };
        let expected = [
            probe("alloc", 0x1100, Some(0x3100), "8@%rdi 8@-16(%rbp) 8@$512"),
            probe("free", 0x1110, None, "8@%rax"),
        ];
        assert_eq!(parse(&notes, Some(0x2100), "otel_memory"), expected);
        assert_eq!(parse(&notes, None, "otel_memory")[0].address, Svma(0x1000));
        assert_eq!(parse(&notes, None, "otel"), []);
        assert_eq!(parse(&notes[..notes.len() - 40], None, "otel_memory").len(), 1);
    }

    #[test]
    fn arguments_in_every_notation() {
        let at =
            |kind, register, offset| Argument { kind, register, offset, bytes: 8, ..Argument::default() };
        for (text, expected) in [
            ("8@%rdi", at(Argument::REGISTER, 7, 0)),
            ("8@%r15", at(Argument::REGISTER, 15, 0)),
            ("8@$-1", at(Argument::CONSTANT, 0, -1)),
            ("8@$0xffffffffffffffff", at(Argument::CONSTANT, 0, -1)),
            ("8@$18446744073709551615", at(Argument::CONSTANT, 0, -1)),
            ("8@(%rax)", at(Argument::MEMORY, 0, 0)),
            ("8@-16(%rbp)", at(Argument::MEMORY, 5, -16)),
            ("8@0x10(%rsp)", at(Argument::MEMORY, 4, 16)),
            ("-4@%ecx", Argument { bytes: 4, signed: 1, ..at(Argument::REGISTER, 1, 0) }),
            ("2@%r8w", Argument { bytes: 2, ..at(Argument::REGISTER, 8, 0) }),
            ("1@%dil", Argument { bytes: 1, ..at(Argument::REGISTER, 7, 0) }),
            ("8@8(%rax,%rcx,4)", Argument { index: 1, shift: 2, ..at(Argument::INDEXED, 0, 8) }),
            ("8@(%rax,%rcx)", Argument { index: 1, ..at(Argument::INDEXED, 0, 0) }),
        ] {
            assert_eq!(argument(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "8",
            "@%rdi",
            "8@",
            "3@%rdi",
            "16@%rdi",
            "8@%ah",
            "8@%xmm0",
            "8@rdi",
            "8@$x",
            "8@foo(%rip)",
            "8@16(%rip)",
            "8@%fs:16",
            "8@(%eax)",
            "8@8(%rax,%rcx,3)",
            "8@8(%rax,%rcx,4,1)",
            "8@8(%rax",
            "--8@%rdi",
            "8@$--1",
            "8@$+1",
            "8@$0x+1",
            "8@-0x+10(%rsp)",
            "8@$0x",
        ] {
            assert_eq!(argument(text), None, "{text}");
        }
        assert!(arguments::<3>("8@%rdi 8@%rsi 8@%rdx").is_ok());
        assert_eq!(arguments::<3>("8@%rdi 8@%rsi"), Err(String::new()));
        assert_eq!(arguments::<1>("8@foo(%rip)"), Err("8@foo(%rip)".into()));
    }

    proptest! {
        #[test]
        fn damaged_notes_never_panic(mut notes in Just(note("otel_memory", "alloc", [1, 2, 3], "8@%rdi")), at in 0_usize..80, byte: u8, cut in 0_usize..80) {
            if let Some(place) = notes.get_mut(at) {
                *place = byte;
            }
            notes.truncate(cut);
            let _ = parse(&notes, None, "otel_memory");
            let _ = find_in_bytes(&notes, "otel_memory");
        }

        #[test]
        fn arbitrary_arguments_never_panic(text in "[-0-9@$%(),a-z ]{0,40}") {
            let _ = arguments::<3>(&text);
        }
    }
}
