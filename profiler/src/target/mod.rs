//! The process under observation: who it is, what it maps, which allocators it has and where a probe can sit.
//!
//! Everything here is read from outside and may be damaged, huge or changing while it is read.
//!
//! | file | what it knows |
//! |---|---|
//! | [`process`] | who the target is, whether it lives, which program it runs |
//! | [`maps`] | what it has mapped where |
//! | [`memory`], [`pagemap`] | how much memory it has, and which pages those are |
//! | [`module`], [`module_cache`] | the mapped files, held open through the target's own view of the file system |
//! | [`allocator`] | which of them allocate, and by which functions |
//! | [`placement`] | on which instruction of a function a probe costs least and still sees the arguments |
//! | [`usdt`] | the probes that a file has itself, and where their arguments are |
//! | [`python`] | CPython: which version, where its frames are, what a code object says |
//! | [`address`] | one type for each space that an address can lie in |
//! | [`compressed`] | how a section reads that a linker compressed |
//! | [`error`] | what can be wrong with a target, and what to do about it |
//!
//! Nothing here writes to the target, stops it or attaches to it, and nothing here knows BPF.

pub mod address;
pub mod allocator;
pub mod compressed;
mod elf;
pub mod error;
pub mod family;
pub mod maps;
pub mod memory;
pub mod module;
pub mod module_cache;
pub mod pagemap;
pub mod placement;
pub mod process;
pub mod procfs;
pub mod python;
pub mod usdt;
