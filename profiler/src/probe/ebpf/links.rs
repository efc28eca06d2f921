//! What holds probes in the target: descriptors, and perf events that aya keeps.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya::{Ebpf, programs::UProbe};

use super::{attach::perf_program, object::damaged};
use crate::{
    probe::{Position, ProbePoint, error::ProbeError},
    sys::{
        bpf::{self, MultiLink},
        counted_uprobe::{self, CountedUprobe},
    },
};

/// Some probes. Dropped, those behind descriptors are gone; those that aya keeps are taken out by [`Self::remove`].
#[derive(Default)]
pub(super) struct Links {
    /// Multi links, and those of single probes that raise a counter.
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) perf: Vec<(&'static str, aya::programs::uprobe::UProbeLinkId)>,
}

impl Links {
    pub(super) fn add(&mut self, more: Self) {
        self.descriptors.extend(more.descriptors);
        self.perf.extend(more.perf);
    }

    /// All at the same time: each is out of the target at once, and then takes some hundredths of a second in which the kernel
    /// makes sure that no program of it runs any more.
    pub(super) fn remove_at_once(mut self, ebpf: &mut Ebpf) {
        std::thread::scope(|scope| {
            self.descriptors.drain(..).for_each(|link| drop(scope.spawn(move || drop(link))))
        });
        self.remove(ebpf);
    }

    /// Last placed, first removed.
    pub(super) fn remove(mut self, ebpf: &mut Ebpf) {
        while self.descriptors.pop().is_some() {}
        while let Some((name, link)) = self.perf.pop() {
            if let Ok(program) = perf_program(ebpf, name) {
                // A link that is gone already is what we want.
                let _ = program.detach(link);
            }
        }
    }
}

/// One link for each file.
pub(super) fn multi(
    program: &OwnedFd,
    attach_type: u32,
    at_return: bool,
    pid: u32,
    points: &[&ProbePoint],
) -> Result<Vec<OwnedFd>, ProbeError> {
    let mut by_file: BTreeMap<&Path, [Vec<u64>; 3]> = BTreeMap::new();
    for point in points {
        let [offsets, cookies, counters] = by_file.entry(&point.path).or_default();
        offsets.push(point.offset.0);
        cookies.push(point.cookie());
        counters.push(match point.position {
            Position::Told { semaphore: Some(offset), .. } => offset.0,
            _ => 0,
        });
    }
    let mut links = Vec::new();
    for (path, [offsets, cookies, counters]) in by_file {
        let link = c_path(path.as_os_str()).and_then(|path| {
            let link = MultiLink {
                attach_type,
                path: &path,
                offsets: &offsets,
                cookies: &cookies,
                counters: if counters.iter().any(|counter| *counter != 0) { &counters } else { &[] },
                at_return,
                pid,
            };
            bpf::link_uprobe_multi(program.as_fd(), &link)
        });
        links.push(link.map_err(|source| ProbeError::Attach { source })?);
    }
    Ok(links)
}

/// The link of a probe with whose coming the kernel raises a counter, where probes are perf events; `None` for any other.
pub(super) fn counted(program: &UProbe, point: &ProbePoint, pid: u32) -> Result<Option<OwnedFd>, ProbeError> {
    let Position::Told { semaphore: Some(counter), .. } = point.position else { return Ok(None) };
    let program = program.fd().map_err(damaged)?.as_fd();
    let path = c_path(point.path.as_os_str()).map_err(|source| ProbeError::Attach { source })?;
    let (offset, counter, cookie) = (point.offset.0, counter.0, point.cookie());
    let probe = CountedUprobe { path: &path, offset, counter, cookie, pid };
    counted_uprobe::attach(program, &probe).map(Some).map_err(|source| ProbeError::Attach { source })
}

pub(super) fn c_path(path: &OsStr) -> io::Result<CString> {
    CString::new(path.as_bytes()).map_err(io::Error::other)
}
