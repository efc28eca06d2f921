//! What people and programs read: one file per output format, each writing to a `Write`.
//!
//! Nothing here knows BPF, a process or a clock: a [`profile::Profile`] goes in, bytes come out. A broken pipe comes back
//! as the error that it is; the caller decides that it is none.

pub mod budget;
mod facts;
pub mod flamegraph;
pub mod folded;
pub mod format;
pub mod history;
pub mod json;
mod json_budget;
mod json_history;
mod json_mapped;
pub mod mapped;
pub mod options;
pub mod profile;
pub mod quality;
mod stacks;
mod svg_notes;
pub mod table;
pub mod units;
mod windows;

#[cfg(test)]
mod tests;
