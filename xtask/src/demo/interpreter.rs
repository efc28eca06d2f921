//! Which Python the story is told with.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{find_program, succeeds};

/// The minor versions of Python 3 that heapscope reads.
const READ: std::ops::RangeInclusive<u32> = 6..=14;
/// The one that the story's libraries can be built for.
const OF_THE_STORY: u32 = 7;

/// A Python.
pub(super) struct Interpreter {
    pub(super) path: PathBuf,
    /// 7 for 3.7.
    pub(super) minor: u32,
    /// The folder with `Python.h`, if it is installed.
    pub(super) headers: Option<PathBuf>,
}

impl Interpreter {
    /// The one that was asked for, else a CPython 3.7 that can make environments, else the newest that heapscope reads.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn choose(asked: Option<&Path>) -> Result<Self> {
        if let Some(asked) = asked {
            return Self::of(asked);
        }
        let mut all: Vec<_> = candidates().iter().filter_map(|path| Self::of(path).ok()).collect();
        if let Some(story) = all.iter().position(Self::has_the_story) {
            return Ok(all.swap_remove(story));
        }
        let newest = all.into_iter().max_by_key(|python| python.minor);
        newest.context("there is no python3 of 3.6 to 3.14, neither in PATH nor under pyenv")
    }

    /// Asks it what it is.
    fn of(path: &Path) -> Result<Self> {
        let asked = "import sys, sysconfig; print(*sys.version_info[:2]); \
                     print(sysconfig.get_config_var('Py_GIL_DISABLED') or 0); print(sysconfig.get_paths()['include'])";
        let told = Command::new(path).args(["-c", asked]).output();
        let told = told.with_context(|| format!("cannot start {}", path.display()))?;
        let errors = String::from_utf8_lossy(&told.stderr);
        ensure!(told.status.success(), "{} failed: {}\n{errors}", path.display(), told.status);
        let told = String::from_utf8(told.stdout)?;
        let [version, free_threaded, headers] = told.lines().collect::<Vec<_>>()[..] else {
            bail!("{} did not say what it is, but {told:?}", path.display())
        };
        let minor = version.strip_prefix("3 ").and_then(|minor| minor.parse().ok());
        let minor = minor.filter(|minor| READ.contains(minor));
        let minor = minor.with_context(|| format!("{} is not Python 3.6 to 3.14", path.display()))?;
        ensure!(free_threaded == "0", "{} is free-threaded: heapscope does not read it", path.display());
        let headers = PathBuf::from(headers);
        let headers = headers.join("Python.h").exists().then_some(headers);
        Ok(Self { path: path.to_owned(), minor, headers })
    }

    /// Whether the libraries of the story can be installed for it.
    pub(super) fn has_the_story(&self) -> bool {
        self.minor == OF_THE_STORY
            && succeeds(Command::new(&self.path).args(["-c", "import venv, ensurepip"]))
    }
}

/// What there is under pyenv and in `PATH`.
fn candidates() -> Vec<PathBuf> {
    let pyenv = env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let versions = pyenv.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let versions = versions.into_iter().flatten().flatten().map(|version| version.path().join("bin/python3"));
    let names = READ.rev().map(|minor| format!("python3.{minor}")).chain(["python3".to_owned()]);
    let in_path = names.filter_map(|name| find_program(&name, &[]));
    versions.filter(|python| python.exists()).chain(in_path).collect()
}
