//! What the kernel says of a process's memory: `/proc/PID/status` (proc_pid_status(5)).

use super::process::Process;

/// Bytes of a status file that are read; real ones have 1,500.
const STATUS: u64 = 16 << 10;

/// Resident memory and its parts, in bytes; `None` for what the kernel does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resident {
    /// `VmRSS`.
    pub rss: Option<u64>,
    /// `RssAnon`: anonymous memory, the heap among it.
    pub anon: Option<u64>,
    /// `RssFile`: pages of files.
    pub file: Option<u64>,
    /// `RssShmem`: shared memory.
    pub shmem: Option<u64>,
    /// `VmSwap`: anonymous memory that was moved out.
    pub swap: Option<u64>,
}

/// The resident memory of a process; `None` where it is gone.
#[must_use]
pub fn resident(process: &Process) -> Option<Resident> {
    let (text, _) = process.read("status", STATUS).ok()?;
    let resident = parse(&text);
    // A zombie has a status but no memory.
    resident.rss.map(|_| resident)
}

/// Parses a status file.
#[must_use]
pub fn parse(text: &[u8]) -> Resident {
    let text = String::from_utf8_lossy(text);
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let (number, unit) = line.trim().split_once(' ')?;
        if unit == "kB" { number.parse::<u64>().ok()?.checked_mul(1024) } else { None }
    };
    Resident {
        rss: field("VmRSS"),
        anon: field("RssAnon"),
        file: field("RssFile"),
        shmem: field("RssShmem"),
        swap: field("VmSwap"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_file() {
        let text = b"Name:\tRssAnon:\\n\nVmRSS:\t    5324 kB\nRssAnon:\t     312 kB\nRssFile:\t    5012 kB\n\
            RssShmem:\t       0 kB\nVmSwap:\t 18446744073709551615 kB\n";
        let resident = parse(text);
        let kib = |number: u64| Some(number * 1024);
        assert_eq!(
            [resident.rss, resident.anon, resident.file, resident.shmem],
            [5324, 312, 5012, 0].map(kib)
        );
        assert_eq!(resident.swap, None, "a number that does not fit");
        assert_eq!(parse(b"VmRSS:\nRssAnon: x kB\nRssFile: 1 MB"), Resident::default());
    }
}
