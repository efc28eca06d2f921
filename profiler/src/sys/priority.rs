//! Gives way to other processes, the target above all, where heapscope has much to compute and nobody is slowed down by its
//! taking longer: before its probes are in the target, and after they are out.

use rustix::{
    process::{getpriority_process, setpriority_process},
    thread::{CapabilitySet, capabilities},
};

/// By how much the nice value is raised: where all processors are busy, this thread then has a tenth of what an ordinary one
/// has (`sched_prio_to_weight`, kernel/sched/core.c).
const NICER: i32 = 10;
/// The highest nice value there is.
const NICEST: i32 = 19;

/// As long as this lives, the thread that made it, and threads that it starts, give way. A nice value is the thread's own
/// (setpriority(2), C library/kernel differences).
#[derive(Debug)]
pub struct GivingWay {
    /// The nice value before, if it was changed.
    before: Option<i32>,
}

impl GivingWay {
    /// Begins; nothing changes where the kernel would not let us take it back.
    #[must_use]
    pub fn begin() -> Self {
        let may_take_back =
            capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_NICE));
        let before = getpriority_process(None).ok().filter(|_| may_take_back);
        let changed =
            before.filter(|nice| setpriority_process(None, nice.saturating_add(NICER).min(NICEST)).is_ok());
        Self { before: changed }
    }
}

impl Drop for GivingWay {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let _ = setpriority_process(None, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_back() {
        let nice = || getpriority_process(None).unwrap_or(i32::MIN);
        let before = nice();
        let giving_way = GivingWay::begin();
        assert!((before..=NICEST).contains(&nice()));
        drop(giving_way);
        assert_eq!(nice(), before);
    }
}
