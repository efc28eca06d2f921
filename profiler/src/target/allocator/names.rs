//! The names by which programs reach their allocators, and what each function does with its arguments.

use std::collections::HashMap;

use profiler_common::records::{Call, CallKind};

pub(super) const MALLOC: Call = Call::allocate(0);
pub(super) const CALLOC: Call = Call::allocate(1).of_array(0);
/// The alignment comes first.
pub(super) const MEMALIGN: Call = Call::allocate(1);
pub(super) const POSIX_MEMALIGN: Call = Call::allocate_into(0, 2);
pub(super) const REALLOC: Call = Call::reallocate(0, 1);
pub(super) const REALLOCARRAY: Call = Call::reallocate(0, 2).of_array(1);
const REALLOCF: Call = REALLOC.but(CallKind::ReallocateOrFree);
pub(super) const FREE: Call = Call::free(0);

/// C11, C23, POSIX and what the C libraries add. Found with every prefix.
const C_FUNCTIONS: &[(&str, Call)] = &[
    ("malloc", MALLOC),
    ("calloc", CALLOC),
    ("realloc", REALLOC),
    ("reallocarray", REALLOCARRAY),
    ("reallocf", REALLOCF),
    ("memalign", MEMALIGN),
    ("aligned_alloc", MEMALIGN),
    ("posix_memalign", POSIX_MEMALIGN),
    ("valloc", MALLOC),
    ("pvalloc", MALLOC),
    ("free", FREE),
    ("cfree", FREE),
    ("free_sized", FREE),
    ("free_aligned_sized", FREE),
];

/// jemalloc(3).
const JEMALLOC_FUNCTIONS: &[(&str, Call)] = &[
    ("mallocx", MALLOC),
    ("rallocx", REALLOC),
    ("xallocx", REALLOC.but(CallKind::Resize)),
    ("dallocx", FREE),
    ("sdallocx", FREE),
];

/// gperftools/tcmalloc.h: the operators of C++ by names for C.
const TCMALLOC_FUNCTIONS: &[(&str, Call)] = &[
    ("malloc_skip_new_handler", MALLOC),
    ("new", MALLOC),
    ("new_nothrow", MALLOC),
    ("new_aligned", MALLOC),
    ("new_aligned_nothrow", MALLOC),
    ("newarray", MALLOC),
    ("newarray_nothrow", MALLOC),
    ("newarray_aligned", MALLOC),
    ("newarray_aligned_nothrow", MALLOC),
    ("delete", FREE),
    ("delete_nothrow", FREE),
    ("delete_sized", FREE),
    ("delete_aligned", FREE),
    ("delete_aligned_nothrow", FREE),
    ("delete_sized_aligned", FREE),
    ("deletearray", FREE),
    ("deletearray_nothrow", FREE),
    ("deletearray_sized", FREE),
    ("deletearray_aligned", FREE),
    ("deletearray_aligned_nothrow", FREE),
    ("deletearray_sized_aligned", FREE),
];

/// mimalloc.h. Arguments that a call does not name are an alignment, an offset or a size.
const MIMALLOC_FUNCTIONS: &[(&str, Call)] = &[
    ("zalloc", MALLOC),
    ("malloc_small", MALLOC),
    ("zalloc_small", MALLOC),
    ("malloc_aligned", MALLOC),
    ("malloc_aligned_at", MALLOC),
    ("zalloc_aligned", MALLOC),
    ("zalloc_aligned_at", MALLOC),
    ("mallocn", CALLOC),
    ("calloc_aligned", CALLOC),
    ("calloc_aligned_at", CALLOC),
    ("realloc_aligned", REALLOC),
    ("realloc_aligned_at", REALLOC),
    ("rezalloc", REALLOC),
    ("rezalloc_aligned", REALLOC),
    ("rezalloc_aligned_at", REALLOC),
    ("reallocn", REALLOCARRAY),
    ("recalloc", REALLOCARRAY),
    ("recalloc_aligned", REALLOCARRAY),
    ("recalloc_aligned_at", REALLOCARRAY),
    // Returns the block where it was, or nothing.
    ("expand", REALLOC),
    ("new", MALLOC),
    ("new_nothrow", MALLOC),
    ("new_aligned", MALLOC),
    ("new_aligned_nothrow", MALLOC),
    ("new_n", CALLOC),
    ("new_realloc", REALLOC),
    ("new_reallocn", REALLOCARRAY),
    ("free_size", FREE),
    ("free_aligned", FREE),
    ("free_size_aligned", FREE),
    ("heap_malloc", HEAP_MALLOC),
    ("heap_malloc_small", HEAP_MALLOC),
    ("heap_malloc_aligned", HEAP_MALLOC),
    ("heap_malloc_aligned_at", HEAP_MALLOC),
    ("heap_zalloc", HEAP_MALLOC),
    ("heap_zalloc_aligned", HEAP_MALLOC),
    ("heap_zalloc_aligned_at", HEAP_MALLOC),
    ("heap_alloc_new", HEAP_MALLOC),
    ("heap_calloc", HEAP_CALLOC),
    ("heap_mallocn", HEAP_CALLOC),
    ("heap_calloc_aligned", HEAP_CALLOC),
    ("heap_calloc_aligned_at", HEAP_CALLOC),
    ("heap_alloc_new_n", HEAP_CALLOC),
    ("heap_realloc", HEAP_REALLOC),
    ("heap_reallocf", HEAP_REALLOC.but(CallKind::ReallocateOrFree)),
    ("heap_realloc_aligned", HEAP_REALLOC),
    ("heap_realloc_aligned_at", HEAP_REALLOC),
    ("heap_rezalloc", HEAP_REALLOC),
    ("heap_rezalloc_aligned", HEAP_REALLOC),
    ("heap_rezalloc_aligned_at", HEAP_REALLOC),
    ("heap_reallocn", HEAP_REALLOCARRAY),
    ("heap_recalloc", HEAP_REALLOCARRAY),
    ("heap_recalloc_aligned", HEAP_REALLOCARRAY),
    ("heap_recalloc_aligned_at", HEAP_REALLOCARRAY),
];
/// A heap comes first in these.
const HEAP_MALLOC: Call = Call::allocate(1);
const HEAP_CALLOC: Call = Call::allocate(2).of_array(1);
const HEAP_REALLOC: Call = Call::reallocate(1, 2);
const HEAP_REALLOCARRAY: Call = Call::reallocate(1, 3).of_array(2);

/// What snmalloc offers to Rust: the alignment comes before the size, the block before both.
const SNMALLOC_FUNCTIONS: &[(&str, Call)] = &[
    ("alloc", MEMALIGN),
    ("alloc_zeroed", MEMALIGN),
    ("realloc", Call::reallocate(0, 3)),
    ("dealloc", FREE),
];

/// The replaceable operators new and delete of C++17 in the Itanium ABI's mangling; the size comes first in each.
const CPP_OPERATORS: &[(&str, Call)] = &[
    ("_Znwm", MALLOC),
    ("_Znam", MALLOC),
    ("_ZnwmRKSt9nothrow_t", MALLOC),
    ("_ZnamRKSt9nothrow_t", MALLOC),
    ("_ZnwmSt11align_val_t", MALLOC),
    ("_ZnamSt11align_val_t", MALLOC),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", MALLOC),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", MALLOC),
    ("_ZdlPv", FREE),
    ("_ZdaPv", FREE),
    ("_ZdlPvm", FREE),
    ("_ZdaPvm", FREE),
    ("_ZdlPvRKSt9nothrow_t", FREE),
    ("_ZdaPvRKSt9nothrow_t", FREE),
    ("_ZdlPvSt11align_val_t", FREE),
    ("_ZdaPvSt11align_val_t", FREE),
    ("_ZdlPvmSt11align_val_t", FREE),
    ("_ZdaPvmSt11align_val_t", FREE),
    ("_ZdlPvSt11align_val_tRKSt9nothrow_t", FREE),
    ("_ZdaPvSt11align_val_tRKSt9nothrow_t", FREE),
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
    /// `sn_rust_`: snmalloc, as Rust's bindings build it.
    Sn,
}

impl Family {
    /// Every family; the plain one first, to which the others' functions are added where they are the same.
    pub(super) const ALL: [Self; 6] = [Self::Plain, Self::Je, Self::RustJe, Self::Tc, Self::Mi, Self::Sn];

    /// What comes before each name.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Je => "je_",
            Self::RustJe => "_rjem_",
            Self::Tc => "tc_",
            Self::Mi => "mi_",
            Self::Sn => "sn_rust_",
        }
    }

    /// The allocator that the prefix stands for.
    pub(super) const fn allocator(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Je | Self::RustJe => Some("jemalloc"),
            Self::Tc => Some("tcmalloc"),
            Self::Mi => Some("mimalloc"),
            Self::Sn => Some("snmalloc"),
        }
    }

    fn functions(self) -> impl Iterator<Item = (&'static str, Call)> {
        let tables: &[&[_]] = match self {
            Self::Plain => &[C_FUNCTIONS, JEMALLOC_FUNCTIONS, CPP_OPERATORS],
            Self::Je | Self::RustJe => &[C_FUNCTIONS, JEMALLOC_FUNCTIONS],
            Self::Tc => &[C_FUNCTIONS, TCMALLOC_FUNCTIONS],
            Self::Mi => &[C_FUNCTIONS, MIMALLOC_FUNCTIONS],
            Self::Sn => &[SNMALLOC_FUNCTIONS],
        };
        tables.iter().copied().flatten().copied()
    }
}

/// What is known of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Known {
    /// The family that it belongs to.
    pub(super) family: Family,
    /// Its place in the tables: of several names for one address the first is the main one.
    pub(super) order: usize,
    /// What the function does with its arguments.
    pub(super) call: Call,
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
            for (base, call) in family.functions() {
                let known = Known { family, order: names.len(), call, is_operator: base.starts_with("_Z") };
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
