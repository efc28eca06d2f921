//! What can be wrong with a file, and what can run out.

use thiserror::Error;

/// Why a file yields no rows. The module stays without a table: the walker then guesses by frame pointers there.
#[derive(Debug, Error)]
pub enum UnwindError {
    /// The headers do not describe a 64-bit little-endian ELF file.
    #[error("not a readable 64-bit ELF file ({0}); frames in it are guessed by frame pointers")]
    NotElf(#[from] object::Error),
    /// Another processor's code.
    #[error("ELF machine {machine}, where only x86-64 (62) can be unwound; frames in it are guessed")]
    WrongMachine {
        /// `e_machine`.
        machine: u16,
    },
    /// There is nothing that a call could return to.
    #[error("the file has no executable segment, so that no frame can lie in it")]
    NoText,
    /// Compiled without unwind tables, or they were stripped.
    #[error(
        "neither .eh_frame nor .debug_frame was found; build with -fasynchronous-unwind-tables or with frame \
         pointers for true stacks"
    )]
    NoUnwindInformation,
    /// There is call frame information, and it cannot be decompressed.
    #[error(
        "the only call frame information is compressed, and damaged, by an unknown method or of more than {limit} \
         bytes; decompress it with objcopy --decompress-debug-sections"
    )]
    Compressed {
        /// Bytes that a section may have, decompressed.
        limit: u64,
    },
}

/// Which capacity of the process's tables a module would exceed. The module stays without a table, those before it are
/// not touched.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum TableFull {
    /// Its rows do not fit.
    #[error("the module's unwind rows need more than the {limit} chunks there are")]
    Chunks {
        /// Chunks that the tables may have.
        limit: u32,
    },
    /// Its text, from first to last executable byte, does not fit.
    #[error("the module's text needs {needed} pages, {free} of {limit} are free")]
    Pages {
        /// Pages that the module needs.
        needed: u64,
        /// Pages that no module has taken.
        free: u32,
        /// Pages that the tables may have.
        limit: u32,
    },
}
