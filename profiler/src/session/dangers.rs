//! Targets that probes could harm.

use crate::{
    probe::rights::kernel_version,
    target::{process::Process, procfs::Seccomp},
};

/// Refuses a target that a return probe could kill: from kernel 6.11 a return probe makes the target enter a system
/// call, which a seccomp filter that does not know it may answer with SIGSYS; from 6.14 the kernel lets it pass.
pub(in crate::session) fn refuse_dangerous(process: &Process) -> anyhow::Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if process.seccomp != Seccomp::Disabled
        && kernel_version(&release).is_some_and(|version| ((6, 11)..(6, 14)).contains(&version))
    {
        anyhow::bail!(
            "process {} runs under seccomp, and on kernel {release} a return probe could kill it. Use kernel 6.14 or \
             later, or start the process without its seccomp filter",
            process.pid
        );
    }
    Ok(())
}
