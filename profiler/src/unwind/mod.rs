//! From `.eh_frame` to the tables that the walker searches, and the walker's twin in user space.
//!
//! | file | what it does |
//! |---|---|
//! | [`rows`] | one ELF file becomes a sorted list of rows: from this address on, this rule |
//! | `goroutine` | what Go's call frame information leaves out |
//! | `elf`, `cfi`, `rule` | its steps: find the sections, run the call frame instructions, name the rule |
//! | [`table`] | the rows of all modules of a process become rules, pages and chunks, ready for the BPF maps |
//! | [`exact`] | the rule at one instruction |
//! | [`words`] | rules in words, for people |
//! | [`walk`] | the walk over those tables, step by step as the BPF side does it |
//!
//! Nothing here opens a file or looks at a process: bytes come in, tables go out. The bytes are a target's and may be
//! damaged on purpose; docs/unwinding.md says what is done about it, and how large the tables are.

mod cfi;
mod elf;
mod error;
mod goroutine;
mod rule;

pub mod exact;
pub mod rows;
pub mod table;
pub mod walk;
pub mod words;

pub use error::{TableFull, UnwindError};
pub use rule::Unsupported;
