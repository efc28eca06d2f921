//! How far the numbers can be trusted: the counters of the probes, sorted into what the reader is told.

use profiler_common::counters::Counter;

use crate::{ledger::Account, probe::Counters, report::profile::Quality};

/// Reasons for which an allocation, a free, a stack or a name is missing from the account.
const LOSSES: [Counter; 10] = [
    Counter::LiveMapFull,
    Counter::SiteMapFull,
    Counter::PendingMapFull,
    Counter::AddressClash,
    Counter::UnpairedReturn,
    Counter::RingFull,
    Counter::ScratchBusy,
    Counter::ThreadNameLost,
    Counter::ToldLost,
    Counter::PythonCodeLost,
];

/// Reasons for which a stack ends before the thread's first function.
const INCOMPLETE: [Counter; 5] = [
    Counter::StackNoMapping,
    Counter::StackNoTable,
    Counter::StackUnsupported,
    Counter::StackUnreadable,
    Counter::StackNotAdvancing,
];

/// Everything lost so far.
pub(super) fn lost(counters: &Counters) -> u64 {
    LOSSES.iter().chain([&Counter::TouchedPageLost]).map(|counter| counters.get(*counter)).sum()
}

/// Sorts the counters.
pub(super) fn quality(counters: &Counters, account: &Account) -> Quality {
    let named = |counter: &Counter| (counter.label().to_owned(), counters.get(*counter));
    let mut lost: std::collections::BTreeMap<String, u64> = LOSSES.iter().map(named).collect();
    lost.insert("ledger_discrepancy".into(), account.discrepancy);
    Quality {
        unmatched_frees: counters.get(Counter::UnmatchedFrees),
        failed_allocations: counters.get(Counter::FailedAllocations),
        filtered_allocations: counters.get(Counter::FilteredAllocations),
        other_callers: counters.get(Counter::OtherCallers),
        unsampled_allocations: counters.get(Counter::UnsampledAllocations),
        lost,
        stacks_walked: counters.get(Counter::StacksWalked),
        truncated_stacks: counters.get(Counter::StackTruncated),
        incomplete_stacks: INCOMPLETE.iter().map(named).collect(),
        guessed_frames: counters.get(Counter::GuessedFrames),
        probe_hits: counters.get(Counter::ProbeHits),
        ..Quality::default()
    }
}
