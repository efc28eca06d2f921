//! The file system as the target sees it, held open, so that its files can be named after it has ended.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

/// A FIFO would block the open, a device could do anything: not blocking, and regular files only.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The root directory of a process.
#[derive(Debug)]
pub(super) struct TargetRoot(OwnedFd);

impl TargetRoot {
    /// The root of the process `pid`.
    ///
    /// # Errors
    /// When the process is gone or its root may not be opened.
    pub(super) fn of_process(pid: u32) -> io::Result<Self> {
        Ok(Self(open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Whether the process sees the files that we see: the same mount namespace, and the same root in it.
    pub(super) fn is_ours(pid: u32) -> bool {
        let same_namespace = || {
            let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
            namespace("self").is_some() && namespace("self") == namespace(&pid.to_string())
        };
        let root = |path: &str| fs::metadata(path).ok().map(|root| (root.dev(), root.ino()));
        same_namespace() && root("/").is_some() && root("/") == root(&format!("/proc/{pid}/root/"))
    }

    /// Opens a regular file by its path in the target's root. Symbolic links are followed inside that root only.
    ///
    /// # Errors
    /// Those of openat2(2); `NotFound` for what is no regular file.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        regular(openat2(&self.0, path, FLAGS, Mode::empty(), inside)?.into())
    }
}

/// Opens a regular file of our own file system.
///
/// # Errors
/// Those of open(2); `NotFound` for what is no regular file.
pub(super) fn open_here(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    regular(File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}
