//! Lets whoever waits for other descriptors too wait for a channel's events: an eventfd(2) beside the channel.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{SendError, Sender},
    },
};

use rustix::event::{EventfdFlags, eventfd};

use super::Event;

/// Readable from the moment when something was sent until it is silenced.
#[derive(Clone, Debug)]
pub(super) struct Bell(Arc<OwnedFd>);

/// Sends, and rings. It rings when it is dropped too, for that may close the channel.
#[derive(Clone, Debug)]
pub(super) struct EventSender {
    // Dropped before the bell is rung for the last time.
    events: Option<Sender<Event>>,
    bell: Bell,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    pub(super) fn rung_by(&self, events: Sender<Event>) -> EventSender {
        EventSender { events: Some(events), bell: self.clone() }
    }

    /// To be called before the channel is looked into, so that what comes later rings again.
    pub(super) fn silence(&self) {
        // It fails when nobody has rung.
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }

    fn ring(&self) {
        // It fails when the bell has rung 2^64 - 2 times without being silenced.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl EventSender {
    pub(super) fn send(&self, event: Event) -> Result<(), SendError<Event>> {
        let sent = match &self.events {
            Some(events) => events.send(event),
            None => Err(SendError(event)),
        };
        self.bell.ring();
        sent
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.events = None;
        self.bell.ring();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::mpsc::{self, TryRecvError};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn rings(bell: &Bell) -> bool {
        poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn it_rings_for_each_event_and_for_the_end() {
        let (sender, events) = mpsc::channel();
        let bell = Bell::new().unwrap();
        let sender = bell.rung_by(sender);
        assert!(!rings(&bell));
        sender.send(Event::Exited(1)).unwrap();
        sender.clone().send(Event::Exited(2)).unwrap();
        assert!(rings(&bell));
        bell.silence();
        assert!(!rings(&bell) && events.try_recv().is_ok() && events.try_recv().is_ok());
        drop(sender);
        assert!(rings(&bell) && matches!(events.try_recv(), Err(TryRecvError::Disconnected)));
    }
}
