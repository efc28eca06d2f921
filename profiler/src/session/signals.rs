//! Ctrl-C and SIGTERM end the watching, not the program: the reports are still written. A second one ends it at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag,
};

/// Set when the user wants to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Begins to catch the signals.
    pub(super) fn catch() -> std::io::Result<Self> {
        let stop = Self::default();
        // A signal between the two steps would find the flag unset, and nobody to set it: it would be lost. It waits until
        // both are done.
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds the flag unset and only sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop.0))?;
            flag::register(signal, Arc::clone(&stop.0))?;
        }
        before.thread_set_mask()?;
        Ok(stop)
    }

    /// The same where no signal may end the program at once: the terminal is to be restored first.
    pub(super) fn catch_every() -> std::io::Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            flag::register(signal, Arc::clone(&stop.0))?;
        }
        Ok(stop)
    }

    /// Sets it without a signal.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether one has come.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
