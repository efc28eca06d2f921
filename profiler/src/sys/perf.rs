//! The kernel's notices that a process has mapped code, by perf_event_open(2).
//!
//! A dummy event counts nothing, but its ring buffer gets a record whenever somebody maps executable memory, makes
//! memory executable, or executes a program; unmapping gives none. An event that follows the target alone would need a
//! descriptor and a buffer for each of its threads on each CPU, and the kernel would switch it in and out with them. So
//! there is one event a CPU, for all processes, and the records of others are skipped here.

use std::{
    fs, io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use perf_event::{Builder, Clock, SampleFlag, Sampler, events::Software};
use rustix::event::epoll;

/// Bytes of each CPU's ring buffer: some 500 notices, a quarter of which a compiler's start makes.
const BUFFER: usize = 64 << 10;
/// Bytes of the largest notice: the record, its header, and a path of `PATH_MAX`.
const LARGEST: usize = 4096 + 96;
/// Records taken out of a buffer at a time, so that whoever maps without end does not keep us here.
const AT_A_TIME: usize = 1024;
/// Bytes of `struct perf_event_header`.
const HEADER: usize = 8;
/// `PERF_RECORD_LOST`, `EXIT`, `FORK` and `MMAP2` of `enum perf_event_type` (include/uapi/linux/perf_event.h).
const RECORD_LOST: u32 = 2;
const RECORD_EXIT: u32 = 4;
const RECORD_FORK: u32 = 7;
const RECORD_MMAP2: u32 = 10;

/// Some memory became executable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// Its addresses in the process.
    pub range: Range<u64>,
    /// When: `CLOCK_MONOTONIC` in nanoseconds.
    pub at: u64,
}

/// A process began or ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Birth {
    /// When: `CLOCK_MONOTONIC` in nanoseconds.
    pub at: u64,
    /// The process (in our pid namespace).
    pub pid: u32,
    /// Who forked it; `None` where it is the process's end.
    pub parent: Option<u32>,
}

/// What came since the last look.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Notices {
    /// The process's new code, by CPU and then in order.
    pub mapped: Vec<Mapped>,
    /// Forks and ends of any process, by CPU and then in order; only where they were asked for.
    pub births: Vec<Birth>,
    /// How many notices, of any process, found no room in a buffer.
    pub lost: u64,
    /// Whether a buffer was found without room for another. The kernel tells what it lost only with the next notice
    /// that it does have room for.
    pub full: bool,
}

/// Listens to all CPUs.
pub struct CodeWatch {
    samplers: Vec<Sampler>,
    ready: OwnedFd,
    births: bool,
}

impl CodeWatch {
    /// Begins to listen; with `births`, to the beginnings and ends of processes too.
    ///
    /// # Errors
    /// What perf_event_open(2) answers: EACCES or EPERM without CAP_PERFMON, with a restrictive seccomp filter, or where
    /// `perf_event_paranoid` has one of the stricter values that distributions add; ENOENT without perf events.
    pub fn new(births: bool) -> io::Result<Self> {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut samplers = Vec::new();
        for cpu in online_cpus(&fs::read_to_string("/sys/devices/system/cpu/online")?) {
            let mut event = Builder::new(Software::DUMMY);
            // `mmap` is what switches the notices on in the kernel (`account_event`), `mmap2` is their form. It brings
            // those of forks and ends too (`perf_event_task_match`, kernel/events/core.c).
            event.any_pid().one_cpu(cpu).mmap(true).mmap2(true).enabled(true);
            event.sample_id_all(true).sample(SampleFlag::TIME).clockid(Clock::MONOTONIC).wakeup_watermark(1);
            let sampler = match event.build().and_then(|counter| counter.sampled(BUFFER)) {
                Ok(sampler) => sampler,
                // The CPU has been taken offline since.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(error) => return Err(error),
            };
            // SAFETY: the sampler owns the descriptor and outlives this use of it.
            let fd = unsafe { BorrowedFd::borrow_raw(sampler.as_raw_fd()) };
            epoll::add(&ready, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
            samplers.push(sampler);
        }
        Ok(Self { samplers, ready, births })
    }

    /// Takes out what has come, and keeps what concerns the process with this pid (in our pid namespace).
    pub fn take(&mut self, pid: u32) -> Notices {
        let mut notices = Notices::default();
        for sampler in &mut self.samplers {
            let mut taken = 0;
            for _ in 0..AT_A_TIME {
                let Some(record) = sampler.next_record() else { break };
                taken += HEADER + record.len();
                notices.add(record.ty(), &record.to_contiguous(), pid);
            }
            notices.full |= taken + LARGEST > BUFFER;
        }
        if !self.births {
            notices.births.clear();
        }
        notices
    }
}

/// A descriptor that poll(2) finds readable, once, when there is something to [`CodeWatch::take`].
impl AsFd for CodeWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl Notices {
    /// Whether the process has new code, or may have.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.mapped.is_empty() || self.lost > 0 || self.full
    }

    /// Puts later notices behind these, `most` of each kind in all; what is beyond counts as lost.
    pub fn extend(&mut self, later: Self, most: usize) {
        let mut beyond = 0;
        let mut room = |kept: usize, more: usize| {
            let taken = more.min(most.saturating_sub(kept));
            beyond += more - taken;
            taken
        };
        let mapped = room(self.mapped.len(), later.mapped.len());
        let births = room(self.births.len(), later.births.len());
        self.mapped.extend(later.mapped.into_iter().take(mapped));
        self.births.extend(later.births.into_iter().take(births));
        self.lost = self.lost.saturating_add(later.lost).saturating_add(beyond as u64);
        self.full |= later.full;
    }

    /// Adds a record, by perf_event_open(2): `MMAP2` begins with pid, tid (four bytes each), address and length (eight
    /// each) and ends with the time that we asked for; `LOST` begins with an id and the number, eight bytes each.
    fn add(&mut self, kind: u32, record: &[u8], pid: u32) {
        let word = |at: usize| {
            let bytes = record.get(at..at.checked_add(8)?)?;
            Some(u64::from_ne_bytes(bytes.try_into().ok()?))
        };
        match kind {
            RECORD_LOST => self.lost += word(8).unwrap_or(1),
            RECORD_MMAP2 => {
                let owner = record.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
                let time = record.len().checked_sub(8).and_then(word);
                if owner == Some(pid)
                    && let (Some(start), Some(length), Some(at)) = (word(8), word(16), time)
                {
                    self.mapped.push(Mapped { range: start..start.saturating_add(length), at });
                }
            }
            RECORD_FORK | RECORD_EXIT => {
                let half = |at: usize| {
                    let bytes = record.get(at..at.checked_add(4)?)?;
                    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
                };
                // pid, ppid, tid, ptid, time.
                let (Some(pid), Some(parent), Some(thread), Some(at)) = (half(0), half(4), half(8), word(16))
                else {
                    return;
                };
                // A thread is no process.
                if thread == pid && (kind == RECORD_EXIT || parent != pid) {
                    self.births.push(Birth { at, pid, parent: (kind == RECORD_FORK).then_some(parent) });
                }
            }
            _ => {}
        }
    }
}

/// The CPUs that a list such as `0-3,8` names.
fn online_cpus(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::io::Write;

    use memmap2::MmapOptions;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(online_cpus("0\n"), [0]);
        assert_eq!(online_cpus("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(online_cpus("x,3-,-,9-7,\n"), Vec::<usize>::new());
    }

    #[test]
    fn records_are_read_by_their_layout_and_damaged_ones_left_out() {
        let record = |pid: u32| {
            let mut bytes = [pid.to_ne_bytes(), 77_u32.to_ne_bytes()].concat();
            for word in [0x7000_u64, 0x2000, 9, 9, 9] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(123_u64.to_ne_bytes());
            bytes
        };
        let mut notices = Notices::default();
        notices.add(RECORD_MMAP2, &record(5), 5);
        notices.add(RECORD_MMAP2, &record(6), 5);
        notices.add(3, &record(5), 5);
        assert_eq!(notices.mapped, [Mapped { range: 0x7000..0x9000, at: 123 }]);
        assert_eq!(notices.lost, 0);
        notices.add(RECORD_LOST, &[1_u64.to_ne_bytes(), 40_u64.to_ne_bytes()].concat(), 5);
        for length in 0..16 {
            notices.add(RECORD_MMAP2, &record(5)[..length], 5);
            notices.add(RECORD_LOST, &record(5)[..length], 5);
        }
        assert_eq!((notices.mapped.len(), notices.lost), (1, 40 + 16));
    }

    #[test]
    fn notices_are_kept_in_order_and_what_is_too_much_is_counted() {
        let mapped = |at| Mapped { range: 0..1, at };
        let notices =
            |times: Range<u64>| Notices { mapped: times.map(mapped).collect(), ..Notices::default() };
        let mut kept = notices(0..3);
        kept.extend(Notices { lost: 7, full: true, ..notices(3..8) }, 5);
        assert_eq!(kept, Notices { lost: 7 + 3, full: true, ..notices(0..5) });
        kept.extend(notices(8..9), 5);
        assert_eq!((kept.mapped.len(), kept.lost), (5, 11));
    }

    #[test]
    fn forks_and_ends_of_processes_are_told_and_threads_are_none() {
        let record = |pid: u32, parent: u32, thread: u32| {
            let mut bytes = [pid, parent, thread, parent].map(u32::to_ne_bytes).concat();
            for word in [7_u64, 9] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes
        };
        let mut notices = Notices::default();
        notices.add(RECORD_FORK, &record(20, 5, 20), 5);
        notices.add(RECORD_FORK, &record(5, 5, 21), 5);
        notices.add(RECORD_EXIT, &record(20, 5, 22), 5);
        notices.add(RECORD_EXIT, &record(20, 5, 20), 5);
        for length in 0..24 {
            notices.add(RECORD_FORK, &record(20, 5, 20)[..length], 5);
        }
        let births = [Some(5), None].map(|parent| Birth { at: 7, pid: 20, parent });
        assert_eq!(notices.births, births);
    }

    /// Skipped, and says so, where the kernel refuses.
    fn watch() -> Option<CodeWatch> {
        match CodeWatch::new(false) {
            Ok(watch) => Some(watch),
            Err(error) => {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                writeln!(io::stderr(), "skipped: {name}: perf events are refused: {error}").unwrap();
                None
            }
        }
    }

    #[test]
    fn executable_memory_is_told_when_it_is_mapped_and_no_other() {
        let Some(mut watch) = watch() else { return };
        let before = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let writable = MmapOptions::new().len(0x5000).map_anon().unwrap();
        let (start, end) = (writable.as_ptr() as u64, writable.as_ptr() as u64 + 0x5000);
        let told = |watch: &mut CodeWatch| {
            let notices = watch.take(std::process::id());
            notices.mapped.into_iter().find(|mapped| mapped.range.start <= start && end <= mapped.range.end)
        };
        assert_eq!(told(&mut watch), None);
        let executable = writable.make_exec().unwrap();
        let ready = &mut [PollFd::new(&watch, PollFlags::IN)];
        assert_eq!(poll(ready, Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap(), 1);
        let mapped = told(&mut watch).unwrap();
        assert!(mapped.at >= u64::try_from(before.tv_sec).unwrap() * 1_000_000_000, "{mapped:?}");
        assert_eq!(told(&mut watch), None);
        drop(executable);
        // Another's code is not ours.
        std::process::Command::new("true").status().unwrap();
        assert_eq!(watch.take(1), Notices::default());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let Some(mut watch) = watch() else { return };
        for _ in 0..20_000 {
            drop(MmapOptions::new().len(0x1000).map_anon().unwrap().make_exec().unwrap());
        }
        let notices = watch.take(std::process::id());
        assert!(notices.full && notices.mapped.len() < 2000, "{}", notices.mapped.len());
        // There is room again, on the CPU where we run now and on the one where we ran.
        let lost = || {
            drop(MmapOptions::new().len(0x1000).map_anon().unwrap().make_exec().unwrap());
            watch.take(std::process::id()).lost
        };
        assert!(std::iter::repeat_with(lost).take(100_000).any(|lost| lost > 1_000));
    }
}
