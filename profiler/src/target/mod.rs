//! The process under observation: who it is, what it maps, which allocators it has and where a probe can sit.
//!
//! Everything here is read from outside and may be damaged, huge or changing while it is read.

pub mod address;
pub mod module;
