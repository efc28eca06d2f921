//! Names for code addresses: functions with their inlined callees, file and line, demangled.
//!
//! [`symbolizer`] is the entrance; [`label`] and [`fold`] say how named frames are shown to people. docs/symbols.md tells
//! where names come from.

mod budget;
mod debug_files;
pub mod demangle;
mod dwarf;
pub mod elf_names;
pub mod fold;
pub mod frame;
mod image;
pub mod label;
pub mod perf_map;
mod plt;
pub mod role;
pub mod sources;
mod symbol_table;
pub mod symbolizer;
mod target_root;
pub mod wanted;
