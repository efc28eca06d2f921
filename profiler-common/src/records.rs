//! The values of the BPF maps and the record of the ring buffer.

use crate::{control::NUMBER_SHIFT, limits::MAX_FRAMES, told::TOLD};

/// What an allocator function does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum CallKind {
    /// Returns a block: malloc, calloc, memalign, operator new.
    Allocate = 1,
    /// Returns 0 and stores a block: posix_memalign.
    AllocateInto = 2,
    /// Takes a block and returns a block, or none, which leaves the one handed in as it was: realloc.
    Reallocate = 3,
    /// The same, but where it returns none, the block handed in is gone: reallocf.
    ReallocateOrFree = 4,
    /// Takes a block that stays where it is and returns the size that it has now, which may be less than asked for:
    /// xallocx.
    Resize = 5,
    /// Takes a block: free, cfree, operator delete.
    Free = 6,
    /// Ends the process, after its exit handlers: exit.
    Exit = 7,
    /// Maps memory: mmap.
    Map = 8,
    /// Unmaps memory: munmap.
    Unmap = 9,
    /// Resizes or moves mapped memory: mremap.
    Remap = 10,
    /// Sets the end of the heap: brk.
    Break = 11,
}

/// What an allocator function does, and in which of its integer arguments it is told what: 0 to 5 stand for rdi, rsi,
/// rdx, rcx, r8 and r9 (System V ABI for x86-64, 3.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Call {
    /// What it does.
    pub kind: CallKind,
    /// The argument that holds the bytes asked for, or the bytes of one element; [`Self::NOTHING`] for none.
    pub size: u8,
    /// The argument that holds the number of elements; [`Self::ONE`] where there is one.
    pub count: u8,
    /// The argument that holds the block handed in, or where the block's address is to be stored; [`Self::NOTHING`] for
    /// none.
    pub block: u8,
}

impl Call {
    /// Number of integer arguments that come in registers.
    pub const ARGUMENTS: u8 = 6;
    /// Stands for an argument that is always 1.
    pub const ONE: u8 = 6;
    /// Stands for an argument that is always 0.
    pub const NOTHING: u8 = 7;
    /// Set in the cookie of a probe on an allocator that the user named.
    pub const CUSTOM: u64 = 1 << 48;
    /// Set in the cookie of a probe that sees the calls of one caller alone: who calls need not be looked at.
    pub const ONE_CALLER: u64 = 1 << 49;
    /// Set in the cookie of a probe on a function that leaves by its return alone: no other function goes on with its call.
    pub const RETURNS: u64 = 1 << 50;
    /// Where the cookie of a probe behind a call says how many bytes behind the call's return address it sits.
    pub const BEHIND_SHIFT: u32 = 56;

    /// `f(…, size, …)` returns a block.
    #[must_use]
    pub const fn allocate(size: u8) -> Self {
        Self { kind: CallKind::Allocate, size, count: Self::ONE, block: Self::NOTHING }
    }

    /// `f(…, out, …, size, …)` stores a block.
    #[must_use]
    pub const fn allocate_into(out: u8, size: u8) -> Self {
        Self { kind: CallKind::AllocateInto, size, count: Self::ONE, block: out }
    }

    /// `f(…, block, …, size, …)` returns a block.
    #[must_use]
    pub const fn reallocate(block: u8, size: u8) -> Self {
        Self { kind: CallKind::Reallocate, size, count: Self::ONE, block }
    }

    /// `f(…, block, …)` takes a block.
    #[must_use]
    pub const fn free(block: u8) -> Self {
        Self { kind: CallKind::Free, size: Self::NOTHING, count: Self::ONE, block }
    }

    /// `exit(…)`.
    #[must_use]
    pub const fn exit() -> Self {
        Self { kind: CallKind::Exit, size: Self::NOTHING, count: Self::ONE, block: Self::NOTHING }
    }

    /// The same for an array of so many elements.
    #[must_use]
    pub const fn of_array(self, count: u8) -> Self {
        Self { count, ..self }
    }

    /// The same arguments for another kind of call.
    #[must_use]
    pub const fn but(self, kind: CallKind) -> Self {
        Self { kind, ..self }
    }

    /// Whether the outcome is known only when the function returns.
    #[must_use]
    pub const fn needs_return(self) -> bool {
        !matches!(self.kind, CallKind::Free | CallKind::Exit)
    }

    /// The attach cookie of a probe on this function: number `function` of the allocator with the index `allocator`.
    /// From the low byte on: kind, allocator, size, count, block, function; [`Self::CUSTOM`] may be added.
    #[must_use]
    pub const fn cookie(self, allocator: u8, function: u8) -> u64 {
        u64::from_le_bytes([self.kind as u8, allocator, self.size, self.count, self.block, function, 0, 0])
    }
}

/// Set in the key of a live block of an allocator that the user named: such an allocator may hand out parts of a
/// block of another one, the first of which has that block's address. (User space ends far below.)
pub const CUSTOM_BLOCK: u64 = 1 << 63;

/// One live block; its key is the block's address, with [`CUSTOM_BLOCK`] where that holds. In the table of live blocks it is packed
/// ([`crate::blocks`]), or the value of one of the BPF maps in `OVERFLOW`.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LiveBlock {
    /// Bytes asked for.
    pub size: u64,
    /// The site that allocated it: key of `SITES`.
    pub site: u64,
    /// When: `CLOCK_MONOTONIC` in nanoseconds.
    pub born: u64,
    /// Whose: the number that `THREAD_NAMES` gives the name of the thread, or [`NO_NAME`], in the low half; in the high
    /// one the number of the interval that it was drawn at ([`crate::control`]), or what the program told ([`TOLD`]).
    pub thread: u64,
}
// With what a hash element takes beside it, it fills a slab object of 96 bytes.
const _: () = assert!(size_of::<LiveBlock>() == 32);

impl LiveBlock {
    /// No block.
    pub const NONE: Self = Self { size: 0, site: 0, born: 0, thread: NO_NAME };

    /// The number of its thread's name.
    #[must_use]
    pub const fn thread_name(&self) -> u64 {
        self.thread & 0xffff_ffff
    }

    /// The number of the interval that it was drawn at.
    #[must_use]
    pub const fn interval(&self) -> u64 {
        if self.is_told() { 0 } else { self.thread >> NUMBER_SHIFT }
    }

    /// Whether the program has told of it, and what it stands for ([`crate::told`]).
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.thread & TOLD != 0
    }
}

/// Number of a thread whose name could not be kept.
pub const NO_NAME: u64 = 0;

/// A thread as the target's kernel names it (`comm`): padded with NUL.
pub type ThreadName = [u8; 16];

/// Which thread an entry of the BPF map `THREADS` is about, and what it did last. Threads whose ids are the same modulo
/// the size of the map share an entry, one after the other.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ThreadState {
    /// In one word, so that it never speaks of two threads: the thread id in the upper half, then 16 bits of the number
    /// of its name, then 16 bits of the time when the name was read, in units of 2^20 ns.
    pub owner: u64,
    /// Key of the block that it allocated last.
    pub last: u64,
}

/// Number of size classes that allocations are counted in.
pub const SIZE_CLASSES: usize = 14;

/// The largest size of a class, in bytes: 16, 32, 64 … 65,536, and then all others.
#[must_use]
pub const fn largest_of_class(class: usize) -> u64 {
    if class + 1 < SIZE_CLASSES { 16 << class } else { u64::MAX }
}

/// The state of the account at its moments: the value of the BPF map `MOMENTS`, which has one.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moments {
    /// Live bytes now.
    pub live: u64,
    /// The most live bytes so far.
    pub peak: u64,
    /// When that was: `CLOCK_MONOTONIC` in nanoseconds; 0 before the first allocation.
    pub peak_time: u64,
    /// How many times a new peak has been reached.
    pub peak_number: u64,
    /// When the target called `exit`, before its handlers ran; 0 if it has not.
    pub exit_time: u64,
}

/// What a site held at a moment.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Live blocks.
    pub objects: u64,
    /// Bytes of them.
    pub space: u64,
}

impl Held {
    /// Nothing.
    pub const NOTHING: Self = Self { objects: 0, space: 0 };
}

/// What is counted for one site, the value of the BPF map `SITES`; its key is the 64-bit hash of allocator and stack. While
/// sampling, it is what the recorded blocks stand for ([`crate::sampling`]), blocks in units of 1 / [`crate::sampling::ONE`].
///
/// What it held at the peak is noted when it changes for the first time afterwards; until then, it holds it still. The
/// same goes for the target's exit. What each call changes lies at the beginning, in the cache lines of the key.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SiteCounters {
    /// The peak that `peak` is about, in its low 32 bits.
    pub peak_number: u32,
    /// Whether `exit` is valid.
    pub exit_noted: u8,
    /// The largest number of an interval that one of its blocks was drawn at ([`crate::control`]).
    pub coarsest: u8,
    /// 1 once the stack record reached the ring buffer.
    pub stack_sent: u8,
    /// How the walk of its stack ended: one of [`walk_end`].
    pub end: u8,
    /// Allocations.
    pub alloc_objects: u64,
    /// Bytes of them.
    pub alloc_space: u64,
    /// Of those, blocks freed again.
    pub freed_objects: u64,
    /// Bytes of them.
    pub freed_space: u64,
    /// Of those, blocks freed by the thread that had allocated them and no other since.
    pub temporary_objects: u64,
    /// Allocations by size: [`largest_of_class`].
    pub sizes: [u64; SIZE_CLASSES],
    /// What it held at the peak with the number `peak_number`.
    pub peak: Held,
    /// What it held when the target called `exit`, if `exit_noted` is not 0.
    pub exit: Held,
}
// With what a hash element takes beside it, it fits a slab object of 256 bytes.
const _: () = assert!(size_of::<SiteCounters>() == 192);

impl SiteCounters {
    /// A site that has just been met.
    pub const EMPTY: Self = Self {
        alloc_objects: 0,
        alloc_space: 0,
        freed_objects: 0,
        freed_space: 0,
        temporary_objects: 0,
        sizes: [0; SIZE_CLASSES],
        peak: Held::NOTHING,
        exit: Held::NOTHING,
        peak_number: 0,
        exit_noted: 0,
        coarsest: 0,
        stack_sent: 0,
        end: 0,
    };

    /// What it holds now.
    #[must_use]
    pub const fn held(&self) -> Held {
        Held {
            objects: self.alloc_objects.wrapping_sub(self.freed_objects),
            space: self.alloc_space.wrapping_sub(self.freed_space),
        }
    }

    /// What it held at the peak.
    #[must_use]
    pub const fn held_at_peak(&self, moments: &Moments) -> Held {
        // The low half tells one peak from the next.
        if self.peak_number as u64 == moments.peak_number & 0xffff_ffff { self.peak } else { self.held() }
    }

    /// What it held when the target called `exit`, or holds now if it has not.
    #[must_use]
    pub const fn held_at_exit(&self) -> Held {
        if self.exit_noted != 0 { self.exit } else { self.held() }
    }
}

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
/// caller first, and then `python` Python frames ([`PythonFrame`](crate::python::PythonFrame)), the innermost first.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StackHead {
    /// Key of the site in `SITES`.
    pub site: u64,
    /// Bit n is set where frame n was found by a frame-pointer guess, or behind a signal frame.
    pub guessed: [u64; MAX_FRAMES / 64],
    /// Number of frames.
    pub frames: u16,
    /// Index of the allocator.
    pub allocator: u8,
    /// One of [`walk_end`].
    pub end: u8,
    /// Which mapping table (its generation) the walk used.
    pub generation: u32,
    /// When the walk began: `CLOCK_MONOTONIC` in nanoseconds.
    pub time: u64,
    /// Number of Python frames.
    pub python: u32,
    /// How the walk of the Python frames ended: one of [`python_end`](crate::python::python_end).
    pub python_end: u32,
}
const _: () = assert!(size_of::<StackHead>() == 96);

/// Index in the BPF map `STATE` of the mapping tables' generation: the walkers use the table of that number modulo 2.
pub const STATE_GENERATION: u32 = 0;
/// Index in `STATE` of what closed the ledger: 0 while it is open, [`CLOSED_BY_US`] or [`CLOSED_BY_EXEC`]. A word of its
/// own, because the target's exec and our publishing of mappings may meet.
pub const STATE_CLOSED: u32 = 1;
/// Index in `STATE` of how many numbers for the names of threads have been given out.
pub const STATE_NAMES: u32 = 2;
/// Words in `STATE`.
pub const STATE_WORDS: u32 = 3;

/// Distinct names of threads that are told apart.
pub const MAX_THREAD_NAMES: u32 = 4096;

/// The observation is over.
pub const CLOSED_BY_US: u32 = 1;
/// The target has replaced its program.
pub const CLOSED_BY_EXEC: u32 = 2;

/// Site of allocations for which the map of sites had no room. Present from the start, so that their bytes are kept.
pub const OVERFLOW_SITE: u64 = 1;

/// Numbers that stand for calls of kernel functions in the BPF object; the loader puts the kernel's own in their place.
pub const KFUNC_SESSION_COOKIE: u32 = 0x7fff_0001;
/// See [`KFUNC_SESSION_COOKIE`].
pub const KFUNC_SESSION_IS_RETURN: u32 = 0x7fff_0002;
