//! The system calls that no crate of ours wraps. Every user-space `unsafe` lives below this module.

pub mod bpf;
pub mod calibration;
pub mod clock;
pub mod counted_uprobe;
pub mod faults;
pub mod launch;
pub mod mmap;
pub mod perf;
pub mod priority;
