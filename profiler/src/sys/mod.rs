//! (in work)

pub mod mmap;
