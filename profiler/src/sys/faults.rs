//! The kernel's software events for page faults, on the threads of one process, with a BPF program behind them
//! (perf_event_open(2)).
//!
//! An event is on its thread's list only while the thread runs, so that the faults of other processes never come to the
//! program: what they pay is a look at a list that is empty. Threads that come later inherit the events of the thread that
//! makes them; other processes that are forked do not.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
    path::Path,
};

use perf_event::{Builder, Counter, events::Software};

/// Times that the threads are listed at most: a process that makes threads faster than they can be listed has threads that
/// inherit, so that nothing is missed for long.
const ROUNDS: usize = 16;

/// The events on the threads of a process. They are gone when this is dropped.
#[derive(Default)]
pub struct FaultEvents {
    threads: BTreeMap<i32, [Counter; 2]>,
}

impl FaultEvents {
    /// Puts both events on each thread that is listed in `tasks` (`/proc/PID/task`), again until no other thread is found.
    /// A thread may then have inherited them as well: two events tell of the same fault.
    ///
    /// # Errors
    /// What perf_event_open(2) answers: EACCES or EPERM without CAP_PERFMON, EMFILE where there are more threads than
    /// descriptors; ENOENT where the folder is gone.
    pub fn watch(&mut self, tasks: &Path, minor: BorrowedFd<'_>, major: BorrowedFd<'_>) -> io::Result<usize> {
        for _ in 0..ROUNDS {
            let mut found = 0;
            for entry in fs::read_dir(tasks)? {
                let name = entry?.file_name();
                let Some(thread) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
                if self.threads.contains_key(&thread) {
                    continue;
                }
                let events = event(Software::PAGE_FAULTS_MIN, thread, minor)
                    .and_then(|minor| Ok([minor, event(Software::PAGE_FAULTS_MAJ, thread, major)?]));
                match events {
                    Ok(events) => {
                        self.threads.insert(thread, events);
                        found += 1;
                    }
                    // It has ended since.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(error),
                }
            }
            if found == 0 {
                break;
            }
        }
        Ok(self.threads.len())
    }

    /// Takes them off.
    pub fn clear(&mut self) {
        self.threads.clear();
    }
}

/// One event on one thread, with its program behind it.
fn event(which: Software, thread: i32, program: BorrowedFd<'_>) -> io::Result<Counter> {
    let mut builder = Builder::new(which);
    // Faults that the kernel makes on the thread's behalf count too.
    builder.observe_pid(thread).any_cpu().include_kernel().exclude_hv(false).enabled(false);
    builder.inherit(true).inherit_thread(true).sample_period(1);
    let mut counter = builder.build()?;
    counter.set_bpf(program.as_raw_fd())?;
    counter.enable()?;
    Ok(counter)
}
