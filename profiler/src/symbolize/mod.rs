//! Names for code addresses: functions with their inlined callees, file and line, demangled.
//!
//! [`symbolizer`] is the entrance; [`label`] and [`fold`] say how named frames are shown to people.

pub mod demangle;
pub mod elf_names;
pub mod fold;
pub mod frame;
pub mod image_names;
pub mod label;
pub mod perf_map;
pub mod role;
mod soundness;
pub mod symbolizer;
