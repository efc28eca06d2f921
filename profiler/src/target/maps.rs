//! The target's mappings, from `/proc/PID/maps` (proc_pid_maps(5); the kernel's fs/proc/task_mmu.c prints it).

use std::{
    ffi::OsString,
    ops::Range,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use super::{
    address::{Avma, FileOffset},
    error::TargetError,
    process::Process,
};

/// Bytes read of a maps file: some 600,000 mappings, ten times what the kernel allows by default
/// (`vm.max_map_count` is 65530).
const MAPS_LIMIT: u64 = 64 << 20;

/// What a mapping shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MappingKind {
    /// A file, with its path as the target sees it. A memfd is one too: `/memfd:name`.
    File(PathBuf),
    /// Memory without a name.
    Anonymous,
    /// What the kernel names in another way: `[heap]`, `[stack]`, `[vdso]`, `[uprobes]`, `anon_inode:[perf_event]`.
    Special(String),
}

/// One line of the maps file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First address and one past the last.
    pub range: Range<Avma>,
    /// Whether it may be read.
    pub readable: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be executed.
    pub executable: bool,
    /// Whether writes reach the file and other processes.
    pub shared: bool,
    /// The offset in the file that its first address shows; a multiple of the page size.
    pub offset: FileOffset,
    /// Major and minor number of the file's device. On btrfs and overlayfs, stat(2) gives another.
    pub device: (u32, u32),
    /// The file's inode, 0 where there is none.
    pub inode: u64,
    /// What is mapped.
    pub kind: MappingKind,
    /// Whether the file has no name any more.
    pub deleted: bool,
}

impl Mapping {
    /// The path of the mapped file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.kind {
            MappingKind::File(path) => Some(path),
            MappingKind::Anonymous | MappingKind::Special(_) => None,
        }
    }

    /// Whether it is the code page with which the kernel replaces some system calls.
    #[must_use]
    pub fn is_vdso(&self) -> bool {
        matches!(&self.kind, MappingKind::Special(name) if name == "[vdso]")
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.range.end.0.saturating_sub(self.range.start.0)
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(&self, address: Avma) -> bool {
        self.range.contains(&address)
    }
}

/// All mappings of a process at one time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Maps {
    /// The mappings, by address as the kernel lists them.
    pub mappings: Vec<Mapping>,
    /// Lines that were left out because they could not be understood.
    pub damaged_lines: usize,
    /// Whether the file was longer than we read.
    pub truncated: bool,
}

impl Maps {
    /// Reads the mappings of a process. The kernel takes no snapshot: mappings that change meanwhile may be missing.
    ///
    /// # Errors
    /// Where the process has ended, or we may not look.
    pub fn read(process: &Process) -> Result<Self, TargetError> {
        let read = || process.read_path(process.memory_path("maps"), MAPS_LIMIT);
        let mut found = read();
        // The file of a main thread that has left is there, but empty.
        let nothing = found.as_ref().is_ok_and(|(text, _)| text.is_empty());
        if (nothing || process.has_lost_its_deputy()) && process.look_through_another_thread() {
            found = read();
        }
        let (text, truncated) = found?;
        let mut maps = Self::parse(&text);
        maps.truncated = truncated;
        Ok(maps)
    }

    /// Parses the text of a maps file. Lines that cannot be understood are counted and left out.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut maps = Self::default();
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match parse_line(line) {
                Some(mapping) => maps.mappings.push(mapping),
                None => maps.damaged_lines += 1,
            }
        }
        maps
    }

    /// The mapping that holds this address.
    #[must_use]
    pub fn find(&self, address: Avma) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| mapping.contains(address))
    }

    /// The mappings that may be executed.
    pub fn executable(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings.iter().filter(|mapping| mapping.executable)
    }
}

/// `start-end perms offset major:minor inode      path`, the numbers but the inode in hexadecimal.
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = next()?.split_once('-')?;
    let range = Avma(hexadecimal(start)?)..Avma(hexadecimal(end)?);
    let &[read, write, execute, share] = next()?.as_bytes() else { return None };
    let offset = FileOffset(hexadecimal(next()?)?);
    let (major, minor) = next()?.split_once(':')?;
    let device = (u32::try_from(hexadecimal(major)?).ok()?, u32::try_from(hexadecimal(minor)?).ok()?);
    let inode = next()?.parse().ok()?;
    let name = fields.next().unwrap_or_default().trim_ascii_start();
    let (kind, deleted) = parse_name(name);
    let flag = |byte: u8, set: u8, unset: u8| match byte {
        _ if byte == set => Some(true),
        _ if byte == unset => Some(false),
        _ => None,
    };
    (range.start < range.end).then_some(Mapping {
        range,
        readable: flag(read, b'r', b'-')?,
        writable: flag(write, b'w', b'-')?,
        executable: flag(execute, b'x', b'-')?,
        shared: flag(share, b's', b'p')?,
        offset,
        device,
        inode,
        kind,
        deleted,
    })
}

/// Digits only: `from_str_radix` alone would take a sign.
fn hexadecimal(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// A file's path is absolute (the kernel's `d_path`), and ends in ` (deleted)` when it has lost its name.
fn parse_name(name: &[u8]) -> (MappingKind, bool) {
    match name.first() {
        None => (MappingKind::Anonymous, false),
        Some(b'/') => {
            let stripped = name.strip_suffix(b" (deleted)");
            let path = OsString::from_vec(unescape_newlines(stripped.unwrap_or(name)));
            (MappingKind::File(PathBuf::from(path)), stripped.is_some())
        }
        Some(_) => (MappingKind::Special(String::from_utf8_lossy(name).into_owned()), false),
    }
}

/// The kernel writes a newline in a path as `\012` and leaves everything else as it is, backslashes too.
fn unescape_newlines(escaped: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((&byte, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(br"\012") {
            path.push(b'\n');
            rest = behind;
        } else {
            path.push(byte);
            rest = behind;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::{fs, fs::File, os::unix::fs::MetadataExt};

    use proptest::prelude::*;

    use super::*;

    fn only(line: &str) -> Mapping {
        let maps = Maps::parse(line.as_bytes());
        assert_eq!((maps.mappings.len(), maps.damaged_lines), (1, 0), "{line}");
        maps.mappings.into_iter().next().unwrap()
    }

    #[test]
    fn a_file_mapping_is_read_whole() {
        let line =
            "7f5c0a000000-7f5c0a155000 r-xp 00026000 fe:102 4589                       /usr/lib/libc.so.6\n";
        let expected = Mapping {
            range: Avma(0x7f5c_0a00_0000)..Avma(0x7f5c_0a15_5000),
            readable: true,
            writable: false,
            executable: true,
            shared: false,
            offset: FileOffset(0x26000),
            device: (0xfe, 0x102),
            inode: 4589,
            kind: MappingKind::File(PathBuf::from("/usr/lib/libc.so.6")),
            deleted: false,
        };
        assert_eq!(only(line), expected);
        assert_eq!(expected.size(), 0x155_000);
    }

    #[test]
    fn names_of_every_kind() {
        let kind = |name: &str| {
            let mapping = only(&format!("1000-2000 rw-s 00000000 00:00 0      {name}"));
            assert!(mapping.shared && mapping.writable && !mapping.executable);
            (mapping.kind, mapping.deleted)
        };
        let file = |path: &str| MappingKind::File(PathBuf::from(path));
        let special = |name: &str| MappingKind::Special(name.to_owned());
        assert_eq!(kind(""), (MappingKind::Anonymous, false));
        assert_eq!(kind("[heap]"), (special("[heap]"), false));
        assert_eq!(kind("[anon:a b]"), (special("[anon:a b]"), false));
        assert_eq!(kind("anon_inode:[perf_event]"), (special("anon_inode:[perf_event]"), false));
        assert_eq!(kind("/a b/c  d.so"), (file("/a b/c  d.so"), false));
        assert_eq!(kind("/a.so (deleted)"), (file("/a.so"), true));
        assert_eq!(kind("/memfd:jit (deleted)"), (file("/memfd:jit"), true));
        assert_eq!(kind(r"/a\012b\01\0"), (file("/a\nb\\01\\0"), false));
        // Without the padding that the kernel gives, and with no name at all.
        assert_eq!(only("1000-2000 ---p 00000000 00:00 0").kind, MappingKind::Anonymous);
    }

    #[test]
    fn damaged_lines_are_counted_and_the_others_kept() {
        let good = "1000-2000 r--p 00000000 00:00 0 ";
        let damaged = [
            "2000-1000 r--p 00000000 00:00 0 ",
            "1000-2000 r-p 00000000 00:00 0 ",
            "1000-2000 r--q 00000000 00:00 0 ",
            "1000-2000 R--p 00000000 00:00 0 ",
            "1000-10000000000000000 r--p 0 00:00 0",
            "1000-2000 r--p 00000000 0000 0 ",
            "1000-2000 r--p 00000000 00:00 -1 ",
            "+1000-2000 r--p 00000000 00:00 0 ",
            "1000-2000 r--p",
            "\u{fffd}",
        ];
        let text = format!("{good}\n{}\n\n{good}", damaged.join("\n"));
        let maps = Maps::parse(text.as_bytes());
        assert_eq!((maps.mappings.len(), maps.damaged_lines), (2, damaged.len()));
    }

    #[test]
    fn our_own_mappings_hold_our_own_code() {
        let maps = Maps::read(&Process::open(std::process::id()).unwrap()).unwrap();
        assert_eq!((maps.damaged_lines, maps.truncated), (0, false));
        let code = maps.find(Avma(our_own_mappings_hold_our_own_code as *const () as u64)).unwrap();
        let exe = fs::metadata(std::env::current_exe().unwrap()).unwrap();
        assert!(code.executable && maps.executable().any(|mapping| mapping == code));
        assert_eq!((code.path(), code.inode), (Some(std::env::current_exe().unwrap().as_path()), exe.ino()));
        assert!(maps.mappings.iter().any(Mapping::is_vdso));
        assert!(maps.mappings.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
    }

    #[test]
    fn the_kernel_escapes_what_we_unescape() {
        let path = std::env::temp_dir().join(format!("heapscope\n{} \\012 (deleted)x", std::process::id()));
        fs::write(&path, vec![7; 4096]).unwrap();
        let file = File::open(&path).unwrap();
        let mapped = crate::sys::mmap::MappedFile::new(&file).unwrap();
        let address = Avma(mapped.as_ptr() as u64);
        let us = Process::open(std::process::id()).unwrap();
        let before = Maps::read(&us).unwrap().find(address).cloned().unwrap();
        fs::remove_file(&path).unwrap();
        let after = Maps::read(&us).unwrap().find(address).cloned().unwrap();
        // A backslash in the name is not escaped, so `\012` in a name cannot be told from a newline.
        let name = path.to_str().unwrap().replace(r"\012", "\n");
        assert_eq!((before.path().unwrap().to_str().unwrap(), before.deleted), (name.as_str(), false));
        assert_eq!((after.path().unwrap().to_str().unwrap(), after.deleted), (name.as_str(), true));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text in prop::collection::vec(any::<u8>(), 0..2000)) {
            let maps = Maps::parse(&text);
            let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
            prop_assert_eq!(maps.mappings.len() + maps.damaged_lines, lines);
        }

        #[test]
        fn nearly_right_lines_never_panic(line in "[0-9a-f]{1,17}-[0-9a-f]{0,17} [rwxsp-]{3,5} [0-9a-f]{0,9} [0-9a-f:]{0,6} [0-9]{0,21} {0,9}[/\\[\\\\ ()a-z012]{0,20}") {
            for mapping in Maps::parse(line.as_bytes()).mappings {
                prop_assert!(mapping.size() > 0);
            }
        }
    }
}
