//! What the kernel measures of the BPF programs of another heapscope.

use std::{fs, os::fd::OwnedFd};

use heapscope::probe::ebpf::enable_run_time_stats;

/// Runs of one program, and what they took.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    pub(crate) number: u64,
    pub(crate) nanoseconds: u64,
}

/// Its programs, measured while this lives.
pub(crate) struct RunTime {
    /// Their descriptors in `/proc/PID/fdinfo`.
    descriptors: Vec<String>,
    _measuring: OwnedFd,
}

impl RunTime {
    /// Measures all programs that this process holds.
    pub(crate) fn of(pid: u32) -> Self {
        let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path().to_str().unwrap().to_owned());
        let descriptors = paths.filter(|path| read(path).is_some()).collect();
        Self { descriptors, _measuring: enable_run_time_stats().unwrap() }
    }

    /// What each has run so far.
    pub(crate) fn read(&self) -> Vec<Runs> {
        self.descriptors.iter().map(|path| read(path).unwrap()).collect()
    }
}

/// What stands in the file of a program's descriptor; `None` for one of anything else.
fn read(path: &str) -> Option<Runs> {
    let text = fs::read_to_string(path).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    Some(Runs { number: field("run_cnt:")?, nanoseconds: field("run_time_ns:")? })
}
