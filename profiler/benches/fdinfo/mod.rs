//! What the kernel tells of the BPF maps and programs of another heapscope, in `/proc/PID/fdinfo`.

use std::{fs, os::fd::OwnedFd, path::PathBuf};

use heapscope::probe::ebpf::enable_run_time_stats;

/// The file of one of its descriptors.
pub(crate) struct Descriptor(PathBuf);

impl Descriptor {
    /// Those of all descriptors that a process has.
    pub(crate) fn all(pid: u32) -> Vec<Self> {
        let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
        entries.map(|entry| Self(entry.unwrap().path())).collect()
    }

    /// Lines with these names; `None` where not all are there.
    pub(crate) fn fields<const COUNT: usize>(&self, names: [&str; COUNT]) -> Option<[u64; COUNT]> {
        let text = fs::read_to_string(&self.0).ok()?;
        let mut values = [0; COUNT];
        for (value, name) in values.iter_mut().zip(names) {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            *value = line?.trim().parse().ok()?;
        }
        Some(values)
    }
}

/// Its programs, measured while this lives.
pub(crate) struct RunTime {
    programs: Vec<Descriptor>,
    _measuring: OwnedFd,
}

impl RunTime {
    const FIELDS: [&'static str; 2] = ["run_cnt", "run_time_ns"];

    /// Measures all programs that this process holds.
    pub(crate) fn of(pid: u32) -> Self {
        let mut programs = Descriptor::all(pid);
        programs.retain(|descriptor| descriptor.fields(Self::FIELDS).is_some());
        Self { programs, _measuring: enable_run_time_stats().unwrap() }
    }

    /// How often each has run so far, and how many nanoseconds that took.
    pub(crate) fn read(&self) -> Vec<[u64; 2]> {
        self.programs.iter().map(|program| program.fields(Self::FIELDS).unwrap()).collect()
    }
}
