//! What the kernel measures of the BPF programs of another heapscope.

use std::{collections::BTreeSet, fs, os::fd::OwnedFd};

use aya::programs::loaded_programs;
use heapscope::probe::ebpf::enable_run_time_stats;

/// Those programs, measured while this lives.
pub(crate) struct RunTime {
    /// Their descriptors in `/proc/PID/fdinfo`.
    descriptors: Vec<String>,
    _measuring: OwnedFd,
}

impl RunTime {
    /// Measures the programs of this process that have this name.
    pub(crate) fn of(pid: u32, name: &str) -> Self {
        let programs = loaded_programs().map(Result::unwrap);
        let ids: BTreeSet<u32> = programs
            .filter(|program| program.name_as_str() == Some(name))
            .map(|program| program.id())
            .collect();
        let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path().to_str().unwrap().to_owned());
        let mut seen = BTreeSet::new();
        // A link names its program as well.
        let is_one = |path: &String| {
            let id = field(path, "prog_id:").filter(|_| field(path, "run_time_ns:").is_some());
            id.is_some_and(|id| ids.contains(&u32::try_from(id).unwrap()) && seen.insert(id))
        };
        let descriptors: Vec<_> = paths.filter(is_one).collect();
        assert!(!descriptors.is_empty(), "{pid} has no program {name}");
        Self { descriptors, _measuring: enable_run_time_stats().unwrap() }
    }

    /// Nanoseconds so far.
    pub(crate) fn nanoseconds(&self) -> u64 {
        self.descriptors.iter().map(|path| field(path, "run_time_ns:").unwrap()).sum()
    }
}

/// A line of such a file; `None` where there is none.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}
