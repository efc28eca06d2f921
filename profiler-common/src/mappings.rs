//! What the BPF side tells of calls of mmap, munmap, mremap and brk.

use crate::records::{Call, CallKind};

/// Stands for the allocator in the site of a mapping: the number of no allocator.
pub const MAPPING_SITE: u8 = u8::MAX;

/// Set in [`MappingEvent::call`] where the call returns; otherwise it is entered.
pub const RETURNS: u32 = 1 << 8;

/// One end of a call, as the ring buffer `MAPPING_EVENTS` has it. The two ends of a call have the same `thread` and `sp`.
///
/// The ring buffer's order is the order of cause and effect: what a call gives up is told before the kernel can give it
/// to anybody else, and what it gets is told before anybody can know its address.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MappingEvent {
    /// A `CallKind`, with [`RETURNS`] at the return.
    pub call: u32,
    /// The argument `flags`; 0 for munmap and at the return.
    pub flags: u32,
    /// Process id in the upper half, thread id in the lower, as the kernel's first pid namespace has them.
    pub thread: u64,
    /// The value of rsp at the function's entry.
    pub sp: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time: u64,
    /// At the entry the address handed in; at the return what the function returns.
    pub address: u64,
    /// The length handed in, in bytes; of mremap, the old one.
    pub length: u64,
    /// The new length handed to mremap, in bytes.
    pub new_length: u64,
    /// At the return of mmap and mremap, the key of the site in `SITES`; at the entry of mremap, the place that it names
    /// with `MREMAP_FIXED`.
    pub site: u64,
}
const _: () = assert!(size_of::<MappingEvent>() == 64);

impl MappingEvent {
    /// At the entry of mremap, the place that it names with `MREMAP_FIXED`.
    #[must_use]
    pub const fn new_address(&self) -> u64 {
        self.site
    }
}

impl CallKind {
    /// Whether it is about mapped memory and not about blocks.
    #[must_use]
    pub const fn is_of_mappings(self) -> bool {
        matches!(self, Self::Map | Self::Unmap | Self::Remap | Self::Break)
    }
}

impl Call {
    /// mmap, munmap, mremap or brk: each has its arguments in places of its own.
    #[must_use]
    pub const fn of_mappings(kind: CallKind) -> Self {
        Self { kind, size: 1, count: Self::ONE, block: 0 }
    }
}
