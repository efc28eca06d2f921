//! The names by which programs reach their allocators, and what each function does with its arguments.

use std::collections::HashMap;

use profiler_common::records::CallKind::{
    self, Calloc, Free, Malloc, Memalign, PosixMemalign, Realloc, Reallocarray,
};

/// C11, C23, POSIX and what the C libraries add. Found with every prefix.
const C_FUNCTIONS: &[(&str, CallKind)] = &[
    ("malloc", Malloc),
    ("calloc", Calloc),
    ("realloc", Realloc),
    ("reallocarray", Reallocarray),
    ("memalign", Memalign),
    ("aligned_alloc", Memalign),
    ("posix_memalign", PosixMemalign),
    ("valloc", Malloc),
    ("pvalloc", Malloc),
    ("free", Free),
    ("cfree", Free),
    ("free_sized", Free),
    ("free_aligned_sized", Free),
];

/// jemalloc(3). xallocx, which resizes without a new block, has no place among the kinds of calls.
const JEMALLOC_FUNCTIONS: &[(&str, CallKind)] =
    &[("mallocx", Malloc), ("rallocx", Realloc), ("dallocx", Free), ("sdallocx", Free)];

/// mimalloc.h. In each, the arguments that follow those of the kind are an alignment, an offset or a size.
const MIMALLOC_FUNCTIONS: &[(&str, CallKind)] = &[
    ("zalloc", Malloc),
    ("malloc_small", Malloc),
    ("zalloc_small", Malloc),
    ("malloc_aligned", Malloc),
    ("malloc_aligned_at", Malloc),
    ("zalloc_aligned", Malloc),
    ("zalloc_aligned_at", Malloc),
    ("mallocn", Calloc),
    ("calloc_aligned", Calloc),
    ("calloc_aligned_at", Calloc),
    ("realloc_aligned", Realloc),
    ("realloc_aligned_at", Realloc),
    ("reallocf", Realloc),
    ("rezalloc", Realloc),
    ("reallocn", Reallocarray),
    ("recalloc", Reallocarray),
    ("new", Malloc),
    ("new_nothrow", Malloc),
    ("new_aligned", Malloc),
    ("new_aligned_nothrow", Malloc),
    ("new_n", Calloc),
    ("new_realloc", Realloc),
    ("new_reallocn", Reallocarray),
    ("free_size", Free),
    ("free_aligned", Free),
    ("free_size_aligned", Free),
];

/// The replaceable operators new and delete of C++17 in the Itanium ABI's mangling; the size comes first in each.
const CPP_OPERATORS: &[(&str, CallKind)] = &[
    ("_Znwm", Malloc),
    ("_Znam", Malloc),
    ("_ZnwmRKSt9nothrow_t", Malloc),
    ("_ZnamRKSt9nothrow_t", Malloc),
    ("_ZnwmSt11align_val_t", Malloc),
    ("_ZnamSt11align_val_t", Malloc),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", Malloc),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", Malloc),
    ("_ZdlPv", Free),
    ("_ZdaPv", Free),
    ("_ZdlPvm", Free),
    ("_ZdaPvm", Free),
    ("_ZdlPvRKSt9nothrow_t", Free),
    ("_ZdaPvRKSt9nothrow_t", Free),
    ("_ZdlPvSt11align_val_t", Free),
    ("_ZdaPvSt11align_val_t", Free),
    ("_ZdlPvmSt11align_val_t", Free),
    ("_ZdaPvmSt11align_val_t", Free),
    ("_ZdlPvSt11align_val_tRKSt9nothrow_t", Free),
    ("_ZdaPvSt11align_val_tRKSt9nothrow_t", Free),
];

/// Names with a common prefix, which allocators are built with so that they do not replace the C library's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Family {
    /// No prefix: the process's own malloc.
    Plain,
    /// `je_`: jemalloc, configured with its usual prefix.
    Je,
    /// `_rjem_`: jemalloc as Rust's bindings build it.
    RustJe,
    /// `tc_`: gperftools.
    Tc,
    /// `mi_`: mimalloc, also as Rust's bindings build it.
    Mi,
}

impl Family {
    /// Every family; the plain one first, to which the others' functions are added where they are the same.
    pub(super) const ALL: [Self; 5] = [Self::Plain, Self::Je, Self::RustJe, Self::Tc, Self::Mi];

    /// What comes before each name.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Je => "je_",
            Self::RustJe => "_rjem_",
            Self::Tc => "tc_",
            Self::Mi => "mi_",
        }
    }

    /// The allocator that the prefix stands for.
    pub(super) const fn allocator(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Je | Self::RustJe => Some("jemalloc"),
            Self::Tc => Some("tcmalloc"),
            Self::Mi => Some("mimalloc"),
        }
    }

    fn functions(self) -> impl Iterator<Item = (&'static str, CallKind)> {
        let own: [&[_]; 2] = match self {
            Self::Plain => [JEMALLOC_FUNCTIONS, CPP_OPERATORS],
            Self::Je | Self::RustJe => [JEMALLOC_FUNCTIONS, &[]],
            Self::Tc => [&[], &[]],
            Self::Mi => [MIMALLOC_FUNCTIONS, &[]],
        };
        C_FUNCTIONS.iter().chain(own.into_iter().flatten()).copied()
    }
}

/// What is known of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Known {
    /// The family that it belongs to.
    pub(super) family: Family,
    /// Its place in the tables: of several names for one address the first is the main one.
    pub(super) order: usize,
    /// What the function does.
    pub(super) kind: CallKind,
    /// Whether it is an operator of C++.
    pub(super) is_operator: bool,
}

/// Every name, for looking up.
#[derive(Debug)]
pub(super) struct Vocabulary(HashMap<String, Known>);

impl Vocabulary {
    pub(super) fn new() -> Self {
        let mut names = HashMap::new();
        for family in Family::ALL {
            for (base, kind) in family.functions() {
                let known = Known { family, order: names.len(), kind, is_operator: base.starts_with("_Z") };
                names.insert(format!("{}{base}", family.prefix()), known);
            }
        }
        Self(names)
    }

    pub(super) fn get(&self, name: &str) -> Option<Known> {
        self.0.get(name).copied()
    }
}

/// An allocator told by a symbol that only it defines; the first that is defined decides.
pub(super) const MARKERS: &[(&str, &str)] = &[
    ("mallctl", "jemalloc"),
    ("tc_malloc", "tcmalloc"),
    ("mi_malloc", "mimalloc"),
    // Its dynamic loader's third stage, and its malloc within.
    ("__dls3", "musl"),
    ("__libc_malloc_impl", "musl"),
    ("gnu_get_libc_version", "glibc"),
    (GLIBC_MALLOC, "glibc"),
];

/// The other name of glibc's malloc, by which it is told from a local function that happens to be called `malloc`.
pub(super) const GLIBC_MALLOC: &str = "__libc_malloc";

/// A symbol that only glibc's dynamic loader defines. Up to glibc 2.30 it exports a malloc of its own, which is used
/// until libc is there; musl's loader is its libc and has no such symbol.
pub(super) const LOADER_MARKER: &str = "_rtld_global";
