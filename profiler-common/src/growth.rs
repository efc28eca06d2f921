//! What the BPF side notes of page faults, where growth is watched.

/// Stands for the allocator in the site of a page fault: the number of no allocator.
pub const FAULT_SITE: u8 = u8::MAX - 2;

/// log2 of the bytes of a page.
pub const FAULT_PAGE_SHIFT: u32 = 12;

/// log2 of the pages of a huge page.
pub const HUGE_SHIFT: u32 = 9;

/// Most pages that one page in the sample may stand for, as log2 ([`Control::current`](crate::control::Control::current) while
/// growth is watched).
pub const MAX_SAMPLING_SHIFT: u64 = 16;

/// Whether the page with this number is in a sample of one page in `1 << shift`. The number alone decides, so that everything
/// that happens to such a page is seen, and each sample is part of those with a smaller `shift`.
#[must_use]
pub const fn is_chosen(page: u64, shift: u64) -> bool {
    shift == 0 || mixed(page) >> 1 >> (63 - (shift & 31)) == 0
}

/// The same of whole blocks of as many pages as a huge page has: of a huge page there is one fault, on any of its pages, and
/// whether it was one is seen only where all faults of its block are.
#[must_use]
pub const fn is_in_chosen_block(page: u64, shift: u64) -> bool {
    shift == 0 || mixed(!(page >> HUGE_SHIFT)) >> 1 >> (63 - (shift & 31)) == 0
}

/// Each bit of the number has its part in each bit (the end of MurmurHash3, by Austin Appleby).
const fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let number = (number ^ number >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ number >> 33
}

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

/// The page faults of one site, the value of the BPF map `FAULT_SITES`. Each counts as many times as its page stood for at the
/// time.
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
