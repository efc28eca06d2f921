//! What a profile says of its cost, and of what the budget let it see: how much was recorded when, and windows.

use std::{cmp::Ordering, time::Duration};

use profiler_common::records::Held;

use super::units::{bytes, count, counted, span};

/// Changes that a note tells.
const SHOWN: usize = 4;

/// How much was recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// Every block.
    Every,
    /// Samples: mean bytes from one to the next.
    Sampled(u64),
    /// The same, in windows alone.
    Windows(u64),
    /// What the program tells by USDT probes of its own.
    Told,
}

impl Recorded {
    /// The name that reports use.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Every => "exact",
            Self::Sampled(_) => "sampled",
            Self::Windows(_) => "windows",
            Self::Told => "usdt",
        }
    }

    /// Mean bytes from one sample to the next; `None` where every block is recorded.
    #[must_use]
    pub const fn interval(&self) -> Option<u64> {
        match self {
            Self::Every | Self::Told => None,
            Self::Sampled(interval) | Self::Windows(interval) => Some(*interval),
        }
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Every => "every block is recorded".to_owned(),
            Self::Told => "what the program tells itself is recorded".to_owned(),
            Self::Sampled(interval) => format!("one block in {} is recorded on average", bytes(*interval)),
            Self::Windows(interval) => {
                format!("one block in {} is recorded on average, in windows alone", bytes(*interval))
            }
        }
    }
}

/// The budget, and what it led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BudgetReport {
    /// Percent of the target's CPU time; `None` for no budget.
    pub percent: Option<f64>,
    /// Percent of one processor that may be taken all the same, where that is allowed.
    pub at_least_percent: Option<f64>,
    /// What the probes took of one processor, in percent, where it could be measured.
    pub processor_percent: Option<f64>,
    /// CPU time that the probes were given in advance, where they were.
    pub advance: Option<Duration>,
    /// What was recorded since when, first the beginning.
    pub steps: Vec<(Duration, Recorded)>,
}

impl BudgetReport {
    /// The largest interval that blocks were drawn at; 0 where every block was recorded.
    #[must_use]
    pub fn largest_interval(&self) -> u64 {
        self.steps.iter().filter_map(|(_, recorded)| recorded.interval()).max().unwrap_or(0)
    }

    /// After how long the first window could come, if there were to be any.
    #[must_use]
    pub fn windows_began(&self) -> Option<Duration> {
        let is_of_windows = |(_, recorded): &&(Duration, Recorded)| matches!(recorded, Recorded::Windows(_));
        self.steps.iter().find(is_of_windows).map(|(after, _)| *after)
    }

    /// How what was recorded has changed.
    pub(super) fn notes(&self, command: &str) -> Vec<String> {
        let changes: Vec<_> = self
            .steps
            .iter()
            .skip(1)
            .map(|(after, recorded)| format!("after {} {}", span(*after), recorded.words()))
            .collect();
        let (Some((_, first)), Some(percent)) = (self.steps.first(), self.percent) else { return Vec::new() };
        // What is gone with the program can be had by starting it again.
        let all = if command == "run" {
            " `heapscope run --exact` records every block of the whole run, and is the slower for it."
        } else {
            ""
        };
        if changes.is_empty() {
            return match first {
                Recorded::Every | Recorded::Told => Vec::new(),
                chosen => vec![format!("To keep the budget of {percent}%, {}.{all}", chosen.words())],
            };
        }
        let shown = changes.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let more = changes.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(", and {more} changes more") } else { String::new() };
        vec![format!("To keep the budget of {percent}%: at first {}, {shown}{more}.{all}", first.words())]
    }
}

/// Windows: what was seen while the probes were in the target for slices of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Windowed {
    /// How many windows there were.
    pub count: u64,
    /// How long allocations were seen, windows and the time without windows together.
    pub observed: Duration,
    /// How many times slower the process was in windows than between them, as far as its CPU time tells.
    pub slowdown: f64,
    /// All blocks that were recorded and not seen freed, whether they are known to live or not.
    pub kept: Kept,
    /// Blocks of an earlier window whose address was given out again, so that they are known to be gone.
    pub gone: u64,
    /// The process's resident memory in bytes, after so much time, in order: whether it grows tells a leak from memory that
    /// was freed unseen.
    pub resident: Vec<(Duration, u64)>,
}

/// Blocks that were recorded and not seen freed since. They need not live: between windows frees are not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Kept {
    /// Them.
    pub held: Held,
    /// Bytes of them a second of the time that was observed.
    pub rate: f64,
    /// Standard error of that; `None` where there are not two windows to compare.
    pub rate_error: Option<f64>,
}

/// A slowdown in windows from which on rates are lower bounds.
const SLOW: f64 = 1.3;

impl Windowed {
    /// Whether rates are lower bounds.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.slowdown > SLOW
    }

    /// What became of the process's resident memory, which is known while live blocks are not.
    #[must_use]
    pub fn resident_words(&self) -> Option<String> {
        let (first, last) = (self.resident.first()?.1, self.resident.last()?.1);
        let (by, rate) = (bytes(last.abs_diff(first)), self.resident_rate()?);
        let change = match last.cmp(&first) {
            Ordering::Less => format!("shrank by {by} ({rate})"),
            Ordering::Equal => "did not change".to_owned(),
            Ordering::Greater => format!("grew by {by} ({rate})"),
        };
        Some(format!("resident memory {change}, to {}", bytes(last)))
    }

    /// The same as a rate, as in `+3.0 MiB/s`.
    #[must_use]
    pub fn resident_rate(&self) -> Option<String> {
        let ((first_after, first), (last_after, last)) = (self.resident.first()?, self.resident.last()?);
        let seconds = last_after.saturating_sub(*first_after).as_secs_f64();
        let sign = if last < first { '-' } else { '+' };
        (seconds > 0.0).then(|| format!("{sign}{}/s", bytes(whole(last.abs_diff(*first) as f64 / seconds))))
    }

    /// Sentences for everyone who reads the numbers, of an observation that lasted so long, with windows after so much time.
    #[must_use]
    pub fn warnings(&self, lasted: Duration, began: Duration) -> Vec<String> {
        let share = 100.0 * self.observed.as_secs_f64() / lasted.as_secs_f64().max(1e-9);
        let before =
            if began > Duration::ZERO { format!("the first {} and ", span(began)) } else { String::new() };
        let mut warnings = vec![format!(
            "Calls were seen for {} in {before}{} only ({share:.1}% of the time), because probes that stay would have \
             cost more than the budget. Allocated bytes are estimates for the whole time. Frees between windows are not seen: \
             what is `kept` was allocated in the first half of a window and not seen freed since, and may be gone; {} found gone because \
             their address came again. Live memory is not known: what is kept is a leak only if the process's memory grows as \
             fast.",
            span(self.observed),
            counted(self.count, "window", "windows"),
            match self.gone {
                1 => "1 block was".to_owned(),
                gone => format!("{} blocks were", count(gone)),
            }
        )];
        if self.count == 0 && began > Duration::ZERO {
            warnings.push(format!(
                "There was no window yet, so that what the process allocated after the first {} is not known, and in no number.",
                span(began)
            ));
        } else if self.count == 0 {
            warnings.push(
                "There was no window yet, so that nothing is known of what the process allocates: the budget pays for the first \
                 look first. Watch longer, or with a larger --budget."
                    .to_owned(),
            );
        }
        if self.is_slow() {
            warnings.push(format!(
                "In windows the process ran at least {:.1} times slower than between them. Rates are corrected for that, by its \
                 CPU time, and where calls are so dense the correction falls short: take what was allocated, and what was kept \
                 a second, for lower bounds.",
                self.slowdown
            ));
        }
        warnings
    }
}

/// A rate, as it is shown.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
pub(super) fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}
