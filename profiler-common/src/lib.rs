//! What the BPF side writes and the user side reads, in one place.
//!
//! `profiler` links this crate; `profiler-ebpf` includes the same files as a module, so that both compile the same
//! layouts and the BPF object does not depend on where this tree lies. Nothing here may know aya, a file or a process.
//!
//! Every shared struct is `repr(C)`, has no hidden padding and a size that is asserted below its definition.
#![no_std]

pub mod blocks;
pub mod control;
pub mod counters;
pub mod growth;
pub mod limits;
pub mod mappings;
pub mod pending;
pub mod pools;
#[allow(clippy::cast_possible_truncation, reason = "what is cut off is not part of a hash or of a time")]
pub mod python;
pub mod records;
pub mod sampling;
pub mod tables;
pub mod told;
