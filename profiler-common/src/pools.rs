//! What the probe on pymalloc is told, and what it notes. pymalloc, CPython's allocator of objects of 512 bytes and less,
//! carves them out of pools of one size of object each.

/// Stands for the allocator in the site of a pool: the number of no allocator.
pub const POOL_SITE: u8 = u8::MAX - 1;

/// A pool that was opened while the target was watched, the value of the BPF map `POOLS`; its key is the pool's address. A
/// pool that is given up and opened again is another one.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolSample {
    /// The site whose object did not fit into an open pool: key of `SITES`.
    pub site: u64,
    /// When: `CLOCK_MONOTONIC` in nanoseconds.
    pub time: u64,
}
const _: () = assert!(size_of::<PoolSample>() == 16);

/// What a probe inside the function that opens pools has to know: where the pool's address is, and where the function keeps
/// what a walk of its caller's frame begins with. It is the probe's attach cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolCookie(pub u64);

impl PoolCookie {
    /// Stands for a register that the function has not saved: it is as the caller left it.
    pub const NOT_SAVED: u16 = 0;
    /// Stands for a register whose value is lost.
    pub const LOST: u16 = u16::MAX;

    /// The pool's address is in the register with this number (rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 …). `cfa` is the
    /// distance from rsp up to the canonical frame address, `rbp` and `rbx` those from there down to where the function
    /// keeps them, all in words.
    #[must_use]
    pub const fn new(register: u8, cfa: u16, rbp: u16, rbx: u16) -> Self {
        Self(register as u64 | (cfa as u64) << 8 | (rbp as u64) << 24 | (rbx as u64) << 40)
    }

    /// The number of the register, 0 to 15.
    #[inline(always)]
    #[must_use]
    pub const fn register(self) -> u64 {
        self.0 & 15
    }

    /// Distances in words: of the canonical frame address, and of where rbp and rbx are kept.
    #[inline(always)]
    #[must_use]
    pub const fn distances(self) -> [u64; 3] {
        [self.0 >> 8 & 0xffff, self.0 >> 24 & 0xffff, self.0 >> 40 & 0xffff]
    }
}
