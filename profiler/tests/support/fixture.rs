//! The small programs of known behaviour, compiled when a test first wants them.

use std::{
    collections::HashMap,
    fs,
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

/// The program made from a fixture's source with more flags. C++ sources go to the C++ compiler.
pub(crate) fn build(source: &str, flags: &[&str]) -> PathBuf {
    let compiler = if source.ends_with(".cpp") { "c++" } else { "cc" };
    build_with(compiler, source, flags)
}

/// The same with another compiler.
pub(crate) fn build_with(compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    let key = format!("{compiler} {source} {}", flags.join(" "));
    let cell = {
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(built.get_or_insert_default().entry(key.clone()).or_default())
    };
    cell.get_or_init(|| compile(compiler, source, flags, &key)).clone()
}

/// The driver that makes the calls it is told to.
pub(crate) fn calls() -> PathBuf {
    build("calls.c", &[])
}

fn compile(compiler: &str, source: &str, flags: &[&str], key: &str) -> PathBuf {
    // The kernel keeps 15 characters of a name; the rest tells builds apart.
    let stem = source.split('.').next().unwrap_or(source);
    let distinct: u32 = key.bytes().fold(5381, |hash: u32, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    let program = folder().join(format!("{stem}-{distinct:08x}"));
    let fresh = folder().join(format!("{stem}-{distinct:08x}.{}", std::process::id()));
    let mut command = Command::new(compiler);
    command
        .args(USUAL)
        .args(flags)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/live").join(source))
        .args(["-o".as_ref(), fresh.as_os_str()]);
    let made = command.output().unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(made.status.success(), "{command:?}: {}", String::from_utf8_lossy(&made.stderr));
    // A build from an earlier run may still be executing.
    fs::rename(&fresh, &program).unwrap();
    program
}
