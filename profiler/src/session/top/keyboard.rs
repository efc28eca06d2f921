//! Keys, as they come, beside all else that the loop waits for.
//!
//! They are read in a thread of their own: crossterm's reader does not return from a terminal that has hung up, nor from
//! half a key, and the loop must be able to end then.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::tui::terminal::{Happened, happens};

/// What the terminal sends.
#[derive(Debug)]
pub(super) struct Keyboard {
    events: Receiver<Happened>,
    /// Readable while there may be events.
    bell: Arc<OwnedFd>,
}

impl Keyboard {
    /// Begins to read. The thread is left behind at the end, waiting for a key.
    pub(super) fn listen() -> io::Result<Self> {
        let (sender, events) = channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let rung = Arc::clone(&bell);
        thread::Builder::new().name("keyboard".into()).spawn(move || {
            while let Ok(happened) = happens() {
                if sender.send(happened).is_err() {
                    return;
                }
                // It fails when it has rung 2^64 - 2 times without being silenced.
                let _ = rustix::io::write(&*rung, &1_u64.to_ne_bytes());
            }
        })?;
        Ok(Self { events, bell })
    }

    /// What has come, without waiting.
    pub(super) fn next(&self) -> Option<Happened> {
        // Before the channel is looked into, so that what comes later rings again; it fails when nothing has rung.
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        self.events.try_recv().ok()
    }

    /// Whether there is nobody at the other end any more.
    pub(super) fn has_hung_up() -> bool {
        let stdin = io::stdin();
        let mut descriptors = [PollFd::new(&stdin, PollFlags::empty())];
        let polled = poll(&mut descriptors, Some(&Timespec::default()));
        polled.is_ok() && descriptors[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

impl AsFd for Keyboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
