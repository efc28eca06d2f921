//! The rules as tables: which layer may import which, and which names have one home.

use super::names::{Name, Names};

/// The modules of `profiler/src`, top down, and what each may import besides itself. `profiler_common` is open to all.
/// docs/architecture.md gives the reasons.
const LAYERS: &[(&str, &[&str])] = &[
    ("cli", &["session", "probe", "ledger", "report", "tui", "unwind", "symbolize", "target", "sys"]),
    ("session", &["probe", "ledger", "report", "tui", "unwind", "symbolize", "target", "sys"]),
    ("probe", &["unwind", "symbolize", "target", "sys"]),
    ("ledger", &[]),
    ("report", &["ledger", "symbolize"]),
    ("tui", &["report", "symbolize"]),
    ("unwind", &["target", "sys"]),
    ("symbolize", &["target", "sys"]),
    ("target", &["sys"]),
    ("sys", &[]),
];

/// Crates that are named in few places, so that what they do can be replaced there, and those places.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["aya", "aya_obj"], &["profiler/src/probe/ebpf"]),
    (
        &["clap", "clap_complete", "clap_mangen"],
        &["profiler/src/cli", "profiler/src/main", "profiler/build", "xtask"],
    ),
];

/// Where `unsafe` may stand.
const UNSAFE_HOMES: &[&str] = &["profiler/src/sys", "profiler-ebpf"];

/// What the ledger must not know: it is fed numbers, so that it can be tested by exhaustion and replay.
const LEDGER: &str = "profiler/src/ledger";
const NOT_IN_LEDGER: &[&[&str]] = &[
    &["std", "env"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "net"],
    &["std", "os"],
    &["std", "path"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["libc"],
    &["memmap2"],
    &["nix"],
    &["object"],
    &["rustix"],
];

/// The rules that a file breaks: line, and what is wrong.
pub(super) fn broken(file: &str, names: &Names) -> Vec<(usize, String)> {
    let mut broken = Vec::new();
    if !at_home(file, UNSAFE_HOMES) {
        let what = "`unsafe` stands only in profiler/src/sys (and in profiler-ebpf)";
        broken.extend(names.unsafe_lines.iter().map(|&line| (line, what.to_owned())));
    }
    let module = module_of(file);
    let layer = module.as_ref().and_then(|module| module.first());
    if let Some(layer) = layer
        && allowed(layer).is_none()
    {
        broken.push((1, format!("`{layer}` is not in the layer table (xtask/src/tidy/rules.rs)")));
    }
    for name in &names.paths {
        let inside = module.as_ref().and_then(|module| in_crate(module, name));
        let what = match (inside, layer) {
            (Some(path), Some(layer)) => upward(layer, &path, name.import),
            (Some(_), None) => None,
            (None, _) => away_from_home(file, name),
        };
        broken.extend(what.map(|what| (name.line, what)));
    }
    broken.sort();
    // `use` of a path and the path itself in one line are one finding.
    broken.dedup();
    broken
}

fn allowed(layer: &str) -> Option<&'static [&'static str]> {
    LAYERS.iter().find(|(name, _)| *name == layer).map(|(_, below)| *below)
}

/// The module that a file of the library is, from the crate's root; `None` for every other file.
fn module_of(file: &str) -> Option<Vec<String>> {
    let path = file.strip_prefix("profiler/src/")?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" | "main" => Some(Vec::new()),
        path => Some(path.split('/').map(str::to_owned).collect()),
    }
}

/// The name from the crate's root, without `crate`; `None` where it belongs to another crate, or to whatever is in
/// scope.
fn in_crate(module: &[String], name: &Name) -> Option<Vec<String>> {
    let (first, mut rest) = name.segments.split_first()?;
    let mut path = module.to_vec();
    path.resize(module.len() + name.depth, "(inline)".to_owned());
    match first.as_str() {
        "crate" => path.clear(),
        "self" => {}
        "super" => {
            path.pop();
            while let Some((first, more)) = rest.split_first()
                && first == "super"
            {
                path.pop();
                rest = more;
            }
        }
        _ => return None,
    }
    path.extend_from_slice(rest);
    Some(path)
}

/// What is wrong where the module `layer` names a path of its own crate.
fn upward(layer: &str, path: &[String], import: bool) -> Option<String> {
    let Some(other) = path.first() else {
        return import.then(|| "imports the crate's root, which hides the layer that is meant".to_owned());
    };
    let below = allowed(layer)?;
    if other == layer || below.contains(&other.as_str()) {
        None
    } else if allowed(other).is_none() {
        Some(format!("`crate::{other}` is not in the layer table, so it is open to no layer"))
    } else if below.is_empty() {
        Some(format!("`{layer}` names `{other}`: it may import no other layer"))
    } else {
        Some(format!("`{layer}` names `{other}`: it may import only {}", below.join(", ")))
    }
}

/// What is wrong where a file names something of another crate.
fn away_from_home(file: &str, name: &Name) -> Option<String> {
    let first = name.segments.first()?.as_str();
    for (crates, homes) in HOMES {
        if crates.contains(&first) && !at_home(file, homes) {
            return Some(format!("`{first}` is named only in {}", homes.join(", ")));
        }
    }
    if at_home(file, &[LEDGER]) {
        let segments: Vec<_> = name.segments.iter().map(String::as_str).collect();
        let forbidden = NOT_IN_LEDGER.iter().find(|forbidden| {
            // An import of the module around a forbidden name brings that name along.
            segments.starts_with(forbidden) || name.import && forbidden.starts_with(&segments)
        })?;
        return Some(format!("the ledger never sees `{}`: it is fed numbers", forbidden.join("::")));
    }
    None
}

/// Whether the file is one of these modules or lies in one of these folders.
fn at_home(file: &str, homes: &[&str]) -> bool {
    homes
        .iter()
        .any(|home| file.strip_prefix(home).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
}
