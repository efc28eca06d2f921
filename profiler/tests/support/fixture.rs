//! The small programs of known behaviour, compiled when a test first wants them.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// What distribution packages are built with, as far as stacks are concerned: optimised, without frame pointers.
const USUAL: [&str; 5] = ["-O2", "-fomit-frame-pointer", "-g", "-pthread", "-Wall"];

type Built = Arc<OnceLock<PathBuf>>;
static BUILT: Mutex<Option<HashMap<String, Built>>> = Mutex::new(None);

/// Where they lie: under cargo's folder for what tests make.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("live");
        fs::create_dir_all(&folder).unwrap();
        folder
    })
}

/// The program made from a fixture's source with more flags, by the compiler of its language.
pub(crate) fn build(source: &str, flags: &[&str]) -> PathBuf {
    let compiler = match source.rsplit('.').next() {
        Some("cpp") => "c++",
        Some("rs") => "rustc",
        Some("go") => "go",
        _ => "cc",
    };
    build_with(compiler, source, flags)
}

/// A program in C with flags before its source, and with libraries after it, which static ones must be.
pub(crate) fn build_before(source: &str, flags: &[&str], libraries: &[&str]) -> PathBuf {
    let all: Vec<&str> = flags.iter().chain(libraries).copied().collect();
    built("cc", source, &all, flags.len())
}

/// The same with another compiler.
pub(crate) fn build_with(compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    built(compiler, source, flags, flags.len())
}

/// The first `before` flags stand before the source, the others behind it.
fn built(compiler: &str, source: &str, flags: &[&str], before: usize) -> PathBuf {
    let key = format!("{compiler} {source} {}", flags.join(" "));
    let cell = {
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(built.get_or_insert_default().entry(key.clone()).or_default())
    };
    cell.get_or_init(|| compile(compiler, source, flags.split_at(before), &key)).clone()
}

/// A fixture's source.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/live").join(name)
}

/// The driver that makes the calls it is told to.
pub(crate) fn calls() -> PathBuf {
    build("calls.c", &[])
}

/// A program of ELF class 32 that does nothing but wait for a signal, written by hand: a compiler for such programs is
/// rarely installed.
pub(crate) fn waiting_32_bit() -> PathBuf {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    // pause(), number 29 of arch/x86/entry/syscalls/syscall_32.tbl, again and again.
    let code = [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7];
    let size = HEADERS + u32::try_from(code.len()).unwrap();
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let halves =
        |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    let words =
        |file: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    // ET_EXEC for EM_386; version, entry, program headers, no sections, flags.
    halves(&mut file, &[2, 3]);
    words(&mut file, &[1, BASE + HEADERS, 52, 0, 0]);
    halves(&mut file, &[52, 32, 1, 40, 0, 0]);
    // PT_LOAD of the whole file, readable and executable.
    words(&mut file, &[1, 0, BASE, BASE, size, size, 5, 0x1000]);
    file.extend(code);
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let (program, fresh) =
            (folder().join("waiting32"), folder().join(format!("waiting32.{}", std::process::id())));
        fs::write(&fresh, &file).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&fresh, &program).unwrap();
        program
    })
    .clone()
}

fn compile(compiler: &str, source: &str, (before, after): (&[&str], &[&str]), key: &str) -> PathBuf {
    // The kernel keeps 15 characters of a name; the rest tells builds apart.
    let stem = source.split('.').next().unwrap_or(source);
    let distinct: u32 = key.bytes().fold(5381, |hash: u32, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    let program = folder().join(format!("{stem}-{distinct:08x}"));
    let fresh = folder().join(format!("{stem}-{distinct:08x}.{}", std::process::id()));
    let mut command = Command::new(compiler);
    match compiler {
        "rustc" => command.args(["--edition", "2024", "-O", "-Cstrip=debuginfo"]),
        "go" => command
            .envs([("GO111MODULE", "off"), ("CGO_ENABLED", "1")])
            .env("GOCACHE", folder().join("go"))
            .arg("build"),
        _ => command.args(USUAL),
    };
    command.args(before).args(["-o".as_ref(), fresh.as_os_str()]).arg(self::source(source)).args(after);
    let made = command.output().unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(made.status.success(), "{command:?}: {}", String::from_utf8_lossy(&made.stderr));
    // A build from an earlier run may still be executing.
    fs::rename(&fresh, &program).unwrap();
    program
}
