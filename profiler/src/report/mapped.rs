//! What a report says of mapped memory: an account of its own, which is never added to that of the blocks. An allocator
//! gets its memory by mmap, so that the two overlap.

use std::{sync::Arc, time::Duration};

use super::units::{bytes, count, counted};
use crate::symbolize::frame::Frame;

/// Mapped memory: pieces of address space, whether anything was ever written there or not.
#[derive(Clone, Debug, Default)]
pub struct MappedMemory {
    /// Bytes mapped while the process was watched and not unmapped.
    pub inuse_space: u64,
    /// Pieces of those.
    pub inuse_pieces: u64,
    /// Bytes mapped by all calls.
    pub alloc_space: u64,
    /// The most bytes mapped at a time.
    pub peak_space: u64,
    /// Calls that succeeded, and those that failed.
    pub calls: MappingCalls,
    /// Calls of mmap and mremap that an allocator has made inside a call of its own. Their stacks end there.
    pub calls_inside_allocator: u64,
    /// The heap that grows by brk.
    pub heap: HeapGrowth,
    /// The sites, most mapped bytes first.
    pub sites: Vec<MappedSiteReport>,
}

/// Calls by function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MappingCalls {
    /// Of mmap.
    pub mmap: u64,
    /// Of munmap.
    pub munmap: u64,
    /// Of mremap.
    pub mremap: u64,
    /// Of any of them, without success.
    pub failed: u64,
    /// Successful calls of munmap and mremap on memory that is not known: older than the account, or mapped in a way
    /// that is not seen.
    pub unmatched: u64,
}

/// The `[heap]` of the process, in bytes: `None` where it could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeapGrowth {
    /// Its size when the probes came.
    pub at_begin: Option<u64>,
    /// Its size at the end.
    pub at_end: Option<u64>,
}

/// One site: a whole stack at a call of mmap or mremap.
#[derive(Clone, Debug)]
pub struct MappedSiteReport {
    /// Bytes mapped here and not unmapped.
    pub inuse_space: u64,
    /// Bytes mapped here by all calls.
    pub alloc_space: u64,
    /// Calls.
    pub alloc_calls: u64,
    /// Age of its oldest piece; `None` where it has none.
    pub oldest: Option<Duration>,
    /// Its pieces: first address and one past the last.
    pub ranges: Vec<(u64, u64)>,
    /// Leaf first.
    pub stack: Vec<Arc<Frame>>,
}

impl MappedMemory {
    /// Lines about the account as a whole.
    pub(super) fn facts(&self) -> Vec<String> {
        let size = |size: Option<u64>| size.map_or_else(|| String::from("unknown"), bytes);
        vec![
            format!(
                "mapped memory (with what allocators map): {} in {}; {} mapped in all, {} at most at a time",
                bytes(self.inuse_space),
                counted(self.inuse_pieces, "piece", "pieces"),
                bytes(self.alloc_space),
                bytes(self.peak_space)
            ),
            self.calls(),
            format!("heap (brk): {}, then {}", size(self.heap.at_begin), size(self.heap.at_end)),
        ]
    }

    /// The calls in words. What did not happen is not mentioned.
    fn calls(&self) -> String {
        let MappingCalls { mmap, munmap, mremap, failed, unmatched } = self.calls;
        let happened = [
            (mmap, "of mmap"),
            (munmap, "of munmap"),
            (mremap, "of mremap"),
            (failed, "that failed"),
            (unmatched, "on memory that is not known"),
            (self.calls_inside_allocator, "by an allocator inside a call of its own"),
        ];
        let told: Vec<_> = happened
            .into_iter()
            .filter(|(calls, _)| *calls > 0)
            .map(|(calls, what)| format!("{} {what}", count(calls)))
            .collect();
        if told.is_empty() { "calls: none".to_owned() } else { format!("calls: {}", told.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

    use serde_json::json;

    use super::*;
    use crate::{
        report::{
            history::History,
            json::write as write_json,
            options::ReportOptions,
            profile::{Mode, Profile, Quality, TargetInfo, Totals},
            table,
        },
        symbolize::frame::{FrameKind, FrameRole},
    };

    fn profile(mapped: Option<MappedMemory>) -> Profile {
        Profile {
            windowed: None,
            errors: None,
            target: TargetInfo::default(),
            started: std::time::SystemTime::UNIX_EPOCH,
            duration: Duration::from_secs(9),
            mode: Mode::default(),
            totals: Totals::default(),
            quality: Quality::default(),
            history: History::default(),
            sites: Vec::new(),
            code: Vec::new(),
            mapped,
            python: None,
            growth: None,
        }
    }

    fn site(function: &str, inuse_space: u64) -> MappedSiteReport {
        let frame = Frame {
            function: Some(function.to_owned()),
            file: None,
            line: None,
            module: None,
            address: 0x1234,
            module_offset: None,
            kind: FrameKind::Native,
            inlined: false,
            guessed: false,
            role: FrameRole::Program,
        };
        MappedSiteReport {
            inuse_space,
            alloc_space: inuse_space * 2,
            alloc_calls: 3,
            oldest: Some(Duration::from_secs(5)),
            ranges: vec![(0x7f00_0000_0000, 0x7f00_0000_0000 + inuse_space)],
            stack: vec![Arc::new(frame)],
        }
    }

    fn mapped() -> MappedMemory {
        MappedMemory {
            inuse_space: 5 << 20,
            inuse_pieces: 2,
            alloc_space: 10 << 20,
            peak_space: 6 << 20,
            calls: MappingCalls { mmap: 6, failed: 1, ..MappingCalls::default() },
            calls_inside_allocator: 0,
            heap: HeapGrowth { at_begin: Some(0), at_end: None },
            sites: vec![site("large", 4 << 20), site("small", 1 << 20), site("none", 0)],
        }
    }

    fn table(options: &ReportOptions, mapped: Option<MappedMemory>) -> String {
        let mut out = Vec::new();
        table::write(&profile(mapped), options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_part_of_the_table() {
        let text = table(&ReportOptions { sites: 1, ..ReportOptions::default() }, Some(mapped()));
        for line in [
            "calls: 6 of mmap, 1 that failed\n",
            "heap (brk): 0 B, then unknown\n",
            "   1     4.0 MiB   80.0%             1     8.0 MiB           5 s\n       large\n",
            "1 other site has mapped 1.0 MiB more.\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        // A site without anything left is in the files only.
        assert!(!text.contains("none\n"), "{text}");
        assert!(!table(&ReportOptions::default(), None).contains("mapped"));
        let largest = MappedMemory {
            inuse_space: u64::MAX,
            inuse_pieces: u64::MAX,
            calls: MappingCalls {
                mmap: u64::MAX,
                munmap: u64::MAX,
                mremap: u64::MAX,
                failed: u64::MAX,
                unmatched: u64::MAX,
            },
            ..mapped()
        };
        let text = table(&ReportOptions { width: 80, ..ReportOptions::default() }, Some(largest));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_part_of_the_json() {
        let written = |mapped| {
            let mut out = Vec::new();
            write_json(&profile(mapped), &ReportOptions::default(), &mut out).unwrap();
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()
        };
        assert!(written(None).get("mappings").is_none());
        let json = written(Some(mapped()));
        let mappings = json.get("mappings").unwrap();
        let at = |path: &str| mappings.pointer(path).unwrap_or_else(|| panic!("{path} in {mappings}"));
        assert_eq!([at("/inuse_space"), at("/calls/failed")], [&json!(5 << 20), &json!(1)]);
        assert_eq!([at("/brk/begin_space"), at("/brk/end_space")], [&json!(0), &json!(null)]);
        assert_eq!(at("/sites/0/ranges/0"), &json!(["0x7f0000000000", "0x7f0000400000"]));
        assert_eq!(at("/sites/2/stack/0/function"), &json!("none"));
    }
}
