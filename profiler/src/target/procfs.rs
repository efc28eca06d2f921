//! The text of `/proc/PID/stat` and `/proc/PID/status`, parsed without a process at hand (proc_pid_stat(5),
//! proc_pid_status(5)).

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// `PF_KTHREAD` of the kernel's include/linux/sched.h, in the flags field of the stat line.
const KERNEL_THREAD_FLAG: u64 = 0x0020_0000;

/// What we use of `/proc/PID/stat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Field 3: `R`, `S`, `Z` and so on.
    pub state: u8,
    /// Field 4: the process that forked it, or that it was left to.
    pub parent: u32,
    /// From field 9: whether it is a kernel thread.
    pub kernel_thread: bool,
    /// Field 14: time that its threads have spent in their own code, in clock ticks.
    pub user_ticks: u64,
    /// Field 22: when it started, in clock ticks since boot.
    pub start_time: u64,
    /// Field 28: the address of the bottom of its stack; 0 where we lack the right to see it.
    pub start_stack: u64,
}

impl Stat {
    /// Whether the process has ended (fs/proc/array.c, `task_state_array`).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Parses a stat line. The name in field 2 may hold spaces and parentheses, so fields are counted from the last `)`.
#[must_use]
pub fn parse_stat(line: &[u8]) -> Option<Stat> {
    let name_end = line.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&str> =
        std::str::from_utf8(line.get(name_end + 1..)?).ok()?.split_ascii_whitespace().collect();
    // The manual counts from 1; the first field behind the name is number 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let &[state] = fields.first()?.as_bytes() else { return None };
    Some(Stat {
        state,
        parent: u32::try_from(number(4)?).ok()?,
        kernel_thread: number(9)? & KERNEL_THREAD_FLAG != 0,
        user_ticks: number(14)?,
        start_time: number(22)?,
        start_stack: number(28)?,
    })
}

/// Whether system calls of the target are filtered (seccomp(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seccomp {
    /// No filter.
    Disabled,
    /// Only read, write, exit and sigreturn are allowed.
    Strict,
    /// A filter program decides: one that does not know the kernel's `uretprobe` call may kill the process over it.
    Filter,
    /// The kernel does not say (built without seccomp).
    Unknown,
}

/// What we use of `/proc/PID/status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// The process that the thread belongs to.
    pub thread_group: u32,
    /// Effective user id.
    pub uid: u32,
    /// The seccomp mode of its main thread.
    pub seccomp: Seccomp,
}

/// Parses a status file. The lines wanted come once each, and `Name:`, which the target chooses, has its newlines
/// escaped by the kernel.
#[must_use]
pub fn parse_status(text: &[u8]) -> Option<Status> {
    let text = String::from_utf8_lossy(text);
    let field = |name: &str, column: usize| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().nth(column)?.parse::<u32>().ok()
    };
    Some(Status {
        thread_group: field("Tgid", 0)?,
        uid: field("Uid", 1)?,
        seccomp: match field("Seccomp", 0) {
            Some(0) => Seccomp::Disabled,
            Some(1) => Seccomp::Strict,
            Some(2) => Seccomp::Filter,
            _ => Seccomp::Unknown,
        },
    })
}

/// Reads at most `limit` bytes; the flag says whether there was more.
///
/// # Errors
/// Those of opening and reading the file.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = bytes.len() > limit;
    bytes.truncate(limit);
    Ok((bytes, more))
}

/// Text of the target made fit for a terminal: one line, without control characters.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const TAIL: &str = "S 1 4242 4242 34816 4242 4194304 100 0 0 0 700 23 0 0 20 0 3 0 987654 1000 50 \
                        18446744073709551615 1 2 140730000000000 0 0 0";

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        for name in ["cat", "a b", "x) R 1 2 (y", ") Z 0", "\n\u{1b}[2J"] {
            let stat = parse_stat(format!("4242 ({name}) {TAIL}").as_bytes()).unwrap();
            assert_eq!(
                stat,
                Stat {
                    state: b'S',
                    parent: 1,
                    kernel_thread: false,
                    user_ticks: 700,
                    start_time: 987_654,
                    start_stack: 140_730_000_000_000,
                }
            );
        }
    }

    #[test]
    fn a_short_or_garbled_stat_line_is_refused() {
        let line = format!("1 (x) {TAIL}");
        for end in 0..line.len() - TAIL.len() + 60 {
            assert_eq!(parse_stat(&line.as_bytes()[..end]), None, "cut at {end}");
        }
        assert_eq!(parse_stat(line.replace("987654", "-5").as_bytes()), None);
        for state in ["SZ", "\u{76d}"] {
            assert_eq!(parse_stat(line.replace(") S", &format!(") {state}")).as_bytes()), None);
        }
    }

    #[test]
    fn status_gives_the_effective_user_and_the_seccomp_mode() {
        let text =
            "Name:\tTgid:\\n9\nTgid:\t77\nPid:\t78\nUid:\t1000\t0\t0\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let expected = Status { thread_group: 77, uid: 0, seccomp: Seccomp::Filter };
        assert_eq!(parse_status(text.as_bytes()), Some(expected));
        let without = parse_status(text.replace("Seccomp:\t2\n", "").as_bytes()).unwrap();
        assert_eq!(without.seccomp, Seccomp::Unknown);
        assert_eq!(parse_status(b"Name:\tx\n"), None);
    }

    #[test]
    fn reading_stops_at_the_bound_and_says_so() {
        let path = Path::new("/proc/self/maps");
        let (bytes, more) = read_bounded(path, 100).unwrap();
        assert_eq!((bytes.len(), more), (100, true));
        let (bytes, more) = read_bounded(path, 1 << 20).unwrap();
        assert!(bytes.len() > 100 && !more);
    }
}
