//! The compiler that has `core` for BPF, the linker that makes its bitcode an object, and how to get them.
//!
//! Debian 12's security suite carries a current rustc with the standard library for `bpfel-unknown-none`. It lives in
//! /usr/bin beside rustup's toolchains and needs neither a nightly compiler nor the standard library's sources. The
//! linker is built against the same LLVM as that rustc: an older LLVM does not read its bitcode.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    debian,
    process::{find_program, output, run},
    workspace::{cargo_home, isolated_cargo},
};

/// The distribution's compiler; rustup's has no `core` for BPF.
pub(super) const RUSTC: &str = "/usr/bin/rustc";
/// Little-endian BPF, as the kernel on x86-64 runs it.
pub(super) const BPF_TARGET: &str = "bpfel-unknown-none";
const LINKER_VERSION: &str = "0.13.0";
const PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf", "llvm"];
const REMEDY: &str = "run `cargo xtask ebpf --install` (Debian 12 or a relative, as root)";

/// Everything that the BPF build calls.
pub(super) struct Toolchain {
    /// What the compiler says of itself, in one line.
    pub(super) compiler: String,
    /// llvm-strip.
    pub(super) strip: PathBuf,
    /// The folder of bpf-linker.
    linker_folder: PathBuf,
}

impl Toolchain {
    /// Finds all parts.
    ///
    /// # Errors
    /// Names the first part that is absent or wrong, and the remedy.
    pub(super) fn find() -> Result<Self> {
        let llvm = compiler_llvm()?;
        let strip = find_strip().with_context(|| format!("llvm-strip is not installed: {REMEDY}"))?;
        let linker = find_linker(llvm)?;
        let compiler = output(Command::new(RUSTC).env_remove("LD_LIBRARY_PATH").arg("--version"))?;
        let linker_folder = linker.parent().context("bpf-linker has no folder")?.to_owned();
        Ok(Self { compiler: compiler.trim().to_owned(), strip, linker_folder })
    }

    /// `PATH` with the linker first: cargo's folder of programs may not be on it.
    pub(super) fn path(&self) -> Result<OsString> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.linker_folder.clone()).chain(env::split_paths(&path));
        env::join_paths(folders).context("a folder of PATH holds a colon")
    }
}

/// Installs what is absent and says so; a second run finds everything and changes nothing.
pub(super) fn install() -> Result<()> {
    let missing = debian::missing(PACKAGES);
    if missing.is_empty() && debian::is_debian_like() {
        println!("{}: installed", PACKAGES.join(", "));
    } else if debian::is_debian_like() {
        debian::install(&missing).with_context(|| {
            format!(
                "the BPF build needs {}, as Debian 12 has them in its security suite",
                PACKAGES.join(", ")
            )
        })?;
    } else if let Err(absent) = compiler_llvm() {
        bail!(
            "{absent:#}. This is not Debian or a relative: please install a rustc 1.96 or later as {RUSTC} with the \
             standard library for {BPF_TARGET}, and llvm-strip, then run this again"
        );
    }

    let llvm = compiler_llvm()?;
    match find_linker(llvm) {
        Ok(linker) => println!("bpf-linker {LINKER_VERSION} with LLVM {llvm}: {}", linker.display()),
        Err(reason) => {
            println!("{reason:#}");
            println!("building bpf-linker {LINKER_VERSION} with LLVM {llvm}; this takes a minute");
            install_linker(llvm)?;
        }
    }
    let toolchain = Toolchain::find()?;
    println!("the BPF toolchain is complete: {}", toolchain.compiler);
    Ok(())
}

/// The major version of the LLVM inside the compiler, once it is sure that the compiler has `core` for BPF.
fn compiler_llvm() -> Result<u32> {
    if !Path::new(RUSTC).exists() {
        bail!("{RUSTC} is not installed: {REMEDY}");
    }
    let rustc = || {
        let mut rustc = Command::new(RUSTC);
        rustc.env_remove("LD_LIBRARY_PATH");
        rustc
    };
    let libraries = output(rustc().args(["--print", "target-libdir", "--target", BPF_TARGET]))?;
    let has_core = fs::read_dir(libraries.trim()).is_ok_and(|mut folder| {
        folder.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
    });
    if !has_core {
        bail!("{RUSTC} has no standard library for {BPF_TARGET}: {REMEDY}");
    }
    llvm_of(&output(rustc().arg("-vV"))?).with_context(|| format!("`{RUSTC} -vV` names no LLVM version"))
}

fn llvm_of(verbose_version: &str) -> Option<u32> {
    let version = verbose_version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

fn find_strip() -> Option<PathBuf> {
    find_program("llvm-strip", &[])
}

/// The linker in its one version, linked with this LLVM.
fn find_linker(llvm: u32) -> Result<PathBuf> {
    let linker = find_program("bpf-linker", &[cargo_home()?.join("bin")])
        .with_context(|| format!("bpf-linker is not installed: {REMEDY}"))?;
    let version = output(Command::new(&linker).env_remove("LD_LIBRARY_PATH").arg("--version"))
        .with_context(|| format!("bpf-linker does not work (is its libLLVM gone?): {REMEDY}"))?;
    if version.trim() != format!("bpf-linker {LINKER_VERSION}") {
        bail!("{} is {}, not {LINKER_VERSION}: {REMEDY}", linker.display(), version.trim());
    }
    if linked_llvm(&linker, llvm)?.is_none() {
        bail!("{} is not linked with LLVM {llvm}, which {RUSTC} writes: {REMEDY}", linker.display());
    }
    Ok(linker)
}

fn install_linker(llvm: u32) -> Result<()> {
    // The linker's build looks for `lib/libLLVM.so` under LLVM_PREFIX. A link to the library that rustc itself uses
    // serves, and spares half a gigabyte of LLVM's development package.
    let prefix = tempfile::Builder::new().prefix("heapscope-llvm-").tempdir()?;
    fs::create_dir(prefix.path().join("lib"))?;
    let library = linked_llvm(Path::new(RUSTC), llvm)?.with_context(|| {
        format!("{RUSTC} is built with LLVM {llvm}, but not linked with its shared library")
    })?;
    symlink(library, prefix.path().join("lib/libLLVM.so"))?;
    run(isolated_cargo()
        .env("LLVM_PREFIX", prefix.path())
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "true")
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")]))
}

/// The shared library of this LLVM that the dynamic loader would give to the program.
fn linked_llvm(program: &Path, llvm: u32) -> Result<Option<PathBuf>> {
    let libraries = output(Command::new("ldd").env_remove("LD_LIBRARY_PATH").arg(program))?;
    Ok(llvm_in(&libraries, llvm))
}

/// Finds it in the output of ldd(1): `\tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x…)`.
fn llvm_in(libraries: &str, llvm: u32) -> Option<PathBuf> {
    let name = format!("libLLVM.so.{llvm}.");
    let line = libraries.lines().find(|line| line.trim_start().starts_with(&name))?;
    let path = line.split_once("=> ")?.1.split(" (").next()?;
    path.starts_with('/').then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::{llvm_in, llvm_of};

    #[test]
    fn llvm_version_is_read_from_rustc() {
        assert_eq!(llvm_of("rustc 1.96.0\nhost: x\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_of("rustc 1.96.0\nLLVM version: \n"), None);
        assert_eq!(llvm_of("rustc 1.96.0\n"), None);
    }

    #[test]
    fn llvm_library_is_read_from_ldd() {
        let ldd = "\tlibc.so.6 => /lib/libc.so.6 (0x1)\n\tlibLLVM.so.22.1 => /lib/libLLVM.so.22.1 (0x2)\n";
        assert_eq!(llvm_in(ldd, 22), Some("/lib/libLLVM.so.22.1".into()));
        assert_eq!(llvm_in(ldd, 2), None);
        assert_eq!(llvm_in("\tlibLLVM.so.22.1 => not found\n", 22), None);
    }
}
