//! (in work)

pub mod launch;
