//! Why the kernel said no: the rights that this process has, in words.

use std::{fs, io};

use super::error::ProbeError;

/// Bits of a capability set, from include/uapi/linux/capability.h: what probes by session or multi need. CAP_SYS_ADMIN
/// includes both; probes by perf need it.
const CAPABILITIES: [(u32, &str); 2] = [(38, "CAP_PERFMON"), (39, "CAP_BPF")];
const SYS_ADMIN: u32 = 21;

/// Turns a refusal of bpf(2) into the reason and the remedy.
#[must_use]
pub fn explain(source: &io::Error) -> ProbeError {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    let (reason, remedy) = if missing.is_empty() {
        if is_locked_down() {
            (
                "the kernel is locked down (confidentiality mode)".to_owned(),
                "Boot with lockdown=integrity or without lockdown".to_owned(),
            )
        } else {
            (
                format!("the kernel answered \"{source}\" although the rights are there"),
                "A container's seccomp filter or a security module may forbid bpf(2): allow it there, or run heapscope \
                 on the host"
                    .to_owned(),
            )
        }
    } else {
        (
            format!("it lacks {}", missing.join(" and ")),
            "Run it with sudo, or in a container with --cap-add BPF --cap-add PERFMON (before kernel 6.6: --cap-add \
             SYS_ADMIN)"
                .to_owned(),
        )
    };
    ProbeError::NotPermitted { reason, remedy }
}

/// What this process lacks of what probes need.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    missing_capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// Whether the kernel is locked down so that BPF programs may not read memory.
#[must_use]
pub fn is_locked_down() -> bool {
    let locked = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    locked.contains("[confidentiality]")
}

/// Names of the capabilities that matter and are not in the effective set of this `/proc/PID/status`.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    if effective >> SYS_ADMIN & 1 == 1 {
        return Vec::new();
    }
    CAPABILITIES.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect()
}

/// Major and minor number of a kernel release such as `6.18.44-generic`.
#[must_use]
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_user_lacks_both() {
        assert_eq!(missing_capabilities("Name:\tx\nCapEff:\t0000000000000000\n"), ["CAP_PERFMON", "CAP_BPF"]);
    }

    #[test]
    fn bpf_and_perfmon_suffice() {
        assert!(missing_capabilities("CapEff:\t000000c000000000\n").is_empty());
        assert_eq!(missing_capabilities("CapEff:\t0000008000000000\n"), ["CAP_PERFMON"]);
    }

    #[test]
    fn root_lacks_nothing() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
    }

    #[test]
    fn releases_are_read() {
        assert_eq!(kernel_version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(kernel_version("5.4"), Some((5, 4)));
        assert_eq!(kernel_version("weird"), None);
    }
}
