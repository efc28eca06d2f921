//! CPU time of a process.

use std::time::Duration;

use nix::{time::ClockId, unistd::Pid};
use rustix::param::clock_ticks_per_second;

use super::Process;
use crate::target::error::TargetError;

impl Process {
    /// CPU time that all its threads have used, the ended ones too.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn cpu_time(&self) -> Result<Duration, TargetError> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.pid.cast_signed()));
        let time =
            clock.and_then(ClockId::now).map_err(|error| self.explain(self.path("stat"), error.into()))?;
        // The clock of a process that nobody has reaped yet stands still and answers.
        if self.is_alive() { Ok(time.into()) } else { Err(TargetError::Exited { pid: self.pid }) }
    }

    /// The part of that that it spent in its own code and not in the kernel. The kernel looks at each of its ticks where the
    /// process is: of a short stretch of time, this is a sample.
    ///
    /// # Errors
    /// Where it has ended, or its stat line cannot be read.
    pub fn user_time(&self) -> Result<Duration, TargetError> {
        let (ticks, per_second) = (self.stat()?.user_ticks, clock_ticks_per_second().max(1));
        let nanoseconds = (ticks % per_second) * 1_000_000_000 / per_second;
        Ok(Duration::from_secs(ticks / per_second) + Duration::from_nanos(nanoseconds))
    }
}

/// How far apart the kernel's ticks are.
#[must_use]
pub fn tick() -> Duration {
    // The coarse clocks are set at each of them.
    let resolution = ClockId::CLOCK_MONOTONIC_COARSE.res();
    resolution.map_or(Duration::from_millis(10), Into::into)
}
