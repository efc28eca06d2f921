//! heapscope: attach to a running process and see, by stack, the memory that it allocated and never freed.
//!
//! The layers, top down; a module imports only from those below it (`cargo xtask tidy` holds the code against this):
//!
//! | layer | what it is |
//! |---|---|
//! | [`cli`] | flags become plain options; clap lives here only |
//! | [`session`] | the only place where the columns meet: attach, run, the loop, the end |
//! | [`probe`], [`ledger`], [`report`] | events in; the account of live blocks; files out |
//! | [`tui`] | the live view: what is shown, and what keys do |
//! | [`unwind`], [`symbolize`] | `.eh_frame` to compact rows; addresses to names |
//! | [`target`] | the process: maps, modules, allocators, where a probe can sit |
//! | [`sys`] | every user-space `unsafe` |
//!
//! `ledger` never sees a process, a file or a clock. `report` never sees BPF. Only `probe::ebpf` knows aya.

pub mod cli;
pub mod ledger;
pub mod probe;
pub mod report;
pub mod session;
pub mod symbolize;
pub mod sys;
pub mod target;
pub mod tui;
pub mod unwind;
