//! The sizes that both sides must agree on, each with its reason.

/// Frames kept of one stack. A deeper stack is cut at its root end and marked truncated.
///
/// A compiler's stacks have 69 frames on average and 8% are deeper than 128, as are 6% of Python's while it imports. A
/// power of two keeps index masks cheap.
pub const MAX_FRAMES: usize = 512;

/// Python frames kept of one stack. A deeper one is cut at its root end. A power of two.
pub const MAX_PYTHON_FRAMES: usize = 128;

/// Bytes of the target's stack that are read at once, at most, then walked in scratch memory: a page.
///
/// One bulk read costs as much as a few 8-byte reads. It ends with the page, because what follows may not be mapped.
pub const WINDOW_BYTES: usize = 4096;

/// Executable mappings that one table of mappings holds.
pub const MAX_MAPPINGS: usize = 2048;

/// Rows in one chunk of the unwind table. A chunk is one value of a BPF array: 16 KiB, so that nothing is lost to the
/// rounding of array values.
pub const ROWS_PER_CHUNK: usize = 4096;

/// log2 of the bytes of text that one page of the unwind table indexes (16 KiB).
pub const PAGE_SHIFT: u32 = 14;

/// Distinct unwind rules that the dictionary holds: a row names its rule with 16 bits.
pub const MAX_RULES: usize = 65536;

/// Threads that the probes can tell apart, a power of two: Linux gives out thread ids one after the other, 32,768 of them
/// on small machines.
pub const THREAD_SLOTS: u32 = 1 << 15;

/// Functions of allocators whose code is known to a sampler, and functions that `--only-caller` can name.
pub const MAX_ALLOCATOR_FUNCTIONS: usize = 256;
