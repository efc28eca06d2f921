//! Recordings as files: read with a bound, their damage told, one of their moments found.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::{
    report::{
        profile::{At, Profile},
        recording::{MAX_FILE, Recording},
        units::{bytes, span},
        view::moment::{self, When},
    },
    symbolize::label::clean,
};

/// A recording and where it came from.
#[derive(Debug)]
pub(super) struct Opened {
    path: PathBuf,
    pub(super) recording: Recording,
}

impl Opened {
    /// Reads a recording.
    ///
    /// # Errors
    /// Where it cannot be read, or is none.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let named = || path.display().to_string();
        let file = File::open(path).with_context(named)?;
        let mut content = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut content).with_context(named)?;
        if content.len() as u64 > MAX_FILE {
            bail!("{}: it has more than {}, which no recording has", named(), bytes(MAX_FILE));
        }
        let recording = Recording::read(content).with_context(named)?;
        Ok(Self { path: path.to_owned(), recording })
    }

    /// Says on standard error what is damaged. The reports say it too.
    pub(super) fn tell_damage(&self) {
        for warning in self.recording.warnings() {
            eprintln!("heapscope: {}: {}", self.path.display(), clean(&warning));
        }
    }
}

/// The profile of a moment; without one, of the end.
pub(super) fn profile_at(recording: &Recording, when: Option<&When>) -> Result<Profile, String> {
    let snapshots = recording.snapshots();
    match when {
        None | Some(When::At(At::End)) => Ok(recording.profile()),
        Some(When::At(at)) => moment::at(recording.profile(), *at),
        Some(When::After(after)) => {
            let last = snapshots.last().map(|taken| taken.after).ok_or("the recording has no snapshots")?;
            if *after > last {
                return Err(format!(
                    "its last snapshot is of {}, and --at {} is later",
                    span(last),
                    span(*after)
                ));
            }
            let distance = |at: &usize| snapshots.get(*at).map(|taken| taken.after.abs_diff(*after));
            let at = (0..snapshots.len()).min_by_key(distance).unwrap_or(0);
            at_snapshot(recording, at)
        }
        Some(When::Mark(name)) => {
            let at = snapshots.iter().rposition(|taken| taken.marks.contains(name));
            let at = at.ok_or_else(|| {
                let marks: Vec<_> =
                    snapshots.iter().flat_map(|taken| &taken.marks).map(|m| clean(m)).collect();
                let name = clean(name);
                if marks.is_empty() {
                    format!("`{name}` is neither a time nor a mark: the recording has no marks")
                } else {
                    format!("`{name}` is neither a time nor a mark: the marks are {}", marks.join(", "))
                }
            })?;
            at_snapshot(recording, at)
        }
    }
}

fn at_snapshot(recording: &Recording, at: usize) -> Result<Profile, String> {
    if !recording.snapshots().get(at).is_some_and(|taken| taken.has_sites) {
        return Err(
            "it was made of a finished report and does not know what each site held at other moments".into(),
        );
    }
    Ok(recording.profile_at(at))
}
