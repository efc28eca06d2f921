//! What people and programs read: one file per output format, each writing to a `Write`.
//!
//! Nothing here knows BPF, a process or a clock: a [`profile::Profile`] goes in, bytes come out.

pub mod profile;
