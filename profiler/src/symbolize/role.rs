//! What part a frame plays, told from its module's path and its function's name.
//!
//! The names are those of the allocators, run-time libraries and language runtimes that come with distributions. A
//! program's own wrappers (`xmalloc`, `my_alloc`) are not allocator frames: they are the program.

use super::frame::FrameRole;

/// The role of the frame that runs `function` of `module`; `program` is the path of the target's executable.
///
/// A frame without a module is code without a file: a JIT's output.
#[must_use]
pub fn role_of(module: Option<&str>, function: Option<&str>, program: Option<&str>) -> FrameRole {
    if function.is_some_and(is_allocator) {
        return FrameRole::Allocator;
    }
    let Some(module) = module else { return FrameRole::Jit };
    if is_runtime_module(module) || function.is_some_and(is_runtime_function) {
        FrameRole::Runtime
    } else if program.is_some_and(|program| without_deleted(program) == without_deleted(module)) {
        FrameRole::Program
    } else {
        FrameRole::Library
    }
}

/// The kernel appends this to the path of a file that is gone (fs/d_path.c, `prepend_path`).
fn without_deleted(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// A C name without what the compiler appended to its copies (`.cold`, `.part.0`, `.constprop.0`).
fn c_name(function: &str) -> &str {
    function.split_once('.').map_or(function, |(name, _)| name)
}

/// The functions of the C standard (and their old companions) that hand out memory or take it back.
const C_ALLOCATORS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "reallocf",
    "free",
    "cfree",
    "free_sized",
    "free_aligned_sized",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "mallocx",
    "rallocx",
    "xallocx",
    "dallocx",
    "sdallocx",
];

/// Prefixes under which allocators and sanitizers export the same functions.
const C_PREFIXES: &[&str] = &[
    "__GI___libc_",
    "__libc_",
    "__GI___",
    "__GI_",
    "__interceptor_",
    "__",
    "_rjem_je_",
    "_rjem_",
    "je_",
    "tc_",
];

/// What lies inside glibc's malloc, jemalloc, tcmalloc and CPython's object allocator.
const ALLOCATOR_INTERNALS: &[&str] = &[
    "_int_malloc",
    "_int_realloc",
    "_int_memalign",
    "_int_free",
    "_mid_memalign",
    "sysmalloc",
    "sysmalloc_mmap",
    "malloc_hook_ini",
    "realloc_hook_ini",
    "malloc_consolidate",
    "tcache_init",
    "malloc_default",
    "imalloc_body",
    "pymalloc_alloc",
    "allocate_from_new_pool",
    "new_arena",
];

/// CPython's and GLib's layers over malloc, by the start of the name.
const WRAPPER_PREFIXES: &[&str] = &[
    "PyMem_",
    "_PyMem_",
    "PyObject_Malloc",
    "PyObject_Calloc",
    "PyObject_Realloc",
    "PyObject_Free",
    "_PyObject_Malloc",
    "_PyObject_Calloc",
    "_PyObject_Realloc",
    "_PyObject_Free",
    "_PyObject_Arena",
    "g_malloc",
    "g_try_malloc",
    "g_realloc",
    "g_try_realloc",
    "g_aligned_alloc",
    "g_slice_alloc",
];

/// The thin layers of C++ and Rust, by the start of the demangled name.
const LANGUAGE_PREFIXES: &[&str] = &[
    "operator new",
    "operator delete",
    "std::allocator<",
    "std::__new_allocator<",
    "std::allocator_traits<",
    "std::__allocator_traits",
    "__gnu_cxx::new_allocator<",
    "__gnu_cxx::__alloc_traits<",
    "__gnu_cxx::malloc_allocator<",
    "std::__1::allocator<",
    "std::__1::allocator_traits<",
    "std::__1::__libcpp_allocate",
    "alloc::alloc::",
    "<alloc::alloc::Global",
    "alloc::raw_vec::",
    "<alloc::raw_vec::",
    "std::alloc::",
    "<std::alloc::System",
    "std::sys::alloc::",
    "__rust_",
    "__rdl_",
    "__rg_",
];

fn is_allocator(function: &str) -> bool {
    let name = c_name(function);
    if C_ALLOCATORS.contains(&name) || ALLOCATOR_INTERNALS.contains(&name) {
        return true;
    }
    if C_PREFIXES.iter().any(|prefix| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            C_ALLOCATORS.contains(&rest)
                || (*prefix == "tc_" && (rest.starts_with("new") || rest.starts_with("delete")))
        })
    }) {
        return true;
    }
    if let Some(rest) = name.strip_prefix("mi_").or_else(|| name.strip_prefix("_mi_")) {
        // mimalloc: mi_malloc_small, mi_heap_zalloc_aligned, _mi_page_malloc, mi_new_n.
        return ["alloc", "free", "memalign", "new"].iter().any(|part| rest.contains(part));
    }
    // Newer Rust compilers give the allocator shims a crate: `__rustc[5224e6b81cd82a8f]::__rust_alloc`.
    let function = match function.strip_prefix("__rustc").and_then(|rest| rest.split_once("::")) {
        Some((_, shim)) => shim,
        None => function,
    };
    WRAPPER_PREFIXES.iter().chain(LANGUAGE_PREFIXES).any(|prefix| function.starts_with(prefix))
}

/// Libraries that every program has underneath, by the start of the file name.
const RUNTIME_MODULES: &[&str] = &[
    "libc.so",
    "libc-2.",
    "libc.musl-",
    "ld-linux",
    "ld-2.",
    "ld-musl-",
    "ld.so",
    "ld64.so",
    "libstdc++.so",
    "libgcc_s",
    "libpthread",
    "libm.so",
    "libm-2.",
    "librt.so",
    "librt-2.",
    "libdl.so",
    "libdl-2.",
    "libc++.so",
    "libc++abi.so",
    "libunwind.so",
    "linux-vdso",
    "linux-gate",
];

fn is_runtime_module(module: &str) -> bool {
    if matches!(module, "[vdso]" | "[vsyscall]") {
        return true;
    }
    let name = module.rsplit('/').next().unwrap_or(module);
    RUNTIME_MODULES.iter().any(|prefix| name.starts_with(prefix))
}

/// The start of a process or thread, where it is linked into the program itself.
const RUNTIME_FUNCTIONS: &[&str] = &[
    "_start",
    "__libc_start_main",
    "__libc_start_call_main",
    "__libc_csu_init",
    "start_thread",
    "clone",
    "clone3",
    "__clone",
    "__clone3",
    "_dl_start_user",
    "_init",
    "_fini",
    "__rust_begin_short_backtrace",
    "__rust_end_short_backtrace",
    "__rust_try",
];

/// The same in Rust, by the start of the demangled name.
const RUNTIME_PREFIXES: &[&str] = &[
    "std::rt::",
    "std::panicking::",
    "std::panic::",
    "std::sys::backtrace::__rust_",
    "std::sys_common::backtrace::__rust_",
    "std::sys::thread::",
    "std::sys::pal::unix::thread::",
    "std::thread::lifecycle::",
    "std::thread::Builder::spawn_",
    "core::ops::function::",
    "<core::panic::unwind_safe::AssertUnwindSafe<",
    "<alloc::boxed::Box<F,A> as core::ops::function::",
    "__libc_start_main",
];

fn is_runtime_function(function: &str) -> bool {
    RUNTIME_FUNCTIONS.contains(&c_name(function))
        || RUNTIME_PREFIXES.iter().any(|prefix| function.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXE: &str = "/srv/app/server";

    #[test]
    fn allocators() {
        for name in [
            "malloc",
            "__libc_calloc",
            "__GI___libc_malloc",
            "je_malloc",
            "_rjem_je_mallocx",
            "tc_newarray",
            "mi_heap_malloc_aligned",
            "_int_malloc",
            "_int_malloc.part.0",
            "operator new(unsigned long)",
            "operator new[](unsigned long, std::align_val_t)",
            "std::__new_allocator<int>::allocate(unsigned long, void const*)",
            "__gnu_cxx::new_allocator<char>::allocate(unsigned long, void const*)",
            "std::allocator_traits<std::allocator<int> >::allocate(std::allocator<int>&, unsigned long)",
            "alloc::alloc::exchange_malloc",
            "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
            "alloc::raw_vec::RawVecInner<A>::finish_grow",
            "__rust_alloc",
            "__rdl_realloc",
            "__rustc[5224e6b81cd82a8f]::__rust_alloc_zeroed",
            "PyMem_RawMalloc",
            "_PyObject_Malloc",
            "_PyMem_DebugRawAlloc",
            "g_malloc0",
            "g_slice_alloc",
        ] {
            assert_eq!(role_of(Some(EXE), Some(name), Some(EXE)), FrameRole::Allocator, "{name}");
        }
    }

    #[test]
    fn wrappers_of_the_program_are_the_program() {
        for name in [
            "xmalloc",
            "my_malloc",
            "malloc_stats_printer",
            "pool_alloc",
            "mi_render",
            "freeze",
            "new_session",
            "js_malloc",
            "std::vector<int, std::allocator<int> >::push_back(int&&)",
            "PyObject_Call",
            "allocate",
        ] {
            assert_eq!(role_of(Some(EXE), Some(name), Some(EXE)), FrameRole::Program, "{name}");
        }
        assert_eq!(role_of(Some("/srv/app/server (deleted)"), None, Some(EXE)), FrameRole::Program);
    }

    #[test]
    fn modules() {
        for runtime in [
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/lib/x86_64-linux-gnu/libc-2.31.so",
            "/lib64/ld-linux-x86-64.so.2",
            "/usr/lib/libstdc++.so.6.0.30",
            "/lib/libgcc_s.so.1",
            "[vdso]",
            "/lib/ld-musl-x86_64.so.1",
            "/lib/libm.so.6",
        ] {
            assert_eq!(role_of(Some(runtime), Some("qsort"), Some(EXE)), FrameRole::Runtime, "{runtime}");
        }
        for library in [
            "/usr/lib/libcrypto.so.3",
            "/usr/lib/libmysqlclient.so",
            "/usr/lib/libcurl.so.4",
            "/lib/libdlb.so",
        ] {
            assert_eq!(role_of(Some(library), Some("f"), Some(EXE)), FrameRole::Library, "{library}");
        }
        assert_eq!(role_of(Some(EXE), Some("main"), Some(EXE)), FrameRole::Program);
        assert_eq!(role_of(Some(EXE), Some("_start"), Some(EXE)), FrameRole::Runtime);
        assert_eq!(
            role_of(Some(EXE), Some("std::rt::lang_start::{{closure}}"), Some(EXE)),
            FrameRole::Runtime
        );
        assert_eq!(role_of(None, None, Some(EXE)), FrameRole::Jit);
        assert_eq!(role_of(Some(EXE), Some("main"), None), FrameRole::Library);
    }
}
