//! What a program tells of its allocations by USDT probes: where the arguments of such a probe are found, and what a block
//! that it tells of stands for.

use crate::sampling::ONE;

/// Places of such probes that one observation can read.
pub const MAX_PLACES: usize = 256;

/// Where one argument is found when the probe is hit.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Argument {
    /// A constant, or what is added to the registers of an address.
    pub offset: i64,
    /// [`Self::CONSTANT`], [`Self::REGISTER`], [`Self::MEMORY`] or [`Self::INDEXED`].
    pub kind: u8,
    /// The register, or the base of an address, by its number in machine code: rax rcx rdx rbx rsp rbp rsi rdi r8 … r15.
    pub register: u8,
    /// The other register of an address.
    pub index: u8,
    /// By how many bits that one is shifted to the left.
    pub shift: u8,
    /// Bytes of the argument: 1, 2, 4 or 8.
    pub bytes: u8,
    /// Not 0 where its highest bit is a sign.
    pub signed: u8,
    /// Nothing.
    pub padding: [u8; 2],
}
const _: () = assert!(size_of::<Argument>() == 16);

impl Argument {
    /// It is `offset`.
    pub const CONSTANT: u8 = 0;
    /// It is in `register`.
    pub const REGISTER: u8 = 1;
    /// It is in memory, at `register + offset`.
    pub const MEMORY: u8 = 2;
    /// It is in memory, at `register + (index << shift) + offset`.
    pub const INDEXED: u8 = 3;
}

/// The arguments of one probe: address; of an allocation, bytes of the block and bytes that it stands for. An element of
/// the BPF map `TOLD_PLACES`.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// In their order.
    pub arguments: [Argument; 3],
}

/// Set in [`LiveBlock::thread`](crate::records::LiveBlock::thread) of a block that the program has told of: the bits from 32
/// to 62 are then what [`pack`] makes of the bytes that it stands for.
pub const TOLD: u64 = 1 << 63;
/// The most bytes that a block may stand for.
pub const MOST_SPACE: u64 = 1 << 46;

/// Bits of the leading digits that are kept: below 64 MiB, a number is kept as it is.
const DIGITS: u32 = 26;

/// A number of bytes, up to [`MOST_SPACE`], in 31 bits: its leading 26 binary digits, rounded, and how many follow.
#[inline(always)]
#[must_use]
pub fn pack(space: u64) -> u64 {
    let mut digits = if space < MOST_SPACE { space } else { MOST_SPACE };
    let mut exponent = 0;
    while exponent < 22 && digits >> DIGITS != 0 {
        digits = (digits >> 1) + (digits & 1);
        exponent += 1;
    }
    exponent << DIGITS | digits
}

/// Blocks, in units of 1 / [`ONE`], and bytes that a block of so many bytes stands for.
#[inline(always)]
#[must_use]
pub fn stands_for(size: u64, thread: u64) -> (u64, u64) {
    let packed = thread >> 32 & 0x7fff_ffff;
    let space = (packed & ((1 << DIGITS) - 1)) << (packed >> DIGITS);
    let size = if size == 0 { 1 } else { size };
    (space * ONE / size, space)
}
