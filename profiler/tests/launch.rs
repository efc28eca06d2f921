//! `heapscope run`'s launcher against real programs: it must see them early enough, and be unnoticed otherwise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking, and its name says what it tests"
)]

#[path = "launch/harness.rs"]
mod harness;
#[path = "launch/life.rs"]
mod life;
#[path = "launch/loading.rs"]
mod loading;
#[path = "launch/signals.rs"]
mod signals;
#[path = "launch/unnoticed.rs"]
mod unnoticed;
