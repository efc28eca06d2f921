//! How often the target's threads come to a processor: each time, the events of page faults come and go with them.

use std::{collections::HashMap, fs};

use crate::target::process::Process;

/// Threads that are asked at most. Of more, the others are taken to be like these.
const MOST: usize = 256;

/// What each thread had counted at the last look.
#[derive(Debug, Default)]
pub(super) struct Switches {
    last: HashMap<u32, u64>,
    begun: bool,
}

impl Switches {
    /// How often they came since the last look; 0 at the first, and where the kernel does not say. Threads that have come and gone
    /// meanwhile are not in it.
    pub(super) fn since_last(&mut self, process: &Process) -> u64 {
        let Ok(tasks) = fs::read_dir(process.path("task")) else { return 0 };
        let threads: Vec<u32> =
            tasks.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        let counted = threads.iter().take(MOST).filter_map(|thread| {
            // Time on a processor, time of waiting for one, and how often it came (the kernel's
            // Documentation/scheduler/sched-stats.rst).
            let text = fs::read_to_string(process.path(format!("task/{thread}/schedstat"))).ok()?;
            Some((*thread, text.split_ascii_whitespace().nth(2)?.parse::<u64>().ok()?))
        });
        self.advance(counted.collect(), threads.len())
    }

    fn advance(&mut self, now: HashMap<u32, u64>, threads: usize) -> u64 {
        let came = now.iter().map(|(thread, count)| {
            let before = self.last.get(thread).copied();
            // One that is new has come as often as it says.
            count.saturating_sub(before.unwrap_or(0))
        });
        let came = came.fold(0_u64, u64::saturating_add);
        let asked = now.len().max(1) as u64;
        self.last = now;
        if std::mem::replace(&mut self.begun, true) { came.saturating_mul(threads as u64) / asked } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_come_and_go() {
        let mut switches = Switches::default();
        assert_eq!(switches.advance(HashMap::from([(1, 1000), (2, 50)]), 2), 0);
        assert_eq!(switches.advance(HashMap::from([(1, 1010), (2, 50)]), 2), 10);
        assert_eq!(switches.advance(HashMap::from([(1, 1011), (3, 7)]), 2), 8);
        assert_eq!(switches.advance(HashMap::from([(1, 1021), (3, 7)]), 6), 30, "others are like these");
        assert_eq!(switches.advance(HashMap::new(), 0), 0);
    }

    #[test]
    fn of_our_own() {
        let process = Process::open(std::process::id());
        let mut switches = Switches::default();
        let Ok(process) = process else { return };
        switches.since_last(&process);
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(switches.since_last(&process) >= 20);
    }
}
