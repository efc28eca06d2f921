//! Uprobe sessions (kernel 6.13): one program runs at a function's entry and at its return, and the kernel carries eight
//! bytes from the one to the other.

use core::ffi::c_void;

use crate::{
    account::Drawn,
    control::MAX_INTERVALS,
    records::{KFUNC_SESSION_COOKIE, KFUNC_SESSION_IS_RETURN},
};

/// What the kernel carries from a session's entry to its return: the size in the low 35 bits, the number of the interval that
/// it was drawn at in the next 5, the time of the entry in units of 1,024 ns in the high 24. A call that does not fit waits in
/// `PENDING`.
#[derive(Clone, Copy)]
pub struct Carried(pub u64);

impl Carried {
    /// Nothing: the call waits in `PENDING`.
    pub const NOTHING: Self = Self(u64::MAX);
    const SIZE_BITS: u32 = 35;
    const TIME_SHIFT: u32 = 40;
    const UNIT_SHIFT: u32 = 10;

    #[inline(always)]
    pub fn pack(drawn: Drawn, now: u64) -> Self {
        if drawn.size >> Self::SIZE_BITS != 0 {
            return Self::NOTHING;
        }
        Self(drawn.size | drawn.interval << Self::SIZE_BITS | now >> Self::UNIT_SHIFT << Self::TIME_SHIFT)
    }

    #[inline(always)]
    pub fn drawn(self) -> Drawn {
        Drawn {
            size: self.0 & ((1 << Self::SIZE_BITS) - 1),
            interval: self.0 >> Self::SIZE_BITS & (MAX_INTERVALS as u64 - 1),
        }
    }

    /// The time of the entry, rounded down to a unit; `now` resolves the missing high bits. A call longer than 17
    /// seconds is taken to have begun later than it did.
    #[inline(always)]
    pub fn entered(self, now: u64) -> u64 {
        let elapsed = ((now >> Self::UNIT_SHIFT << Self::TIME_SHIFT)
            .wrapping_sub(self.0 & !((1 << Self::TIME_SHIFT) - 1)))
            >> Self::TIME_SHIFT;
        (now >> Self::UNIT_SHIFT).wrapping_sub(elapsed) << Self::UNIT_SHIFT
    }
}

/// A session's answer at the entry: run again at the return.
pub const RUN_AT_RETURN: u32 = 0;
/// A session's answer at the entry: this call is of no interest.
pub const SKIP_RETURN: u32 = 1;

/// Where the kernel keeps eight bytes from a session's entry to its return (`bpf_session_cookie`). The loader turns
/// the placeholder call into a call of the kernel function.
#[inline(always)]
pub fn session_cookie(ctx: *mut c_void) -> *mut u64 {
    let call: extern "C" fn(*mut c_void) -> *mut u64 =
        // SAFETY: not an address but the number of a call, as every BPF helper is written.
        unsafe { core::mem::transmute(KFUNC_SESSION_COOKIE as usize) };
    call(ctx)
}

/// Whether a session program runs at the return (`bpf_session_is_return`).
#[inline(always)]
pub fn session_is_return(ctx: *mut c_void) -> bool {
    let call: extern "C" fn(*mut c_void) -> bool =
        // SAFETY: as above.
        unsafe { core::mem::transmute(KFUNC_SESSION_IS_RETURN as usize) };
    call(ctx)
}
