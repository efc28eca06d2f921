//! Names for code addresses: functions with their inlined callees, file and line, demangled.

pub mod frame;
