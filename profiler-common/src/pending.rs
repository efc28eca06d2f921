//! Calls between their entry and their return: what the probes remember of them where the kernel carries too little.

use crate::records::LiveBlock;

/// Names a call between its entry and its return. The stack pointer tells nested calls of one thread apart; the cookie
/// those that jumped into one another, as glibc's `realloc(NULL, n)` into `malloc`.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PendingKey {
    /// The value of rsp at the function's entry, where its return address lies.
    pub sp: u64,
    /// Process id in the upper half, thread id in the lower, as the kernel's first pid namespace has them.
    pub pid_tgid: u64,
    /// The attach cookie of the function.
    pub cookie: u64,
}
const _: () = assert!(size_of::<PendingKey>() == 24);

/// A call between its entry and its return, the value of the BPF map `PENDING`.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PendingCall {
    /// Bytes asked for.
    pub size: u64,
    /// The block handed in (realloc), or where the block's address will be stored (posix_memalign).
    pub pointer: u64,
    /// What the ledger held of the block handed in; taken out at the entry, because another thread may be given its
    /// address before the return is seen, and put back when the call fails.
    pub old: LiveBlock,
    /// The key that `old` had in the table of live blocks; 0 where there is none, or [`TAKEN_OVER`].
    pub old_key: u64,
    /// When the call was entered: `CLOCK_MONOTONIC` in nanoseconds, with the number of the interval that it was drawn at
    /// above it ([`DRAWN_SHIFT`]), and with [`UNSAMPLED`] where that holds.
    pub entered: u64,
}
const _: () = assert!(size_of::<PendingCall>() == 64);

/// Set in [`PendingCall::entered`] where the block that the call returns is not to be recorded.
pub const UNSAMPLED: u64 = 1 << 63;
/// Where the number of an interval stands in [`PendingCall::entered`], five bits. (The clock takes nine years to get there.)
pub const DRAWN_SHIFT: u32 = 58;

impl PendingCall {
    /// A call of which nothing is known yet.
    pub const EMPTY: Self = Self { size: 0, pointer: 0, old: LiveBlock::NONE, old_key: 0, entered: 0 };
}

/// In place of a key: a call inside the call has taken `old` over.
pub const TAKEN_OVER: u64 = u64::MAX;
