//! The finder on our own process, on the allocators that this machine has, and on programs built for the purpose.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use object::{LittleEndian as LE, elf::STT_FUNC, read::elf::ElfFile64};

use super::*;
use crate::target::{elf::read_headers, placement::place};

fn module(path: &Path) -> Arc<Module> {
    let content = Content::File(File::open(path).unwrap());
    let headers = read_headers(|offset, length| content.bytes_at(offset, length)).unwrap();
    let path = path.to_owned();
    Arc::new(Module { path, content, build_id: headers.build_id, segments: headers.segments, deleted: false })
}

/// Compiles C with the compiler that links our own tests.
fn compile(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let stem = std::env::temp_dir().join(format!("heapscope-{name}-{}", std::process::id()));
    let c = stem.with_extension("c");
    fs::write(&c, source).unwrap();
    let status =
        Command::new("cc").args(["-O1", "-fno-builtin", "-w", "-o"]).arg(&stem).args(flags).arg(&c).status();
    fs::remove_file(c).unwrap();
    assert!(status.unwrap().success(), "{name} does not compile");
    stem
}

/// What is found in a file compiled from this source. The file is gone afterwards, the module holds it.
fn find_in_compiled(name: &str, source: &str, flags: &[&str]) -> Vec<Allocator> {
    let path = compile(name, source, flags);
    let module = module(&path);
    fs::remove_file(path).unwrap();
    find_in(&module).unwrap()
}

fn names(allocator: &Allocator) -> Vec<&str> {
    allocator.functions.iter().map(|function| function.name.as_str()).collect()
}

#[test]
fn our_own_malloc_is_where_the_dynamic_loader_says() {
    let us = Process::open(std::process::id()).unwrap();
    let (maps, mut modules) = (Maps::read(&us).unwrap(), ModuleCache::default());
    let allocators = find(&us, &maps, &mut modules).unwrap();
    assert!(allocators.unsearched.is_empty(), "{:?}", allocators.unsearched);
    // The dynamic loader and libgcc_s are mapped too, and are none.
    let [libc] = allocators.found.as_slice() else { panic!("{:?}", allocators.found) };
    let mapping = maps.executable().find(|mapping| mapping.path() == Some(&libc.module.path)).unwrap();
    let bias = libc.module.bias(mapping).unwrap();
    let resolved: [(&str, *const (), Call); 7] = [
        ("malloc", libc::malloc as *const (), names::MALLOC),
        ("calloc", libc::calloc as *const (), names::CALLOC),
        ("realloc", libc::realloc as *const (), names::REALLOC),
        ("memalign", libc::memalign as *const (), names::MEMALIGN),
        ("aligned_alloc", libc::aligned_alloc as *const (), names::MEMALIGN),
        ("posix_memalign", libc::posix_memalign as *const (), names::POSIX_MEMALIGN),
        ("free", libc::free as *const (), names::FREE),
    ];
    for (name, address, call) in resolved {
        let svma = Svma((address as u64).wrapping_sub(bias));
        let function = libc.functions.iter().find(|function| function.entry == svma).unwrap_or_else(|| {
            assert!(libc.wrappers.iter().any(|wrapper| wrapper == name), "{name} is not found");
            &libc.functions[0]
        });
        let all_names = || function.aliases.iter().chain([&function.name]).chain(&libc.wrappers);
        assert!(all_names().any(|n| n == name), "{name}: {function:?}");
        assert!(function.call == call || libc.wrappers.iter().any(|wrapper| wrapper == name));
    }
    let entries: HashSet<_> = libc.functions.iter().map(|function| function.entry).collect();
    assert_eq!(entries.len(), libc.functions.len(), "one function for each address");
    if libc.name == "glibc" {
        assert_eq!(libc.functions[0].name, "malloc");
        assert!(names(libc).contains(&"realloc"), "its jump to malloc does not make it a wrapper");
        assert_eq!(libc.wrappers, ["reallocarray"]);
    }
}

/// Every function that a library exports and that we know is probed, an alias of one that is, or a wrapper.
#[test]
fn nothing_that_an_installed_allocator_exports_is_forgotten() {
    let candidates = [
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "glibc"),
        ("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "jemalloc"),
        ("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4", "tcmalloc"),
        ("/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0", "mimalloc"),
        ("/usr/lib/x86_64-linux-musl/libc.so", "musl"),
    ];
    for (path, name) in candidates {
        if !Path::new(path).exists() {
            eprintln!("skipped: {path} is not installed");
            continue;
        }
        let module = module(Path::new(path));
        let found = find_in(&module).unwrap();
        let [allocator] = found.as_slice() else { panic!("{path}: {found:?}") };
        assert_eq!(allocator.name, name);
        let covered = |symbol: &str| {
            let mut names = allocator.functions.iter().flat_map(|f| f.aliases.iter().chain([&f.name]));
            names.any(|n| n == symbol) || allocator.wrappers.iter().any(|w| w == symbol)
        };
        // Straight from the symbol table, without our reader.
        let data = module.data().unwrap();
        let file = ElfFile64::<LE>::parse(&*data).unwrap();
        let table = file.elf_dynamic_symbol_table();
        let vocabulary = Vocabulary::new();
        let exported =
            table.iter().filter(|symbol| symbol.st_type() == STT_FUNC && symbol.st_value.get(LE) != 0);
        let exported = exported.filter_map(|s| std::str::from_utf8(table.symbol_name(LE, s).ok()?).ok());
        let mut count = 0;
        for symbol in exported.filter(|symbol| vocabulary.get(symbol).is_some()) {
            // Aliases of a wrapper go with it: every wrapper's own name is listed.
            let is_alias_of_wrapper = || same_address_as_a_wrapper(&file, symbol, &allocator.wrappers);
            assert!(covered(symbol) || is_alias_of_wrapper(), "{path}: {symbol}");
            count += 1;
        }
        assert!(count >= 6, "{path} exports {count} known functions");
        for function in &allocator.functions {
            place(&module, function).unwrap();
        }
    }
}

fn same_address_as_a_wrapper(file: &ElfFile64<'_, LE>, symbol: &str, wrappers: &[String]) -> bool {
    let table = file.elf_dynamic_symbol_table();
    let address_of = |name: &str| {
        table.iter().find(|s| table.symbol_name(LE, s) == Ok(name.as_bytes())).map(|s| s.st_value.get(LE))
    };
    wrappers.iter().any(|wrapper| address_of(wrapper) == address_of(symbol))
}

#[test]
fn a_prefixed_allocator_is_found_beside_the_programs_own() {
    // As jemalloc in a Rust program: hidden, so that the linker makes its symbols local.
    let source = r#"
        #define HIDDEN __attribute__((visibility("hidden"), noinline))
        char heap[100]; long used, own;
        HIDDEN void *_rjem_malloc(long n) { used += n; return heap + used; }
        HIDDEN void _rjem_free(void *p) { used = 0; }
        HIDDEN void *_rjem_mallocx(long n, int flags) { return _rjem_malloc(n); }
        HIDDEN void *je_malloc(long n) { used += n; return heap; }
        void *malloc(long n) { own += n; return heap + own; }
        void free(void *p) { own = 0; }
        void *_Znwm(long n) { own += n; return heap; }
        void *keep[] = { _rjem_malloc, _rjem_free, _rjem_mallocx, je_malloc };
    "#;
    let found = find_in_compiled("prefixed", source, &["-shared", "-fPIC"]);
    let [own, jemalloc] = found.as_slice() else { panic!("{found:?}") };
    assert!(own.name.starts_with("heapscope-prefixed"), "{}", own.name);
    assert_eq!(names(own), ["malloc", "free", "_Znwm"]);
    assert_eq!((jemalloc.name.as_str(), names(jemalloc)), ("jemalloc", vec!["_rjem_malloc", "_rjem_free"]));
    assert_eq!(jemalloc.wrappers, ["_rjem_mallocx"]);
}

#[test]
fn what_only_has_the_names_is_no_allocator() {
    let both = "void *malloc(long n) { return (void *)n; } void free(void *p) {}";
    let flags = ["-shared", "-fPIC"];
    assert_eq!(find_in_compiled("both", both, &flags).len(), 1);
    let cases = [
        ("half", "void *malloc(long n) { return 0; }".to_owned()),
        (
            "local",
            format!(
                "static {} void *keep[] = {{ malloc, free }};",
                both.replace("void free", "static void free")
            ),
        ),
        ("data", "long malloc = 1, free = 2;".to_owned()),
        ("imported", "void *malloc(long); void free(void *); void f(void) { free(malloc(1)); }".to_owned()),
        (
            "ifunc",
            "void *m(long n) { return 0; } void *(*r(void))(long) { return m; }
             void *malloc(long) __attribute__((ifunc(\"r\"))); void free(void *p) {}"
                .to_owned(),
        ),
        ("loader", format!("{both} long _rtld_global = 1;")),
    ];
    for (name, source) in cases {
        let found = find_in_compiled(name, &source, &flags);
        assert!(found.is_empty(), "{name}: {found:?}");
    }
}

#[test]
fn a_function_without_size_ends_where_the_next_begins() {
    let source = r#"asm(".globl malloc, free\n.type malloc, @function\n.type free, @function\n"
                        "malloc: push %rbx\nmov %rdi, %rax\npop %rbx\nret\n free: test %rdi, %rdi\nret\n");"#;
    let found = find_in_compiled("unsized", source, &["-shared", "-fPIC", "-nostdlib"]);
    let sizes: Vec<_> = found[0].functions.iter().map(|f| (f.name.as_str(), f.size)).collect();
    assert_eq!(sizes, [("malloc", 6), ("free", UNKNOWN_SIZE)]);
}

/// A process with this program, told by its output to be running; killed at the end.
fn find_in_process(program: &Path) -> Result<Allocators, TargetError> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let process = Process::open(child.id()).unwrap();
    let result = find(&process, &Maps::read(&process).unwrap(), &mut ModuleCache::default());
    child.kill().unwrap();
    child.wait().unwrap();
    result
}

#[test]
fn static_programs_are_found_or_refused_for_their_lack_of_symbols() {
    let source = "#include <unistd.h>\n#include <stdlib.h>\n
        int main(void) { char *p = malloc(9); write(1, \"x\", 1); read(0, p, 1); free(p); return 0; }";
    for flags in [&["-static"][..], &["-static-pie", "-fPIE"]] {
        let with_symbols = compile("static", source, flags);
        let found = find_in_process(&with_symbols).unwrap().found;
        assert_eq!((found.len(), found[0].name.as_str()), (1, "glibc"));
        assert!(["malloc", "calloc", "realloc", "free"].iter().all(|name| names(&found[0]).contains(name)));
        assert!(found[0].functions.iter().all(|function| place(&found[0].module, function).is_ok()));
        fs::remove_file(with_symbols).unwrap();
    }

    let stripped = compile("stripped", source, &["-static", "-s"]);
    let refused = find_in_process(&stripped).unwrap_err();
    assert!(
        matches!(&refused, TargetError::StaticWithoutSymbols { exe, .. } if *exe == stripped),
        "{refused}"
    );

    // A program that asks the kernel itself: symbols, but no malloc.
    let bare = "void _start(void) { char x; long r; for (;;) {
        asm volatile(\"syscall\" : \"=a\"(r) : \"a\"(1), \"D\"(1), \"S\"(&x), \"d\"(1) : \"rcx\", \"r11\", \"memory\");
        asm volatile(\"syscall\" : \"=a\"(r) : \"a\"(0), \"D\"(0), \"S\"(&x), \"d\"(1) : \"rcx\", \"r11\", \"memory\"); } }";
    let bare = compile("bare", bare, &["-static", "-nostdlib"]);
    let refused = find_in_process(&bare).unwrap_err();
    assert!(matches!(refused, TargetError::NoAllocator { .. }), "{refused}");
    for program in [stripped, bare] {
        fs::remove_file(program).unwrap();
    }
}

#[test]
fn damaged_symbol_tables_never_panic() {
    let path =
        compile("damage", "void *malloc(long n) { return 0; } void free(void *p) {}", &["-shared", "-fPIC"]);
    let original = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    let step = original.len() / 3000 + 1;
    let mut refused = 0;
    for (at, value) in (0..original.len()).step_by(step).flat_map(|at| [(at, 0xff), (at, 0x80), (at, 1)]) {
        let mut bytes = original.clone();
        bytes[at] = value;
        let content = Content::Memory(bytes.clone().into());
        let Ok(headers) = read_headers(|offset, length| content.bytes_at(offset, length)) else { continue };
        let file = memory_file(&bytes);
        let (path, content) = (PathBuf::from("damaged"), Content::File(file));
        let module = Module { path, content, build_id: None, segments: headers.segments, deleted: false };
        let module = Arc::new(module);
        match find_in(&module) {
            Ok(found) => found.iter().flat_map(|a| &a.functions).for_each(|f| drop(place(&module, f))),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0, "the damage reached the symbol tables");
}

fn memory_file(bytes: &[u8]) -> File {
    use std::io::Write;
    let mut file = File::from(rustix::fs::memfd_create("damaged", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file
}
