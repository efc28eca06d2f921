//! `/tmp/perf-PID.map`: the text file in which a JIT says what it generated where.
//!
//! Format: `START SIZE name` a line, both numbers in hexadecimal (Linux, tools/perf/Documentation/jit-interface.txt). The
//! file only grows, so a later line replaces what earlier lines said about the same addresses.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use super::{label, target_root::TargetRoot};

/// Bytes of the file that are read: a JIT that has written for weeks fills tens of megabytes.
const MAX_BYTES: u64 = 64 << 20;
/// Functions that are kept.
const MAX_FUNCTIONS: usize = 1 << 20;
/// Bytes of one name that are kept.
const MAX_NAME_BYTES: usize = 4096;

/// Named ranges of generated code, which never overlap.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// Start of the range to its end (exclusive) and name.
    functions: BTreeMap<u64, (u64, String)>,
}

impl PerfMap {
    /// The map that the process `pid` wrote, found in its own mount and pid namespaces; `None` where it wrote none.
    ///
    /// `/tmp` is anybody's to write: as perf does, a file is believed only if it belongs to the process's user or to
    /// root. Symbolic links are followed inside the target's root only.
    ///
    /// # Errors
    /// When the process is gone or its root may not be opened.
    pub fn of_process(pid: u32) -> io::Result<Option<Self>> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let own_pid = innermost_pid(&status).unwrap_or(pid);
        let owner = fs::metadata(format!("/proc/{pid}"))?.uid();
        let file = match TargetRoot::of_process(pid)?.open(Path::new(&format!("tmp/perf-{own_pid}.map"))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if metadata.uid() != owner && metadata.uid() != 0 {
            return Ok(None);
        }
        Self::read(file).map(Some)
    }

    /// The map in the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(path: &Path) -> io::Result<Self> {
        Self::read(File::open(path)?)
    }

    fn read(file: File) -> io::Result<Self> {
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text)?;
        Ok(Self::parse(&text))
    }

    /// Reads the text. Lines that do not hold to the format are skipped.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut map = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            if let Some((start, end, name)) = parse_line(line) {
                map.insert(start, end, name);
            }
        }
        map
    }

    fn insert(&mut self, start: u64, end: u64, name: String) {
        // What this range replaces: everything that begins in it, and the one before it where that reaches into it.
        let before = self.functions.range(..start).next_back();
        let overlapped = before.filter(|(_, (before_end, _))| *before_end > start).map(|(at, _)| *at);
        let inside: Vec<u64> =
            self.functions.range(start..end).map(|(at, _)| *at).chain(overlapped).collect();
        for at in inside {
            self.functions.remove(&at);
        }
        if self.functions.len() < MAX_FUNCTIONS {
            self.functions.insert(start, (end, name));
        }
    }

    /// The function that holds `address` (as the target sees it).
    #[must_use]
    pub fn name_of(&self, address: u64) -> Option<&str> {
        let (_, (end, name)) = self.functions.range(..=address).next_back()?;
        (address < *end).then_some(name.as_str())
    }
}

fn parse_line(line: &[u8]) -> Option<(u64, u64, String)> {
    let mut fields = line.splitn(3, |byte| *byte == b' ');
    let mut number = || {
        let digits = std::str::from_utf8(fields.next()?).ok()?;
        // Some JITs write the prefix although the format has none.
        u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
    };
    let (start, size) = (number()?, number()?);
    let name = fields.next()?;
    let name = label::clean(&String::from_utf8_lossy(&name[..name.len().min(MAX_NAME_BYTES)]));
    let end = start.checked_add(size)?;
    (size > 0 && !name.is_empty()).then_some((start, end, name))
}

/// The last number of the `NStgid` line: the process's id in its own namespace (fs/proc/array.c, `task_state`).
fn innermost_pid(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("NStgid:"))?
        .split_ascii_whitespace()
        .next_back()?
        .parse()
        .ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn good_and_hostile_lines() {
        let map = PerfMap::parse(
            b"1000 10 first\n2000 20 LazyCompile:~f /app/a b.js:3\nnonsense\n 10 x\nzz 10 y\n3000 0 empty\n\
              ffffffffffffffff 10 overflow\n4000 10\n5000 10 \xff\xfe\x1b[2J\n0x6000 0x8 prefixed\r\n",
        );
        assert_eq!(map.name_of(0x1000), Some("first"));
        assert_eq!(map.name_of(0x100f), Some("first"));
        assert_eq!(map.name_of(0x1010), None);
        assert_eq!(map.name_of(0xfff), None);
        assert_eq!(map.name_of(0x2001), Some("LazyCompile:~f /app/a b.js:3"));
        assert_eq!(map.name_of(0x5000), Some("\u{fffd}\u{fffd}?[2J"));
        assert_eq!(map.name_of(0x6007), Some("prefixed"));
        assert_eq!(map.functions.len(), 4);
    }

    #[test]
    fn later_lines_replace_earlier_ones() {
        let map = PerfMap::parse(b"1000 100 old\n1100 100 old2\n1080 100 new\n");
        assert_eq!(
            (map.name_of(0x1000), map.name_of(0x1080), map.name_of(0x1180)),
            (None, Some("new"), None)
        );
    }

    /// The file of a live process, this one, read the way that a target's is.
    #[test]
    fn own_process() {
        let pid = std::process::id();
        let path = format!("/tmp/perf-{pid}.map");
        assert!(PerfMap::of_process(pid).unwrap().is_none());
        fs::write(&path, "7000 10 generated\n").unwrap();
        let map = PerfMap::of_process(pid);
        fs::remove_file(&path).unwrap();
        assert_eq!(map.unwrap().unwrap().name_of(0x7001), Some("generated"));
    }

    #[test]
    fn pid_of_the_innermost_namespace() {
        assert_eq!(innermost_pid("Name:\tx\nNStgid:\t812\t7\nNSpid:\t1\n"), Some(7));
        assert_eq!(innermost_pid("Name:\tx\n"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), at: u64) {
            let _ = PerfMap::parse(&text).name_of(at);
        }

        /// However lines overlap, no two kept ranges do.
        #[test]
        fn no_overlap(lines in proptest::collection::vec((0u64..200, 0u64..60), 0..40)) {
            let text: String = lines.iter().map(|(start, size)| format!("{start:x} {size:x} f\n")).collect();
            let map = PerfMap::parse(text.as_bytes());
            let ranges: Vec<_> = map.functions.iter().map(|(start, (end, _))| (*start, *end)).collect();
            proptest::prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        }
    }
}
