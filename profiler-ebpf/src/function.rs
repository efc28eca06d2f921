//! What the attach cookie says of the function that a probe sits on, and the function's arguments.

use core::ffi::c_void;

use aya_ebpf::{bindings::pt_regs, helpers::generated::bpf_get_attach_cookie};

use crate::{
    opaque,
    records::{CUSTOM_BLOCK, Call, CallKind},
};

/// An allocator's function, as `Call::cookie` packs it.
#[derive(Clone, Copy)]
pub struct Function(pub u64);

impl Function {
    /// The function whose probe runs in this context.
    #[inline(always)]
    pub fn of(ctx: *mut c_void) -> Self {
        // SAFETY: the context that the kernel passed.
        Self(unsafe { bpf_get_attach_cookie(ctx) })
    }

    /// Index of its allocator.
    #[inline(always)]
    pub fn allocator(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Whether the user named its allocator.
    #[inline(always)]
    pub fn is_custom(self) -> bool {
        self.0 & Call::CUSTOM != 0
    }

    /// Whether its probe sees the calls of one caller alone.
    #[inline(always)]
    pub fn is_of_one_caller(self) -> bool {
        self.0 & Call::ONE_CALLER != 0
    }

    /// Whether it leaves by its return alone: no other function of an allocator goes on with its call.
    #[inline(always)]
    pub fn returns(self) -> bool {
        self.0 & Call::RETURNS != 0
    }

    /// What the cookies of both ends of a call have in common.
    #[inline(always)]
    pub fn of_call(self) -> u64 {
        self.0 & ((1 << Call::BEHIND_SHIFT) - 1)
    }

    /// How many bytes behind the call's return address its probe sits.
    #[inline(always)]
    pub fn behind(self) -> u64 {
        self.0 >> Call::BEHIND_SHIFT
    }

    #[inline(always)]
    pub fn is(self, kind: CallKind) -> bool {
        self.0 as u8 == kind as u8
    }

    /// Whether it is handed a block that its return decides on.
    #[inline(always)]
    pub fn takes_block(self) -> bool {
        self.is(CallKind::Reallocate) || self.is(CallKind::ReallocateOrFree) || self.is(CallKind::Resize)
    }

    /// The key in `LIVE` of a block of its allocator.
    #[inline(always)]
    pub fn key_of(self, address: u64) -> u64 {
        // Bit 48 of the cookie becomes bit 63 of the key.
        const _: () = assert!(Call::CUSTOM << 15 == CUSTOM_BLOCK);
        address | (self.0 & Call::CUSTOM) << 15
    }
}

/// The integer arguments at a function's entry, then the two that stand for 1 and for 0. On the stack, because the
/// verifier lets neither the context be read at an offset that it does not know, nor is a chain of comparisons cheaper.
pub struct Arguments([u64; 8]);

impl Arguments {
    #[inline(always)]
    pub fn of(registers: &pt_regs) -> Self {
        let pt_regs { rdi, rsi, rdx, rcx, r8, r9, .. } = *registers;
        Self([rdi, rsi, rdx, rcx, r8, r9, 1, 0])
    }

    /// Bytes asked for; what overflows is taken as too much to be served.
    #[inline(always)]
    pub fn size(&self, function: Function) -> u64 {
        product(self.get(function.0 >> 24), self.get(function.0 >> 16))
    }

    /// The block handed in, or where a block is to be stored.
    #[inline(always)]
    pub fn block(&self, function: Function) -> u64 {
        self.get(function.0 >> 32)
    }

    #[inline(always)]
    fn get(&self, index: u64) -> u64 {
        // SAFETY: eight elements. The mask is hidden from the compiler, which would do the check in another register
        // than the one that the verifier sees used.
        unsafe { core::ptr::read_volatile(self.0.as_ptr().add(opaque(index & 7) as usize & 7)) }
    }
}

/// `a * b`, or the largest number if that overflows: such a call returns no memory.
#[inline(always)]
fn product(a: u64, b: u64) -> u64 {
    // Where both factors fit 32 bits, which is nearly always, no division is needed. The quotient is hidden from the
    // compiler, which would make a 128-bit product of it that BPF does not have.
    if (a | b) >> 32 == 0 || a == 0 || b <= opaque(u64::MAX / a) { a.wrapping_mul(b) } else { u64::MAX }
}
