//! How far the numbers can be trusted, in sentences: the same ones in the terminal, the folded file and the picture.

use super::{
    profile::{Profile, Quality},
    units::{self, blocks, bytes, count, counted, percent, span},
};
use crate::symbolize::label::clean;

/// How much a sentence matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weight {
    /// The numbers are not what they seem.
    Warning,
    /// Good to know.
    Note,
}

/// One sentence about the profile's quality.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// How much it matters.
    pub weight: Weight,
    /// The sentence, one line, ending with a full stop.
    pub text: String,
}

/// What a reader must know: warnings first. What did not happen is not mentioned.
#[must_use]
pub fn remarks(profile: &Profile) -> Vec<Remark> {
    let quality = &profile.quality;
    let mut warnings: Vec<String> = quality.warnings.iter().map(|text| sentence(text)).collect();
    warnings
        .extend(quality.lost.iter().filter(|(_, lost)| **lost > 0).map(|(reason, lost)| loss(reason, *lost)));
    warnings.extend(stack_warnings(quality));
    let notes = notes(profile);
    let of = |weight| move |text| Remark { weight, text };
    warnings.into_iter().map(of(Weight::Warning)).chain(notes.into_iter().map(of(Weight::Note))).collect()
}

/// Why a profile without live memory has none.
#[must_use]
pub fn nothing_live(profile: &Profile) -> String {
    let recorded = profile.totals.alloc_objects;
    if recorded == 0 {
        return String::from("Nothing is live: no allocations were recorded.");
    }
    match profile.mode.min_age {
        Some(age) => format!("Nothing live is at least {} old; {} recorded.", span(age), blocks(recorded)),
        None => format!("Nothing is live: all {} that were recorded were freed again.", blocks(recorded)),
    }
}

/// A loss by the label of its counter (profiler-common, `counters.rs`).
fn loss(reason: &str, lost: u64) -> String {
    let allocations = counted(lost, "allocation", "allocations");
    match reason {
        "live_map_full" => format!("{allocations} not recorded: the table of live blocks was full."),
        "site_map_full" => format!("{allocations} without a stack: the table of sites was full."),
        "pending_map_full" => format!("{allocations} not recorded: too many calls were under way at once."),
        "address_clash" => format!(
            "{} handed out again before being seen freed: the older record was closed.",
            counted(lost, "block was", "blocks were")
        ),
        "unpaired_return" => {
            format!("{allocations} not recorded: the call began before the probes were there.")
        }
        "stack_record_lost" => {
            format!(
                "{} delayed or lost: the ring buffer was full.",
                counted(lost, "stack record", "stack records")
            )
        }
        "scratch_busy" => format!("{allocations} without a stack: every scratch slot was in use."),
        "thread_name_lost" => format!("{allocations} without the thread's name: there are too many names."),
        "told_unreadable" => format!(
            "{allocations} not recorded: what the program told of them could not be read, or makes no sense."
        ),
        "fault_site_map_full" => format!(
            "{} without a stack: the table of sites was full.",
            counted(lost, "page fault or call", "page faults or calls")
        ),
        "fault_scratch_busy" => format!(
            "{} without a stack: every scratch slot was in use.",
            counted(lost, "page fault or call", "page faults or calls")
        ),
        "brk_record_lost" => format!(
            "{} of brk not recorded: only one end of them was seen, or there was no room.",
            counted(lost, "call was", "calls were")
        ),
        "touched_page_lost" => format!(
            "{} touched without room to note it: who touched them is not known. --max-memory gives more.",
            counted(lost, "page was", "pages were")
        ),
        "python_code_lost" => format!(
            "{} not fit the ring buffer: their names were read later, if they were still there.",
            counted(lost, "Python function did", "Python functions did")
        ),
        "mapping_record_lost" => format!(
            "{} of mmap, munmap or mremap not recorded: the ring buffer was full. Mapped memory is too high or too low.",
            counted(lost, "call was", "calls were")
        ),
        "mapping_unpaired" => format!(
            "{} of mmap, munmap or mremap not recorded: only one end of them was seen.",
            counted(lost, "call was", "calls were")
        ),
        "mapping_declined" => {
            format!(
                "{} not recorded: there was no room.",
                counted(lost, "piece of mapped memory was", "pieces of mapped memory were")
            )
        }
        "mapping_unmap_unseen" => format!(
            "{} of mapped memory given out again before being seen unmapped: the older record was closed.",
            counted(lost, "byte was", "bytes were")
        ),
        "mapping_corrected" => format!(
            "{} of mapped memory had been unmapped or moved by a call that failed, as /proc/PID/maps tells: corrected.",
            counted(lost, "byte", "bytes")
        ),
        "mapping_in_doubt" => format!(
            "{} of mapped memory may have been unmapped by a call that failed: the process ended before one could look.",
            counted(lost, "byte", "bytes")
        ),
        other => format!("{} lost: {}.", count(lost), clean(other)),
    }
}

fn stack_warnings(quality: &Quality) -> Vec<String> {
    let mut warnings = Vec::new();
    let walked = quality.stacks_walked;
    let incomplete = quality.incomplete_stacks.values().fold(0u64, |sum, n| sum.saturating_add(*n));
    if incomplete > 0 {
        let reasons: Vec<_> = quality
            .incomplete_stacks
            .iter()
            .filter(|(_, stacks)| **stacks > 0)
            .map(|(reason, stacks)| format!("{} {}", clean(reason).replace('_', " "), count(*stacks)))
            .collect();
        warnings.push(format!(
            "{} of {} ({}) ended before the thread's first function: {}.",
            count(incomplete),
            counted(walked, "stack", "stacks"),
            percent(incomplete, walked),
            reasons.join(", ")
        ));
    }
    if quality.truncated_stacks > 0 {
        warnings.push(format!(
            "{} of {} ({}) cut at the frame limit: their root end is missing.",
            count(quality.truncated_stacks),
            counted(walked, "stack", "stacks"),
            percent(quality.truncated_stacks, walked)
        ));
    }
    if quality.guessed_frames > 0 {
        warnings.push(format!(
            "{} found by following frame pointers through code without unwind information.",
            counted(quality.guessed_frames, "frame was", "frames were")
        ));
    }
    warnings
}

fn notes(profile: &Profile) -> Vec<String> {
    let quality = &profile.quality;
    let mut notes = profile.mode.budget.notes(&profile.mode.command);
    if let Some(only) = &profile.mode.only_caller {
        let skipped = if only.by_calls {
            String::new()
        } else {
            let others = counted(quality.other_callers, "allocation", "allocations");
            format!("; {others} of others left at their entry")
        };
        notes.push(format!(
            "Only allocations by `{}` are recorded: {}{skipped}.",
            clean(&only.asked),
            clean(&only.how)
        ));
    }
    if profile.mode.is_told() {
        notes.push(
            "All numbers are estimates by the program itself: it samples its allocations, tells of those by its USDT probes \
             otel_memory, and says how many bytes each stands for. How far they may be off is not known, since it does not tell \
             how it samples."
                .to_owned(),
        );
    }
    if let Some(interval) = profile.mode.sample_interval {
        notes.push(format!(
            "All numbers are estimates from samples, one in {} on average; {} not sampled. ± is the standard error: the true \
             number is within two of them in 95 of 100 cases.",
            bytes(interval),
            counted(quality.unsampled_allocations, "allocation was", "allocations were")
        ));
    } else if quality.unmatched_frees > 0 {
        let since = if profile.mode.command == "run" { "start" } else { "attach" };
        notes.push(format!(
            "{} of blocks that were not recorded (older than the {since}, or filtered out).",
            counted(quality.unmatched_frees, "free", "frees")
        ));
    }
    if quality.failed_allocations > 0 {
        let calls = counted(quality.failed_allocations, "allocator call", "allocator calls");
        notes.push(format!("{calls} returned no memory."));
    }
    if quality.filtered_allocations > 0 {
        let filtered = counted(quality.filtered_allocations, "allocation", "allocations");
        notes.push(format!("{filtered} left out by the size filter."));
    }
    if let Some(overhead) = quality.overhead_percent.filter(|overhead| overhead.is_finite()) {
        let mut hits = counted(quality.probe_hits, "probe hit", "probe hits");
        if let Some(growth) = &profile.growth {
            let sampling = &growth.sampling;
            hits = format!(
                "{}, {} and {hits}",
                counted(sampling.faults, "page fault", "page faults"),
                counted(sampling.switches, "context switch", "context switches")
            );
        }
        let budget = &profile.mode.budget;
        let of_processor = budget.processor_percent.filter(|percent| percent.is_finite());
        let budget = match (budget.percent, budget.at_least_percent, of_processor) {
            (Some(percent), Some(at_least), Some(taken)) => format!(
                ", which is {taken:.1}% of one processor; the budget is {percent}%, or {at_least}% of one processor if that is \
                 more"
            ),
            (Some(percent), ..) => match budget.advance {
                Some(advance) => format!("; the budget is {percent}%, and {} in advance", span(advance)),
                None => format!("; the budget is {percent}%"),
            },
            (None, ..) => String::new(),
        };
        let about = match units::overhead(overhead) {
            share if share.ends_with('%') => format!("about {share}"),
            nearly_all => nearly_all,
        };
        notes.push(format!("{hits} took {about} of the target's CPU time{budget}."));
    }
    notes
}

fn sentence(text: &str) -> String {
    let text = clean(text);
    if text.ends_with(['.', '!', '?']) { text } else { format!("{text}.") }
}
