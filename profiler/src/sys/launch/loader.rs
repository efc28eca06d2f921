//! Follows the dynamic loader through its system calls: when has it mapped code, and when is its work done?
//!
//! Done is decided by where a system call comes from: from outside the loader's code, so from the program or a library.
//! With glibc 2.34 and later that is the C library's own initialisation, before any constructor. A breakpoint on the
//! program's entry would be more exact, but would kill the program if we died while it is set; and this needs no
//! knowledge of the processor.

use std::{fs::File, io::Read, ops::Range};

/// Bound on what is read of the maps of a program that has just been executed, in bytes; they are some 2 KiB long.
const MAPS_LIMIT: u64 = 1 << 20;
/// Bound on the auxiliary vector, in bytes; it is some 350 long.
const AUXILIARY_LIMIT: u64 = 1 << 14;

/// System calls that no loader makes and nearly every program soon does. In a musl program the loader is the C library
/// too, so that all system calls come from it: there, these show that the program runs.
const PROGRAM_ONLY: &[libc::c_long] = &[
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_clock_nanosleep,
    libc::SYS_connect,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_execve,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_ioctl,
    libc::SYS_nanosleep,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_socket,
    libc::SYS_wait4,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// What a system call told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// The loader works on.
    Nothing,
    /// Executable memory was mapped.
    CodeMapped,
    /// The loader has left.
    Done,
}

/// The dynamic loader of a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Loader {
    /// Addresses of its code.
    code: Range<u64>,
    /// Whether the system call under way maps executable memory.
    maps_code: bool,
}

impl Loader {
    /// The loader of the program that process `pid` has just executed; `None` for a static program.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let base = auxiliary_value(&read(pid, "auxv", AUXILIARY_LIMIT)?, libc::AT_BASE)?;
        let code = code_of_file_at(base, &String::from_utf8_lossy(&read(pid, "maps", MAPS_LIMIT)?))?;
        Some(Self { code, maps_code: false })
    }

    /// A system call begins, its instruction just before `instruction`.
    pub(super) fn call_begins(&mut self, instruction: u64, number: u64, arguments: &[u64; 6]) -> Progress {
        let is = |call: &libc::c_long| u64::try_from(*call) == Ok(number);
        if !self.code.contains(&instruction) || PROGRAM_ONLY.iter().any(is) {
            return Progress::Done;
        }
        // All three take the protection as the third argument.
        let protects = [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect].iter().any(is);
        self.maps_code = protects && arguments[2] & u64::from(libc::PROT_EXEC.unsigned_abs()) != 0;
        Progress::Nothing
    }

    /// The system call has ended.
    pub(super) fn call_ended(&mut self, failed: bool) -> Progress {
        let mapped = std::mem::take(&mut self.maps_code) && !failed;
        if mapped { Progress::CodeMapped } else { Progress::Nothing }
    }
}

fn read(pid: u32, name: &str, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/{name}")).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The value of `key` in /proc/PID/auxv (proc(5)): pairs of native words.
fn auxiliary_value(auxv: &[u8], key: u64) -> Option<u64> {
    let (pairs, _) = auxv.as_chunks::<16>();
    pairs.iter().map(|pair| u128::from_le_bytes(*pair)).find_map(|pair| {
        let [found, value] = [pair, pair >> 64].map(|word| u64::try_from(word & u128::from(u64::MAX)));
        (found == Ok(key)).then_some(value.ok()).flatten()
    })
}

/// The executable addresses of the file that is mapped at `base`, from lines of /proc/PID/maps (proc(5)).
fn code_of_file_at(base: u64, maps: &str) -> Option<Range<u64>> {
    let parsed = || maps.lines().filter_map(Mapping::parse);
    let file = parsed().find(|mapping| mapping.addresses.contains(&base))?.file;
    parsed()
        .filter(|mapping| mapping.executable && mapping.file == file)
        .map(|mapping| mapping.addresses)
        .reduce(|all, next| all.start.min(next.start)..all.end.max(next.end))
}

struct Mapping<'a> {
    addresses: Range<u64>,
    executable: bool,
    /// Device and inode.
    file: (&'a str, &'a str),
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?;
        let file = (fields.nth(1)?, fields.next()?);
        let addresses = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        Some(Self { addresses, executable: permissions.contains('x'), file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MAPS: &str = "\
        555500000000-555500004000 r-xp 00000000 fe:00 11   /bin/true\n\
        7f0000000000-7f0000001000 r--p 00000000 fe:00 22   /lib/ld-2.36.so\n\
        7f0000001000-7f0000026000 r-xp 00001000 fe:00 22   /lib/ld-2.36.so\n\
        7f0000026000-7f0000030000 r--p 00026000 fe:00 22   /lib/ld-2.36.so\n\
        7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0    [stack]\n";

    fn number(call: libc::c_long) -> u64 {
        u64::try_from(call).unwrap()
    }

    fn loader() -> Loader {
        Loader { code: 0x1000..0x2000, maps_code: false }
    }

    #[test]
    fn the_loader_is_found_by_the_file_at_its_base() {
        assert_eq!(code_of_file_at(0x7f00_0000_0000, MAPS), Some(0x7f00_0000_1000..0x7f00_0002_6000));
        assert_eq!(code_of_file_at(0x1000, MAPS), None);
        assert_eq!(code_of_file_at(0x1000, "zz-1000 r-xp\n\n-"), None);
    }

    #[test]
    fn auxiliary_vector_is_read_in_pairs() {
        let bytes: Vec<u8> = [(3, 64), (7, 0x7f00_0000_0000), (0, 0)]
            .iter()
            .flat_map(|(key, value): &(u64, u64)| [key.to_le_bytes(), value.to_le_bytes()].concat())
            .collect();
        assert_eq!(auxiliary_value(&bytes, libc::AT_BASE), Some(0x7f00_0000_0000));
        assert_eq!(auxiliary_value(&bytes, libc::AT_ENTRY), None);
        assert_eq!(auxiliary_value(&bytes[..20], libc::AT_BASE), None);
    }

    #[test]
    fn only_a_mapping_with_code_that_succeeded_is_progress() {
        let mut loader = loader();
        for (call, protection, failed, progress) in [
            (libc::SYS_mmap, libc::PROT_READ | libc::PROT_EXEC, false, Progress::CodeMapped),
            (libc::SYS_mprotect, libc::PROT_EXEC, false, Progress::CodeMapped),
            (libc::SYS_mmap, libc::PROT_READ | libc::PROT_EXEC, true, Progress::Nothing),
            (libc::SYS_mmap, libc::PROT_READ | libc::PROT_WRITE, false, Progress::Nothing),
            (libc::SYS_openat, libc::PROT_EXEC, false, Progress::Nothing),
        ] {
            let arguments = [0, 0, u64::from(protection.unsigned_abs()), 0, 0, 0];
            assert_eq!(loader.call_begins(0x1800, number(call), &arguments), Progress::Nothing);
            assert_eq!(loader.call_ended(failed), progress, "call {call}");
        }
    }

    #[test]
    fn it_is_done_when_others_make_system_calls() {
        assert_eq!(loader().call_begins(0x2000, number(libc::SYS_brk), &[0; 6]), Progress::Done);
        assert_eq!(loader().call_begins(0x1800, number(libc::SYS_brk), &[0; 6]), Progress::Nothing);
        assert_eq!(loader().call_begins(0x1800, number(libc::SYS_ioctl), &[0; 6]), Progress::Done);
    }
}
