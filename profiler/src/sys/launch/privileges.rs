//! Tells when a set-user-ID program runs without its rights because we trace it.
//!
//! The kernel gives a traced program no more rights than its tracer has (`cap_bprm_creds_from_file`,
//! security/commoncap.c): without CAP_SYS_PTRACE on our side `sudo` or `ping` then fails in ways that nobody would
//! ascribe to a profiler.

use std::{
    fmt, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

/// A program whose file asks for an identity that the process did not get. Its `Display` is advice to the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WithheldPrivileges {
    /// The executable, as the program sees its path.
    pub program: PathBuf,
    /// The user whose rights the file gives, where it is set-user-ID and the process has another effective user.
    pub user: Option<u32>,
    /// The group whose rights the file gives, where it is set-group-ID and the process has another effective group.
    pub group: Option<u32>,
}

impl fmt::Display for WithheldPrivileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs without the rights of", self.program.display())?;
        if let Some(user) = self.user {
            write!(f, " user {user}")?;
        }
        if let Some(group) = self.group {
            write!(f, " group {group}")?;
        }
        write!(
            f,
            " that its file gives, for the kernel withholds them from a program traced by an ordinary user; run heapscope \
             as root, or start the program by itself and use `heapscope attach`"
        )
    }
}

/// Compares what the executable of `pid` gives with what the process has. `None` too where that cannot be read.
pub(super) fn withheld(pid: u32) -> Option<WithheldPrivileges> {
    let link = PathBuf::from(format!("/proc/{pid}/exe"));
    let file = fs::metadata(&link).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let given = |bit, owner| (file.permissions().mode() & bit != 0).then_some(owner);
    let lacking = |key, owner: &u32| effective_id(&status, key).is_some_and(|has| has != *owner);
    let user = given(libc::S_ISUID, file.uid()).filter(|owner| lacking("Uid:", owner));
    let group = given(libc::S_ISGID, file.gid()).filter(|owner| lacking("Gid:", owner));
    if user.is_none() && group.is_none() {
        return None;
    }
    Some(WithheldPrivileges { program: fs::read_link(&link).unwrap_or(link), user, group })
}

/// The second number of a `Uid:` or `Gid:` line of /proc/PID/status (proc(5)).
fn effective_id(status: &str, key: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_id_is_the_second() {
        let status = "Name:\tpasswd\nUid:\t1000\t0\t1000\t1000\nGid:\t5\t6\t7\t8\n";
        assert_eq!(effective_id(status, "Uid:"), Some(0));
        assert_eq!(effective_id(status, "Gid:"), Some(6));
        assert_eq!(effective_id("Uid:\tx", "Uid:"), None);
    }
}
