//! The unwind tables as the BPF walker searches them.
//!
//! A *row* says which rule holds from its address to the next row's. A row is four bytes: the low 16 bits are the
//! address inside a 16 KiB page of text ([`crate::limits::PAGE_SHIFT`]), the high 16 bits the index of its rule. Pages
//! say where their rows lie; mappings say where their pages lie.

use crate::limits::{MAX_MAPPINGS, ROWS_PER_CHUNK};

/// How to find the canonical frame address (CFA): the value of rsp just before the call that made the frame.
pub mod cfa {
    /// No unwind information here: take one frame-pointer step and mark it as a guess.
    pub const NONE: u8 = 0;
    /// `CFA = rsp + offset`
    pub const RSP: u8 = 1;
    /// `CFA = rbp + offset`
    pub const RBP: u8 = 2;
    /// `CFA = *(rbp + offset) + addend`: a function that realigned its stack.
    pub const RBP_DEREF: u8 = 3;
    /// `CFA = *(rsp + offset) + addend`: assembler that did so and saved the old rsp on the stack.
    pub const RSP_DEREF: u8 = 4;
    /// The frame that the kernel pushed for a signal handler (`struct rt_sigframe`, arch/x86/include/asm/sigframe.h):
    /// rsp, rip and rbp are read from the saved context at rsp.
    pub const SIGNAL: u8 = 5;
    /// The return address is undefined: the thread's first function.
    pub const END: u8 = 6;
    /// A rule that the walker has no words for (counted, the walk ends as incomplete). The offset says why.
    pub const UNSUPPORTED: u8 = 7;
    /// `CFA = rbx + offset`: the dynamic loader's trampolines, which make room for registers of any size.
    pub const RBX: u8 = 8;
    /// `CFA = rsp + offset + 8 * (rip % 16 >= addend)`: a stub of the procedure linkage table, whose second instruction
    /// pushes. No call returns into one, but a signal may interrupt one.
    pub const PLT: u8 = 9;
    /// `CFA = *(*(rsp + offset) + addend) - *(rsp + rbx_offset) + 8`: `runtime.asmcgocall` of Go, which is on the system
    /// thread's stack. It has saved the goroutine, which knows the upper end of its stack, and how far below that end
    /// the stack goes on.
    pub const GOROUTINE: u8 = 10;
}

/// How to find the caller's rbp.
pub mod rbp {
    /// Unchanged by this frame.
    pub const SAME: u8 = 0;
    /// `rbp = *(CFA + offset)`
    pub const AT_CFA: u8 = 1;
    /// `rbp = *(rbp + offset)`: beside [`super::cfa::RBP_DEREF`].
    pub const AT_RBP: u8 = 2;
    /// Lost: the caller's rbp cannot be known.
    pub const UNKNOWN: u8 = 3;
}

/// How to find the caller's rbx, which only [`cfa::RBX`] needs.
pub mod rbx {
    /// Lost: the caller's rbx cannot be known.
    pub const UNKNOWN: u8 = 0;
    /// Unchanged by this frame.
    pub const SAME: u8 = 1;
    /// `rbx = *(CFA + offset)`
    pub const AT_CFA: u8 = 2;
}

/// One unwind rule: how a frame's caller is found. The return address is always at `CFA - 8`, but for
/// [`cfa::SIGNAL`].
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rule {
    /// Offset of the CFA, in bytes.
    pub cfa_offset: i32,
    /// Offset of the saved rbp, in bytes.
    pub rbp_offset: i16,
    /// Offset of the saved rbx, in bytes; of another word with [`cfa::GOROUTINE`].
    pub rbx_offset: i16,
    /// One of [`cfa`].
    pub cfa_kind: u8,
    /// What some kinds of CFA add, as they say.
    pub cfa_addend: u8,
    /// One of [`rbp`].
    pub rbp_kind: u8,
    /// One of [`rbx`].
    pub rbx_kind: u8,
}
const _: () = assert!(size_of::<Rule>() == 12);

/// A chunk of rows, one value of the BPF array `ROWS`. The rows of one page never cross a chunk's end.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy)]
pub struct RowChunk {
    /// Packed rows, see [`pack_row`].
    pub rows: [u32; ROWS_PER_CHUNK],
}
const _: () = assert!(size_of::<RowChunk>() == 16384);

/// Packs a row: `low` is the address inside its page (below 1 << [`crate::limits::PAGE_SHIFT`]), `rule` the index of its rule.
#[must_use]
pub const fn pack_row(low: u16, rule: u16) -> u32 {
    low as u32 | (rule as u32) << 16
}

/// Where the rows of one page of text lie. The first row of a page that has rows always has address 0 within it.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageRows {
    /// Index of the first row in all chunks laid end to end.
    pub first: u32,
    /// How many rows; 0 where the page holds no unwind information.
    pub count: u32,
}
const _: () = assert!(size_of::<PageRows>() == 8);

/// One executable mapping of the target.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MappingRange {
    /// First address, as the target sees it (AVMA).
    pub begin: u64,
    /// One past the last address (AVMA).
    pub end: u64,
    /// The address at which the module's first page of text starts (AVMA). Pages are counted from the lowest executable
    /// segment, rounded down to a page, so that a file linked at a high address takes no more pages than any other.
    pub bias: u64,
    /// Index of that page in `PAGES`.
    pub first_page: u32,
    /// Pages that the file has; 0 where it has no table.
    pub pages: u32,
}
const _: () = assert!(size_of::<MappingRange>() == 32);

/// All executable mappings of the target, sorted by `begin`, not overlapping.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy)]
pub struct MappingTable {
    /// How many of `ranges` are in use.
    pub count: u32,
    /// Keeps `ranges` aligned.
    pub reserved: u32,
    /// The mappings.
    pub ranges: [MappingRange; MAX_MAPPINGS],
}
const _: () = assert!(size_of::<MappingTable>() == 8 + 32 * MAX_MAPPINGS);
