//! A thread that takes the kernel's notices out of their buffers as they come: the thread that watches may be busy for a
//! second with a large library, and meanwhile a busy machine fills the buffers.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::sys::perf::{CodeWatch, Notices};

/// Notices that are kept for the watching thread, at most. A target that maps code without end makes more.
const MOST: usize = 1 << 16;

/// Listens until it is dropped.
pub(super) struct Listener {
    heard: Arc<Heard>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

struct Heard {
    kept: Mutex<(CodeWatch, Notices)>,
    /// Readable while something is kept.
    bell: OwnedFd,
    pid: u32,
}

impl Listener {
    /// Begins to listen for the process with this pid, with `births` to all forks too.
    ///
    /// # Errors
    /// Those of [`CodeWatch::new`]; EAGAIN or EMFILE where there is no thread or descriptor left for us.
    pub(super) fn new(pid: u32, births: bool) -> io::Result<Self> {
        let watch = CodeWatch::new(births)?;
        let ready = watch.as_fd().try_clone_to_owned()?;
        let bell = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let heard = Arc::new(Heard { kept: Mutex::new((watch, Notices::default())), bell: bell()?, pid });
        let stop = bell()?;
        let stopped = stop.try_clone()?;
        let thread = thread::Builder::new().name("listener".into()).spawn({
            let heard = Arc::clone(&heard);
            move || heard.listen(&ready, &stopped)
        })?;
        Ok(Self { heard, stop, thread: Some(thread) })
    }

    /// All that came since the last call, up to this moment.
    pub(super) fn take(&self) -> Notices {
        silence(&self.heard.bell);
        let mut kept = self.heard.take_in();
        std::mem::take(&mut kept.1)
    }
}

/// Becomes readable when there is something to take.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.heard.bell.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        ring(&self.stop);
        if let Some(thread) = self.thread.take() {
            // It has no result, and a panic of its has been printed.
            let _ = thread.join();
        }
    }
}

impl Heard {
    fn listen(&self, ready: &OwnedFd, stop: &OwnedFd) {
        loop {
            let mut descriptors = [ready, stop].map(|fd| PollFd::new(fd, PollFlags::IN));
            // Signals are taken by whoever they come to; anything else that poll(2) may answer does not pass by itself.
            if poll(&mut descriptors, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
                return;
            }
            if descriptors[1].revents().contains(PollFlags::IN) {
                return;
            }
            let kept = self.take_in();
            if kept.1.any() || !kept.1.births.is_empty() {
                ring(&self.bell);
            }
        }
    }

    /// Empties the buffers into what is kept.
    fn take_in(&self) -> MutexGuard<'_, (CodeWatch, Notices)> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (watch, notices) = &mut *kept;
        let new = watch.take(self.pid);
        notices.extend(new, MOST);
        kept
    }
}

/// Makes an eventfd(2) readable. It can only fail where it is readable already.
fn ring(bell: &OwnedFd) {
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

/// The opposite.
fn silence(bell: &OwnedFd) {
    let _ = rustix::io::read(bell, &mut [0_u8; 8]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::{
        io::Write,
        time::{Duration, Instant},
    };

    use memmap2::MmapOptions;

    use super::*;

    #[test]
    fn more_than_the_buffers_hold_is_kept_while_nobody_takes_it() {
        let listener = match Listener::new(std::process::id(), false) {
            Ok(listener) => listener,
            Err(error) => {
                writeln!(io::stderr(), "skipped: listener: perf events are refused: {error}").unwrap();
                return;
            }
        };
        let kept = || listener.heard.kept.lock().unwrap().1.mapped.len();
        let patience = Instant::now() + Duration::from_secs(60);
        for burst in 1..=30 {
            for _ in 0..100 {
                drop(MmapOptions::new().len(0x1000).map_anon().unwrap().make_exec().unwrap());
            }
            while kept() < burst * 100 {
                assert!(Instant::now() < patience, "{} of {}", kept(), burst * 100);
                thread::yield_now();
            }
        }
        assert_eq!(poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).unwrap(), 1);
        let notices = listener.take();
        assert!(notices.mapped.len() >= 3000);
        assert_eq!(listener.take().mapped, []);
    }
}
