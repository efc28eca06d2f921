//! What people and programs read: one file per output format, each writing to a `Write`.
//!
//! Nothing here knows BPF, a process or a clock: a [`profile::Profile`] goes in, bytes come out. A broken pipe comes back
//! as the error that it is; the caller decides that it is none.

pub mod annotate;
pub mod budget;
pub mod csv;
pub mod dhat;
pub mod diff;
mod facts;
pub mod firefox;
pub mod flamegraph;
pub mod folded;
pub mod format;
pub mod grouped;
pub mod growth;
pub mod heaptrack;
pub mod history;
pub mod html;
pub mod json;
mod json_budget;
mod json_history;
mod json_mapped;
mod json_pools;
pub mod mapped;
pub mod metric;
pub mod options;
pub mod pools;
pub mod pprof;
pub mod profile;
pub mod quality;
pub mod recording;
mod shown;
pub mod speedscope;
mod stacks;
mod svg_notes;
pub mod table;
pub mod tracemalloc;
pub mod units;
pub mod verdict;
pub mod view;
mod windows;
pub mod wrap;

#[cfg(test)]
mod tests;
