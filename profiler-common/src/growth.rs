//! What the BPF side notes of page faults, where growth is watched.

/// Stands for the allocator in the site of a page fault: the number of no allocator.
pub const FAULT_SITE: u8 = u8::MAX - 2;

/// log2 of the bytes of a page.
pub const FAULT_PAGE_SHIFT: u32 = 12;

/// Who touched a page last while it was not there, the value of the BPF map `TOUCHED`. Its key is the page's address without
/// the low [`FAULT_PAGE_SHIFT`] bits.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TouchedPage {
    /// Key of the site in `SITES`.
    pub site: u64,
    /// When: `CLOCK_MONOTONIC` in nanoseconds.
    pub time: u64,
    /// The site that touched it before, and when; 0 where there is none. mremap may have moved the page that it touched.
    pub site_before: u64,
    /// See [`Self::site_before`].
    pub time_before: u64,
}
const _: () = assert!(size_of::<TouchedPage>() == 32);

/// The page faults of one site, the value of the BPF map `FAULT_SITES`.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SiteFaults {
    /// All that the kernel has resolved.
    pub faults: u64,
    /// Of those, on a page that had had one since the attach.
    pub again: u64,
    /// Of those, with a page that had to be read from a disk.
    pub major: u64,
}
const _: () = assert!(size_of::<SiteFaults>() == 24);

/// The last page fault of a thread, the value of the BPF map `LAST_FAULTS`. A thread may have two events that tell of the same
/// fault: one of its own, and one that it has inherited.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LastFault {
    /// Its thread id in the lower half, its process id in the upper one.
    pub thread: u64,
    /// How many faults the kernel had counted for the thread by then.
    pub count: u64,
}
const _: () = assert!(size_of::<LastFault>() == 16);
