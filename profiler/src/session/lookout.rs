//! When to look at the target's mappings: when the kernel tells that the target has mapped code, when a walk met an
//! address that is in no known mapping, and now and then in any case, because unmapping is told by nobody.

use std::{
    io,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use super::listener::Listener;
use crate::sys::perf::{Birth, Mapped};

/// How often the mappings are looked at, even if nothing hints at a change.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Decides when to look.
pub(super) struct Lookout {
    listener: Result<Listener, io::Error>,
    hinted: bool,
    looked: Instant,
    unmapped: u64,
    lost: u64,
    births: Vec<Birth>,
    allowance: Allowance,
}

impl Lookout {
    /// Begins to listen for the process with this pid, with `births` to forks too. Where the kernel refuses, mappings are
    /// looked at every second.
    pub(super) fn new(pid: u32, births: bool) -> Self {
        let now = Instant::now();
        Self {
            listener: Listener::new(pid, births),
            births: Vec::new(),
            hinted: false,
            looked: now,
            unmapped: 0,
            lost: 0,
            allowance: Allowance::new(now),
        }
    }

    /// Becomes readable when the kernel tells something.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.listener.as_ref().ok().map(AsFd::as_fd)
    }

    /// What code the target has mapped since the last call, as far as the kernel tells it.
    pub(super) fn listen(&mut self) -> Vec<Mapped> {
        let Ok(listener) = &self.listener else { return Vec::new() };
        let notices = listener.take();
        self.hinted |= notices.any();
        self.lost = self.lost.saturating_add(notices.lost);
        self.births.extend(notices.births);
        notices.mapped
    }

    /// The forks and ends of processes since the last call, in order; `Err` where the kernel does not tell them.
    pub(super) fn births(&mut self) -> Result<Vec<Birth>, &io::Error> {
        let mut births = std::mem::take(&mut self.births);
        births.sort_unstable();
        self.listener.as_ref().map(|_| births)
    }

    /// Takes note of how many walks have met an unknown address.
    pub(super) fn walks_unmapped(&mut self, so_far: u64) {
        self.hinted |= so_far > self.unmapped;
        self.unmapped = so_far;
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(self.looked) >= LOOK_EVERY
            || self.hinted && self.allowance.has_some(now)
    }

    /// Notes a look that began then and has ended now.
    pub(super) fn looked(&mut self, began: Instant, now: Instant) {
        self.hinted = false;
        self.looked = began;
        self.allowance.spend(now.saturating_duration_since(began));
    }

    /// What the reader must know of it.
    pub(super) fn warning(&self) -> Option<String> {
        match &self.listener {
            Err(refused) => Some(format!(
                "The kernel does not tell when the process maps code ({refused}): libraries that it loads are noticed up \
                 to a second late, and stacks through them are incomplete until then."
            )),
            Ok(_) if self.lost > 0 => Some(format!(
                "{} notices of mapped code (of any process) were lost: libraries may have been noticed late, and stacks \
                 through them be incomplete.",
                self.lost
            )),
            Ok(_) => None,
        }
    }
}

/// Bounds what looks cost where code is mapped without end, as by a JIT: a tenth of one CPU. What is not used is saved
/// for a burst, as of a program that loads its plugins.
#[derive(Debug)]
struct Allowance {
    /// Seconds; negative after a look that took longer than what was saved.
    saved: f64,
    counted: Instant,
}

impl Allowance {
    const SHARE: f64 = 0.1;
    const MOST: f64 = 1.0;

    fn new(now: Instant) -> Self {
        Self { saved: Self::MOST, counted: now }
    }

    fn has_some(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.counted).as_secs_f64() * Self::SHARE;
        self.saved = (self.saved + earned).min(Self::MOST);
        self.counted = now;
        self.saved > 0.0
    }

    fn spend(&mut self, time: Duration) {
        self.saved -= time.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deaf(now: Instant) -> Lookout {
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        Lookout {
            listener: Err(refused),
            births: Vec::new(),
            hinted: false,
            looked: now,
            unmapped: 0,
            lost: 0,
            allowance: Allowance::new(now),
        }
    }

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn without_a_hint_it_looks_every_second() {
        let start = Instant::now();
        let mut lookout = deaf(start);
        assert!(!lookout.is_due(start + 999 * MILLISECOND));
        assert!(lookout.is_due(start + LOOK_EVERY));
        lookout.looked(start + LOOK_EVERY, start + LOOK_EVERY);
        assert!(!lookout.is_due(start + LOOK_EVERY + 999 * MILLISECOND));
    }

    #[test]
    fn a_hint_is_followed_once() {
        let start = Instant::now();
        let mut lookout = deaf(start);
        lookout.walks_unmapped(3);
        assert!(lookout.is_due(start));
        lookout.looked(start, start + MILLISECOND);
        lookout.walks_unmapped(3);
        assert!(!lookout.is_due(start + MILLISECOND));
        lookout.walks_unmapped(4);
        assert!(lookout.is_due(start + MILLISECOND));
    }

    #[test]
    fn endless_hints_get_a_burst_and_then_a_tenth() {
        let mut now = Instant::now();
        let mut lookout = deaf(now);
        let mut looks_in = |milliseconds: u32| {
            let mut looks = 0;
            let end = now + milliseconds * MILLISECOND;
            while now < end {
                lookout.hinted = true;
                if lookout.is_due(now) {
                    lookout.looked(now, now + 2 * MILLISECOND);
                    now += 2 * MILLISECOND;
                    looks += 1;
                } else {
                    now += MILLISECOND / 2;
                }
            }
            looks
        };
        assert!(looks_in(800) > 390);
        looks_in(400);
        let later = looks_in(10_000);
        assert!((400..700).contains(&later), "{later}");
    }
}
