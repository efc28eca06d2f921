//! The values of the BPF maps and the record of the ring buffer.

use crate::limits::MAX_FRAMES;

/// What an allocator function does with its arguments, as the probe that sits on it is told (low byte of the attach
/// cookie; the next byte is the index of the allocator that owns it).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum CallKind {
    /// `f(size)` returns a block: malloc, valloc, pvalloc, operator new.
    Malloc = 1,
    /// `f(count, size)` returns a block: calloc.
    Calloc = 2,
    /// `f(block, size)` returns a block: realloc.
    Realloc = 3,
    /// `f(alignment, size)` returns a block: memalign, aligned_alloc.
    Memalign = 4,
    /// `f(out, alignment, size)` returns 0 and stores a block: posix_memalign.
    PosixMemalign = 5,
    /// `f(block)`: free, cfree, operator delete.
    Free = 6,
    /// `f(block, count, size)` returns a block: reallocarray.
    Reallocarray = 7,
}

impl CallKind {
    /// The attach cookie of a probe on a function of this kind that belongs to the allocator with this index.
    #[must_use]
    pub const fn cookie(self, allocator: u8) -> u64 {
        self as u64 | (allocator as u64) << 8
    }

    /// Whether the block is known only when the function returns.
    #[must_use]
    pub const fn needs_return(self) -> bool {
        !matches!(self, Self::Free)
    }
}

/// One live block, the value of the BPF map `LIVE`; its key is the block's address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LiveBlock {
    /// Bytes asked for.
    pub size: u64,
    /// The site that allocated it: key of `SITES`.
    pub site: u64,
    /// When: `CLOCK_MONOTONIC` in nanoseconds.
    pub born: u64,
}
const _: () = assert!(size_of::<LiveBlock>() == 24);

/// What is counted for one site, the value of the BPF map `SITES`; its key is the 64-bit hash of allocator and stack.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SiteCounters {
    /// Allocations.
    pub alloc_objects: u64,
    /// Bytes of them.
    pub alloc_space: u64,
    /// Of those, blocks freed again.
    pub freed_objects: u64,
    /// Bytes of them.
    pub freed_space: u64,
    /// 1 once the stack record reached the ring buffer.
    pub stack_sent: u64,
}
const _: () = assert!(size_of::<SiteCounters>() == 40);

/// How a walk ended.
pub mod walk_end {
    /// At the thread's first function: the stack is whole.
    pub const COMPLETE: u8 = 0;
    /// At the frame limit.
    pub const TRUNCATED: u8 = 1;
    /// For the reason of `Counter::StackNoMapping`.
    pub const NO_MAPPING: u8 = 2;
    /// For the reason of `Counter::StackNoTable`.
    pub const NO_TABLE: u8 = 3;
    /// For the reason of `Counter::StackUnsupported`.
    pub const UNSUPPORTED: u8 = 4;
    /// For the reason of `Counter::StackUnreadable`.
    pub const UNREADABLE: u8 = 5;
    /// For the reason of `Counter::StackNotAdvancing`.
    pub const NOT_ADVANCING: u8 = 6;
    /// No scratch slot was free: there is no stack at all.
    pub const SCRATCH_BUSY: u8 = 7;
}

/// The head of a stack record in the ring buffer; `frames` return addresses follow, 8 bytes each, the allocator's
/// caller first.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StackHead {
    /// Key of the site in `SITES`.
    pub site: u64,
    /// Bit n is set where frame n was found by a frame-pointer guess.
    pub guessed: [u64; MAX_FRAMES / 64],
    /// Number of frames.
    pub frames: u16,
    /// Index of the allocator.
    pub allocator: u8,
    /// One of [`walk_end`].
    pub end: u8,
    /// Which mapping table (its generation) the walk used.
    pub generation: u32,
}
const _: () = assert!(size_of::<StackHead>() == 32);
