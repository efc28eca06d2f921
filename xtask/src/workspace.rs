//! Where this tree and its build results lie, and the cargo that builds it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::process::output;

/// Environment that belongs to the cargo above us, or to the user's taste, and would change what a child builds.
const OUTER_BUILD: &[&str] = &[
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_TARGET_DIR",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

/// The clone that this xtask was built from.
pub(crate) struct Workspace {
    /// The folder of the outer Cargo.toml.
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds, `target/` unless the user chose another place.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo. `cargo run` says where this crate's manifest is; a binary started by hand falls back to where it was
    /// built.
    pub(crate) fn find() -> Result<Self> {
        let manifest_dir =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest_dir).parent().context("xtask's folder has no parent")?.to_owned();
        let metadata = output(
            cargo()
                .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
                .arg(root.join("Cargo.toml")),
        )?;
        let metadata: serde_json::Value =
            serde_json::from_str(&metadata).context("reading `cargo metadata`")?;
        let target =
            metadata["target_directory"].as_str().context("`cargo metadata` names no target_directory")?;
        Ok(Self { target: target.into(), root })
    }

    /// A path for people: relative to the clone where it lies inside.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// The cargo that runs us, so that a child uses the same toolchain.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The same cargo for a build that must not depend on how the outer one was called.
pub(crate) fn isolated_cargo() -> Command {
    let mut cargo = cargo();
    for name in OUTER_BUILD {
        cargo.env_remove(name);
    }
    cargo
}

/// Where cargo keeps its registry and its installed programs.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(home) => Ok(home.into()),
        None => Ok(env::home_dir().context("neither CARGO_HOME nor HOME is set")?.join(".cargo")),
    }
}
