//! The table of live blocks as both sides see it: buckets of a few blocks each, packed into four words a block.
//!
//! A block lies in one of two buckets, which its key tells. Four blocks of 32 bytes fill two cache lines that lie side by side,
//! which processors fetch together: so a block that is in no cache costs one wait for memory, where the kernel's own hash
//! maps cost several (the bucket, then each element of its list). What finds no place, or cannot be packed, is kept in
//! hash maps of the kernel's.

use crate::records::{CUSTOM_BLOCK, LiveBlock};

/// Blocks of one bucket.
pub const SLOTS: usize = 4;
/// Buckets that a block may lie in.
pub const CHOICES: usize = 2;
/// A block goes to the emptier one of its buckets if the first has more than this. Below, one look is enough to find it.
pub const FILL_FIRST: usize = 2;

/// Bits of a key: an address in the lower half of a 48-bit address space, and whether its allocator was named by the user.
const KEY_BITS: u32 = 48;
const KEY: u64 = (1 << KEY_BITS) - 1;
/// Bits of the number of a thread's name, which is at most [`MAX_THREAD_NAMES`](crate::records::MAX_THREAD_NAMES).
const NAME_BITS: u32 = 13;
/// Bits of a size, and of what else is packed.
const SIZE_BITS: u32 = 48;
const SITE_BITS: u32 = 56;
const TIME_BITS: u32 = 56;

/// The bits that a site's key may have.
pub const SITE: u64 = (1 << SITE_BITS) - 1;
/// The one that every site of a stack has: the lowest numbers are reserved ([`OVERFLOW_SITE`](crate::records::OVERFLOW_SITE)).
pub const SITE_OF_STACK: u64 = 1 << (SITE_BITS - 1);

/// In the first word of a slot, what is of its block.
pub const BLOCK: u64 = (1 << (KEY_BITS + NAME_BITS)) - 1;
/// That of a slot that nobody uses.
pub const FREE: u64 = 0;
/// That of a slot that is being filled. No block has this key: it would be the last byte of the address space.
pub const BUSY: u64 = KEY;

/// Above [`BLOCK`], in the first word of a bucket's first slot: how many blocks that should be in this bucket are elsewhere, in the
/// other one of theirs or in a hash map. While there are none, nobody looks there. The unit of that number.
pub const ONE_ELSEWHERE: u64 = BLOCK + 1;
/// The largest number, which stays for good.
pub const MOST_ELSEWHERE: u64 = !BLOCK;

/// A live block, packed: the value of one slot.
///
/// | word | low bits | high bits |
/// |---|---|---|
/// | 0 | 48: key | 13: number of the thread's name; 3: [`ONE_ELSEWHERE`], in the first slot of a bucket |
/// | 1 | 48: size | 16: bits 0 to 15 of the high half of [`LiveBlock::thread`] |
/// | 2 | 56: site | 8: bits 16 to 23 of that |
/// | 3 | 56: time since the table was made | 8: bits 24 to 31 of that |
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Packed {
    /// As above.
    pub words: [u64; 4],
}

/// One bucket, the value of the BPF map `BLOCKS`.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    /// Its blocks, in no order.
    pub slots: [Packed; SLOTS],
}
// Two cache lines.
const _: () = assert!(size_of::<Bucket>() == 128);

/// The key of a block in as many bits as a slot has for it; `None` where it does not fit, as with addresses of more than 47 bits
/// (five-level paging, Documentation/arch/x86/x86_64/5level-paging.rst: only who asks for them gets them).
#[inline(always)]
#[must_use]
pub const fn short_key(key: u64) -> Option<u64> {
    let address = key & !CUSTOM_BLOCK;
    if address >> (KEY_BITS - 1) != 0 {
        return None;
    }
    Some(address | (key >> 63) << (KEY_BITS - 1))
}

/// The golden ratio, and one of the factors of xxHash, as fractions of 64 bits: odd, and without a simple relation.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
const OTHER_FACTOR: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// A place for a key, out of so many. The high bits of a product depend on all bits of the key, and regular strides are spread
/// evenly (Knuth, The Art of Computer Programming 3, 6.4).
#[inline(always)]
const fn spread(key: u64, factor: u64, places: u32) -> u32 {
    let hash = key.wrapping_mul(factor) >> 32;
    ((hash * places as u64) >> 32) as u32
}

/// The buckets, out of so many, that a block with this (short) key may lie in.
#[inline(always)]
#[must_use]
pub const fn buckets_of(key: u64, buckets: u32) -> [u32; CHOICES] {
    [spread(key, GOLDEN_RATIO, buckets), spread(key, OTHER_FACTOR, buckets)]
}

/// The hash map, out of so many, that a block with this (whole) key is in where it is in no bucket.
#[inline(always)]
#[must_use]
pub const fn part_of(key: u64, parts: u32) -> u32 {
    spread(key, GOLDEN_RATIO, parts)
}

impl Packed {
    /// Packs a block; `None` where something has more bits than there are for it. `began` is when the table was made.
    #[inline(always)]
    #[must_use]
    pub const fn pack(key: u64, block: &LiveBlock, began: u64) -> Option<Self> {
        let age = block.born.wrapping_sub(began);
        let LiveBlock { size, site, thread, .. } = *block;
        let (name, high) = (thread & 0xffff_ffff, thread >> 32);
        if (size >> SIZE_BITS) | (site >> SITE_BITS) | (age >> TIME_BITS) | (name >> NAME_BITS) != 0 {
            return None;
        }
        let words = [
            key | name << KEY_BITS,
            size | (high & 0xffff) << SIZE_BITS,
            site | (high >> 16 & 0xff) << SITE_BITS,
            age | (high >> 24) << TIME_BITS,
        ];
        Some(Self { words })
    }

    /// Whether this first word of a slot is a block's with this key.
    #[inline(always)]
    #[must_use]
    pub const fn has_key(word: u64, key: u64) -> bool {
        word & KEY == key
    }

    /// When the block of this last word was born.
    #[inline(always)]
    #[must_use]
    pub const fn born(word: u64, began: u64) -> u64 {
        (word & ((1 << TIME_BITS) - 1)).wrapping_add(began)
    }

    /// The block; of a slot that is in use.
    #[inline(always)]
    #[must_use]
    pub const fn unpack(&self, began: u64) -> LiveBlock {
        let [key, size, site, time] = self.words;
        let high = size >> SIZE_BITS | (site >> SITE_BITS) << 16 | (time >> TIME_BITS) << 24;
        LiveBlock {
            size: size & ((1 << SIZE_BITS) - 1),
            site: site & SITE,
            born: Self::born(time, began),
            thread: (key & BLOCK) >> KEY_BITS | high << 32,
        }
    }

    /// Whether a block is in it.
    #[inline(always)]
    #[must_use]
    pub const fn is_in_use(&self) -> bool {
        self.words[0] & BLOCK != FREE && !Self::has_key(self.words[0], BUSY)
    }
}

impl Bucket {
    /// The same with one block more that is elsewhere.
    #[must_use]
    pub const fn with_one_elsewhere(mut self) -> Self {
        if self.slots[0].words[0] < MOST_ELSEWHERE {
            self.slots[0].words[0] += ONE_ELSEWHERE;
        }
        self
    }
}
