//! Addresses that carry their space in their type, so that none is used for another.

use std::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// Actual virtual memory address: as the target sees it, while it runs.
    Avma
}
address! {
    /// Stated virtual memory address: as the ELF file's program headers and symbols state it.
    Svma
}
address! {
    /// Offset in a file, in bytes.
    FileOffset
}
address! {
    /// Address of a heap block, as the allocator returned it.
    BlockAddr
}
