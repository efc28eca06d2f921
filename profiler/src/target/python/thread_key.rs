//! Under which key of the C library an interpreter keeps the state of each of its threads.

use iced_x86::{Decoder, DecoderOptions, MemorySize, Mnemonic, OpKind, Register};

use super::{code::Memory, layout::Version};
use crate::target::{address::Svma, module::Module};

/// Bytes of `PyGILState_GetThisThreadState` that are looked at.
const REACH: usize = 64;

/// Where the key lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ThreadKey {
    /// A `Py_tss_t` (`Include/pythread.h`): whether it was made, and the key.
    Checked(Svma),
    /// A number, -1 before it is made: `autoTLSkey` of `Python/pystate.c`, to 3.6.
    Plain(Svma),
}

impl ThreadKey {
    /// In `_PyRuntime`, which lies at this stated address.
    pub(super) fn in_runtime(runtime: u64, version: Version) -> Option<Self> {
        Some(Self::Checked(Svma(runtime.checked_add(version.tss_key()?)?)))
    }

    /// The number that a function with this stated address asks the C library with: the first of four bytes that it reads.
    pub(super) fn asked_by(module: &Module, function: u64) -> Option<Self> {
        let offset = module.file_offset_of(Svma(function))?;
        let length = usize::try_from(module.bytes_from(Svma(function))).unwrap_or(usize::MAX).min(REACH);
        let code = module.bytes_at(offset, length).ok()?;
        let mut decoder = Decoder::with_ip(64, &code, function, DecoderOptions::NONE).into_iter();
        let load = decoder.find(|i| {
            i.mnemonic() == Mnemonic::Mov
                && i.op0_kind() == OpKind::Register
                && i.memory_base() == Register::RIP
                && matches!(i.memory_size(), MemorySize::UInt32 | MemorySize::Int32)
        })?;
        Some(Self::Plain(Svma(load.ip_rel_memory_address())))
    }

    /// The key; `Ok(None)` before the interpreter is initialised.
    ///
    /// # Errors
    /// A sentence without an end.
    pub(super) fn read(self, bias: u64, memory: &Memory) -> Result<Option<u32>, String> {
        let unreadable = "the interpreter's memory cannot be read";
        match self {
            Self::Checked(at) => {
                let [a, b, c, d, key @ ..]: [u8; 8] =
                    memory.array(bias.wrapping_add(at.0)).ok_or(unreadable)?;
                let is_made = u32::from_le_bytes([a, b, c, d]) != 0;
                Ok(is_made.then_some(u32::from_le_bytes(key)))
            }
            Self::Plain(at) => {
                let key = u32::from_le_bytes(memory.array(bias.wrapping_add(at.0)).ok_or(unreadable)?);
                Ok(Some(key).filter(|key| *key != u32::MAX))
            }
        }
    }
}
