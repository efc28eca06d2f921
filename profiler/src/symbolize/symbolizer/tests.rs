//! Real programs, compiled here, named through a held file as the target's would be.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use object::{Object, ObjectSymbol};
use tempfile::TempDir;

use super::*;
use crate::{symbolize::frame::FrameRole, target::module::Content};

const C_PROGRAM: &str = r#"
#include <stdlib.h>
void *kept;
static inline __attribute__((always_inline)) void *take(size_t n) {
    return malloc(n);            /* line 5 */
}
static inline __attribute__((always_inline)) void *shelf(size_t n) {
    kept = take(n + 1);          /* line 8 */
    return kept;
}
__attribute__((noinline)) void *grow_table(size_t n) {
    void *p = shelf(n);          /* line 12 */
    ((char *)p)[0] = 1;
    return p;
}
__attribute__((noinline, noreturn)) void last_words(void) { abort(); }
int main(int argc, char **argv) { grow_table(argc); if (argc > 5) last_words(); return 0; }
"#;

const CPP_PROGRAM: &str = r#"
#include <cstdlib>
#include <string>
namespace shelf {
template <typename T> struct Store {
    __attribute__((noinline)) T *add(std::string const &name) { return (T *)std::malloc(sizeof(T) + name.size()); }
};
}
int main(int argc, char **argv) { shelf::Store<long> s; return s.add(argv[0]) != nullptr ? 0 : 1; }
"#;

fn run(dir: &Path, command: &str) {
    let status = Command::new("sh").arg("-ec").arg(command).current_dir(dir).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}

fn build(source: &str, compiler: &str, flags: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let name = if compiler == "c++" { "program.cc" } else { "program.c" };
    fs::write(dir.path().join(name), source).unwrap();
    run(dir.path(), &format!("{compiler} {flags} -o program {name}"));
    dir
}

fn module(path: &Path) -> Arc<Module> {
    let data = fs::read(path).unwrap();
    let build_id =
        object::File::parse(&*data).ok().and_then(|f| f.build_id().ok().flatten().map(<[u8]>::to_vec));
    Arc::new(Module {
        path: path.to_owned(),
        content: Content::File(File::open(path).unwrap()),
        build_id,
        segments: Vec::new(),
        deleted: false,
    })
}

/// Address range of the function whose linker symbol contains `name`.
fn function(path: &Path, name: &str) -> (u64, u64) {
    let data = fs::read(path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let symbol = file
        .symbols()
        .chain(file.dynamic_symbols())
        .find(|s| s.name().is_ok_and(|n| n.contains(name)) && s.size() > 0 && s.is_definition())
        .expect("the symbol");
    (symbol.address(), symbol.address() + symbol.size())
}

/// Where the calls in `range` return to, by the disassembler.
fn return_addresses(path: &Path, (start, end): (u64, u64)) -> Vec<u64> {
    let data = fs::read(path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let code = object::read::ObjectSection::data_range(
        &Object::section_by_name(&file, ".text").unwrap(),
        start,
        end - start,
    )
    .unwrap()
    .unwrap();
    iced_x86::Decoder::with_ip(64, code, start, 0)
        .into_iter()
        .filter(|i| i.is_call_near() || i.is_call_near_indirect())
        .map(|i| i.next_ip())
        .collect()
}

fn at(module: &Arc<Module>, svma: u64) -> CodeLocation {
    CodeLocation {
        address: 0x5555_0000_0000 + svma,
        module: Some((Arc::clone(module), Svma(svma))),
        guessed: false,
    }
}

fn symbolizer(debug_dirs: Vec<PathBuf>) -> Symbolizer {
    Symbolizer::new(SymbolizeOptions { demangle: true, debug_dirs, usual_debug_dirs: Vec::new() })
}

fn functions(frames: &[Arc<Frame>]) -> Vec<&str> {
    frames.iter().map(|f| f.function.as_deref().unwrap_or("-")).collect()
}

fn assert_inlined_chain(frames: &[Arc<Frame>]) {
    assert_eq!(functions(frames), ["take", "shelf", "grow_table"]);
    assert_eq!(frames.iter().map(|f| f.line).collect::<Vec<_>>(), [Some(5), Some(8), Some(12)]);
    assert_eq!(frames.iter().map(|f| f.inlined).collect::<Vec<_>>(), [true, true, false]);
    assert!(
        frames.iter().all(|f| f.file.as_deref().is_some_and(|f| f.ends_with("/program.c"))),
        "{frames:?}"
    );
}

#[test]
fn c_with_inlines_also_when_the_file_is_gone() {
    let dir = build(C_PROGRAM, "cc", "-g -O2");
    let path = dir.path().join("program");
    let module = module(&path);
    let call = return_addresses(&path, function(&path, "grow_table"))[0];
    let last_words = function(&path, "last_words");
    let noreturn = *return_addresses(&path, last_words).last().unwrap();
    fs::remove_file(&path).unwrap();

    let mut symbolizer = symbolizer(Vec::new());
    symbolizer.set_program(&path);
    let frames = symbolizer.frames(&at(&module, call));
    assert_inlined_chain(&frames);
    assert_eq!(frames[2].role, FrameRole::Program);
    assert_eq!(frames[0].address, 0x5555_0000_0000 + call);
    assert_eq!(frames[0].module_offset, Some(call));
    assert_eq!(symbolizer.frames(&at(&module, call)), frames, "the second answer comes from the cache");

    // The call of abort is the last instruction: its return address lies behind the function.
    assert_eq!(noreturn, last_words.1);
    assert_eq!(functions(&symbolizer.frames(&at(&module, noreturn))), ["last_words"]);
}

#[test]
fn cpp_names_are_demangled() {
    let dir = build(CPP_PROGRAM, "c++", "-g -O2");
    let path = dir.path().join("program");
    let module = module(&path);
    let (start, _) = function(&path, "_ZN5shelf5StoreIlE3add");
    let mut symbolizer = symbolizer(Vec::new());
    let frames = symbolizer.frames(&at(&module, start + 1));
    let outermost = frames.last().unwrap();
    assert!(outermost.function.as_deref().unwrap().starts_with("shelf::Store<long>::add("), "{frames:?}");
    assert_eq!(outermost.line.map(|line| (5..=6).contains(&line)), Some(true), "{frames:?}");

    let mut mangled = Symbolizer::new(SymbolizeOptions { demangle: false, ..SymbolizeOptions::default() });
    let frames = mangled.frames(&at(&module, start + 1));
    assert!(frames.last().unwrap().function.as_deref().unwrap().starts_with("_ZN5shelf5StoreIlE3add"));
}

/// A function that is defined under one name and called by another has the one that its callers know, with debug
/// information or without.
#[test]
fn aliases_are_shown_by_their_public_name() {
    let source = "#include <stdlib.h>\nvoid *kept;\n\
        __attribute__((noinline)) void __shelf_fill_2_1(int n) { kept = malloc(n); ((char *)kept)[0] = 3; }\n\
        extern void shelf_fill(int) __attribute__((alias(\"__shelf_fill_2_1\")));\n\
        int main(int n, char **v) { shelf_fill(n); return 0; }\n";
    for flags in ["-g -O2", "-O2"] {
        let dir = build(source, "cc", flags);
        let path = dir.path().join("program");
        let (start, _) = function(&path, "shelf_fill");
        let frames = symbolizer(Vec::new()).frames(&at(&module(&path), start + 1));
        assert_eq!(functions(&frames), ["shelf_fill"], "{flags}");
    }
}

/// What distributions do: the debug information in a file of its own, found by build-id or by the link's name.
#[test]
fn separate_debug_files() {
    let dir = build(C_PROGRAM, "cc", "-g -O2 -Wl,--build-id=sha1");
    let path = dir.path().join("program");
    let call = return_addresses(&path, function(&path, "grow_table"))[0];
    run(dir.path(), "objcopy --only-keep-debug program program.debug && strip program && cp program nolink");
    run(dir.path(), "objcopy --add-gnu-debuglink=program.debug program");

    // The link names a file beside the program; the held file's path leads there.
    let linked = module(&path);
    assert_inlined_chain(&symbolizer(Vec::new()).frames(&at(&linked, call)));

    // No link at all: the build-id finds the file in a debug directory, also when the program is deleted.
    let nolink = module(&dir.path().join("nolink"));
    fs::remove_file(dir.path().join("nolink")).unwrap();
    let unnamed = symbolizer(Vec::new()).frames(&at(&nolink, call));
    assert_eq!(functions(&unnamed), ["-"]);
    assert_eq!(unnamed[0].module_offset, Some(call));
    let id: String = nolink.build_id.as_ref().unwrap().iter().map(|b| format!("{b:02x}")).collect();
    let debug_dir = dir.path().join("debug");
    let place = debug_dir.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&place).unwrap();
    fs::copy(dir.path().join("program.debug"), place.join(format!("{}.debug", &id[2..]))).unwrap();
    assert_inlined_chain(&symbolizer(vec![debug_dir.clone()]).frames(&at(&nolink, call)));

    // A file of another build in that place must not be believed.
    let other = build(&C_PROGRAM.replace("grow_table", "wrong_name"), "cc", "-g -O2 -Wl,--build-id=sha1");
    fs::copy(other.path().join("program"), place.join(format!("{}.debug", &id[2..]))).unwrap();
    assert_eq!(functions(&symbolizer(vec![debug_dir]).frames(&at(&nolink, call))), ["-"]);

    // Nor one that the link names but whose checksum differs.
    fs::copy(other.path().join("program"), dir.path().join("program.debug")).unwrap();
    let mismatched = module(&path);
    assert_eq!(functions(&symbolizer(Vec::new()).frames(&at(&mismatched, call))), ["-"]);
}

/// In a stripped library only exported functions have names, and their neighbours must not borrow them.
#[test]
fn a_stripped_library_names_only_what_it_exports() {
    let source = "#include <stdlib.h>\nvoid *kept;\n\
        static __attribute__((noinline)) void hidden(int n) { kept = malloc(n); ((char *)kept)[0] = 3; }\n\
        void exported(int n) { hidden(n + 2); kept = 0; }\n\
        __asm__(\".text\\n.globl sizeless\\n.type sizeless,@function\\nsizeless: call malloc@plt\\nret\\n\");\n";
    let dir = build(source, "cc", "-O1 -shared -fPIC");
    let path = dir.path().join("program");
    let (hidden, exported) = (function(&path, "hidden"), function(&path, "exported"));
    let data = fs::read(&path).unwrap();
    let sizeless = object::File::parse(&*data)
        .unwrap()
        .symbols()
        .find(|s| s.name() == Ok("sizeless"))
        .unwrap()
        .address();
    run(dir.path(), "strip program");
    let module = module(&path);
    let mut symbolizer = symbolizer(Vec::new());
    assert_eq!(functions(&symbolizer.frames(&at(&module, exported.0 + 1))), ["exported"]);
    assert_eq!(functions(&symbolizer.frames(&at(&module, exported.1))), ["exported"]);
    assert_eq!(functions(&symbolizer.frames(&at(&module, exported.1 + 1))), ["-"]);
    for address in hidden.0 + 1..=hidden.1 {
        assert_eq!(functions(&symbolizer.frames(&at(&module, address))), ["-"], "{address:#x}");
    }
    assert_eq!(functions(&symbolizer.frames(&at(&module, sizeless + 5))), ["-"]);
    assert_eq!(symbolizer.frames(&at(&module, hidden.1))[0].role, FrameRole::Library);
}

/// `.gnu_debugdata` (an xz-compressed symbol table, as Fedora ships it) names what `.dynsym` does not.
#[test]
fn mini_debug_info() {
    let dir = build(C_PROGRAM, "cc", "-O2");
    let path = dir.path().join("program");
    let (start, end) = function(&path, "grow_table");
    run(
        dir.path(),
        "objcopy --only-keep-debug program mini && objcopy -S --keep-symbol=grow_table mini && xz mini && strip program \
         && objcopy --add-section .gnu_debugdata=mini.xz program",
    );
    let module = module(&path);
    let mut symbolizer = symbolizer(Vec::new());
    assert_eq!(functions(&symbolizer.frames(&at(&module, start + 1))), ["grow_table"]);
    assert_eq!(functions(&symbolizer.frames(&at(&module, end + 1))), ["-"]);
}

#[test]
fn the_vdso_of_this_process() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let Some(line) = maps.lines().find(|line| line.ends_with("[vdso]")) else {
        eprintln!("skipped: this kernel maps no vDSO");
        return;
    };
    let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
    let mut image = vec![0u8; usize::try_from(end - start).unwrap()];
    std::os::unix::fs::FileExt::read_exact_at(&File::open("/proc/self/mem").unwrap(), &mut image, start)
        .unwrap();
    let svma = {
        let file = object::File::parse(&*image).unwrap();
        file.dynamic_symbols().find(|s| s.name() == Ok("__vdso_clock_gettime")).unwrap().address()
    };
    let vdso = Arc::new(Module {
        path: "[vdso]".into(),
        content: Content::Memory(image.into()),
        build_id: None,
        segments: Vec::new(),
        deleted: false,
    });
    let mut symbolizer = symbolizer(Vec::new());
    let frames = symbolizer.frames(&at(&vdso, svma + 1));
    assert_eq!(functions(&frames), ["clock_gettime"]);
    assert_eq!(frames[0].role, FrameRole::Runtime);
    assert_eq!(functions(&symbolizer.frames(&at(&vdso, 1))), ["-"]);
}

#[test]
fn generated_code() {
    let mut symbolizer = symbolizer(Vec::new());
    let location = CodeLocation { address: 0x7010, module: None, guessed: true };
    let bare = symbolizer.frames(&location);
    assert_eq!((bare[0].function.as_deref(), bare[0].role, bare[0].guessed), (None, FrameRole::Jit, true));
    symbolizer.set_perf_map(PerfMap::parse(b"7000 10 JIT: loop\n"));
    // The call is the range's last instruction: its return address is one past the end.
    assert_eq!(functions(&symbolizer.frames(&location)), ["JIT: loop"]);
    assert_eq!(
        functions(&symbolizer.frames(&CodeLocation { address: 0, module: None, guessed: false })),
        ["-"]
    );
}

/// A symbol that ends beyond the address space names nothing, and that is kept to the one module.
#[test]
fn one_strange_module_does_not_spoil_the_others() {
    let dir = build(C_PROGRAM, "cc", "-O2");
    let path = dir.path().join("program");
    let good = module(&path);
    let (start, _) = function(&path, "grow_table");
    let mut data = fs::read(&path).unwrap();
    let size_field = {
        let file = object::File::parse(&*data).unwrap();
        let symbol = file.symbols().find(|s| s.name() == Ok("grow_table")).unwrap();
        let table = object::ObjectSection::file_range(&file.section_by_name(".symtab").unwrap()).unwrap().0;
        usize::try_from(table).unwrap() + symbol.index().0 * 24 + 16
    };
    data[size_field..size_field + 8].fill(0xff);
    fs::write(dir.path().join("strange"), &data).unwrap();
    let strange = module(&dir.path().join("strange"));
    let mut symbolizer = symbolizer(Vec::new());
    for _ in 0..2 {
        assert_eq!(functions(&symbolizer.frames(&at(&strange, start + 1))), ["-"]);
        assert_eq!(functions(&symbolizer.frames(&at(&good, start + 1))), ["grow_table"]);
        symbolizer.set_program(&path);
    }
}

/// Bytes of a good file are overwritten at random; nothing but names may change.
#[test]
fn damaged_files_do_no_harm() {
    let dir = build(C_PROGRAM, "cc", "-g -O2");
    let path = dir.path().join("program");
    let call = return_addresses(&path, function(&path, "grow_table"))[0];
    let good = fs::read(&path).unwrap();
    let damaged = dir.path().join("damaged");
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap()
    };
    for round in 0..300 {
        let mut data = good.clone();
        // Half of the rounds hit the headers, where damage does most.
        let range = [data.len(), 64, 2000, data.len()][round % 4];
        for _ in 0..1 + round % 17 {
            let at = if round % 4 == 3 { data.len() - 1 - next() % 4000 } else { next() % range };
            data[at] = [0x00, 0xff, 0x7f, 0x80][next() % 4] ^ u8::try_from(next() % 3).unwrap();
        }
        if round % 29 == 0 {
            data.truncate(next() % good.len());
        }
        fs::write(&damaged, &data).unwrap();
        let module = Arc::new(Module {
            path: damaged.clone(),
            content: Content::File(File::open(&damaged).unwrap()),
            build_id: None,
            segments: Vec::new(),
            deleted: false,
        });
        let mut symbolizer = symbolizer(Vec::new());
        for svma in [call, 0, 1, u64::MAX, call + 0x1000] {
            assert!(!symbolizer.frames(&at_any(&module, svma)).is_empty());
        }
        fs::remove_file(&damaged).unwrap();
    }
}

fn at_any(module: &Arc<Module>, svma: u64) -> CodeLocation {
    CodeLocation { address: svma, module: Some((Arc::clone(module), Svma(svma))), guessed: false }
}
