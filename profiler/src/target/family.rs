//! The processes that descend from one.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
};

use super::process::parent_of;

/// The children of a process, their children, and so on, as `/proc` has them now. One that was left to another process
/// when its parent ended is not among them.
#[must_use]
pub fn descendants(pid: u32) -> BTreeSet<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(process) = process
            && let Some(parent) = parent_of(process)
        {
            children.entry(parent).or_default().push(process);
        }
    }
    let (mut found, mut next) = (BTreeSet::new(), vec![pid]);
    while let Some(parent) = next.pop() {
        // Each process is met once: a circle, as of pids that were given out again while we read, ends here.
        let new = children.remove(&parent).unwrap_or_default();
        next.extend(new.iter().filter(|child| found.insert(**child)));
    }
    found
}
