//! Python in places other than python3: linked into another program, as a library and as a part of it, with several
//! interpreters; started through an environment; and builds that are declined.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{
    python::interpreters,
    support::{
        case::{Case, case, case_with},
        fixture,
        heapscope::Heapscope,
        needs::Need,
        program::Program,
        report::{Report, python},
    },
};

const PYTHON: &[Need] = &[Need::Program("/usr/bin/python3")];

pub(crate) const CASES: &[Case] = &[
    case_with("python_embedded::as_a_library", &[Need::PythonLibraries], as_a_library),
    case_with("python_embedded::as_a_part", &[Need::PythonLibraries], as_a_part),
    case_with("python_embedded::started_through_an_environment", PYTHON, through_an_environment),
    case("python_embedded::free_threaded_builds_are_declined", free_threaded_builds_are_declined),
];

/// Of the blocks that are told, in bytes.
const SMALLEST: u64 = 10_000;

type Frames = Vec<(String, String, u32)>;
/// How many, and bytes.
type Blocks = (u64, u64);

/// What an interpreter says of how programs embed it.
struct Embedding {
    interpreter: String,
    minor: u32,
    /// The folder that it was installed into.
    home: String,
    headers: PathBuf,
    /// libpython, shared and static, where they are.
    shared: PathBuf,
    parts: PathBuf,
    /// The libraries that the static one needs.
    libraries: String,
}

impl Embedding {
    fn of(interpreter: &str) -> Self {
        let ask = "import sys, sysconfig as s; v = lambda n: s.get_config_var(n) or ''; print(sys.version_info[1], \
                   sys.base_prefix, s.get_paths()['include'], v('LIBDIR') + '/' + v('LDLIBRARY'), \
                   v('LIBPL') + '/' + v('LIBRARY'), ' '.join(map(v, ('LIBS', 'SYSLIBS', 'MODLIBS'))), sep='\\n')";
        let Output { stdout, .. } = Command::new(interpreter).args(["-c", ask]).output().unwrap();
        let told = String::from_utf8(stdout).unwrap();
        let [minor, home, headers, shared, parts, libraries] = told.lines().collect::<Vec<_>>()[..] else {
            panic!("{interpreter}: {told:?}")
        };
        let mut shared = PathBuf::from(shared);
        // Debian's python3 says how it is linked itself, which is statically.
        if shared.extension().is_some_and(|ending| ending == "a") {
            shared.set_extension("so");
        }
        for folder in ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"] {
            let elsewhere = Path::new(folder).join(shared.file_name().unwrap());
            if !shared.exists() && elsewhere.exists() {
                shared = elsewhere;
            }
        }
        Self {
            interpreter: interpreter.to_owned(),
            minor: minor.parse().unwrap(),
            home: home.to_owned(),
            headers: headers.into(),
            shared,
            parts: parts.into(),
            libraries: libraries.to_owned(),
        }
    }

    /// The program that embeds it by this library, if that is there with the headers.
    fn build(&self, library: &Path, more: &[&str]) -> Option<PathBuf> {
        if !library.exists() || !self.headers.join("Python.h").exists() {
            println!("{}: no {} and Python.h", self.interpreter, library.display());
            return None;
        }
        let include = format!("-I{}", self.headers.display());
        let search = format!("-Wl,-rpath,{}", library.parent()?.display());
        let libraries = self.libraries.split_whitespace();
        let libraries: Vec<&str> = library.to_str().into_iter().chain(libraries).chain(["-lm"]).collect();
        let flags: Vec<&str> = more.iter().copied().chain([include.as_str(), &search]).collect();
        Some(fixture::build_before("embed.c", &flags, &libraries))
    }
}

fn as_a_library() {
    let programs = interpreters().into_iter().filter_map(|interpreter| {
        let embedding = Embedding::of(&interpreter);
        let program = embedding.build(&embedding.shared, &[])?;
        Some((embedding, program))
    });
    for (embedding, program) in programs.collect::<Vec<_>>() {
        runs_right(&embedding, &program, "as a library");
    }
}

/// Linked in, with its symbols exported as `python3-config` has it, and without.
fn as_a_part() {
    for interpreter in interpreters() {
        let embedding = Embedding::of(&interpreter);
        // Debian's library is not compiled for programs that are loaded anywhere.
        for (more, which) in [(&["-no-pie", "-rdynamic"][..], "exported"), (&["-no-pie"], "not exported")] {
            // To 3.7 extension modules are linked with libpython: where they do not find the program's symbols, that one is a
            // second interpreter for them.
            if which == "not exported" && embedding.minor <= 7 {
                continue;
            }
            if let Some(program) = embedding.build(&embedding.parts, more) {
                runs_right(&embedding, &program, which);
            }
        }
    }
}

/// The blocks of all threads and interpreters have the stacks that each interpreter tells.
fn runs_right(embedding: &Embedding, program: &Path, how: &str) {
    let which = format!("{} {how}", embedding.interpreter);
    let mut command = Command::new(program);
    command.arg(fixture::source("python_embedded.py")).env("PYTHONHOME", &embedding.home);
    let mut embedder = Program::start_until(&mut command, "ready");
    // Not what importing modules allocates, which is much at once.
    let heapscope = Heapscope::attach(embedder.pid(), &["--min-size", &SMALLEST.to_string()]);
    embedder.say("go");
    let mut told: HashMap<u64, Frames> = HashMap::new();
    loop {
        let line = embedder.hear();
        if line == "done" {
            break;
        }
        let (size, frames) = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(told.insert(size, frames).is_none(), "{which}: {size} twice");
    }
    let report = heapscope.stop();
    report.assert_nothing_lost();
    // The main interpreter's frames, from where it called another one.
    let callers = told.remove(&0);
    let expected = told.len();
    // Three threads and two more interpreters, six blocks each; three in those that call one another.
    assert_eq!(expected, if callers.is_some() { 5 * 6 + 3 } else { 5 * 6 }, "{which}");
    // The same code in another interpreter is the same code: blocks of several may be of one site.
    let mut blocks: HashMap<Frames, Blocks> = HashMap::new();
    for (size, mut frames) in told {
        if let (30_000 | 30_100, Some(callers)) = (size, &callers) {
            frames.extend_from_slice(callers);
        }
        let (objects, space) = blocks.entry(frames).or_default();
        (*objects, *space) = (*objects + 1, *space + size + 1);
    }
    let found = blocks_by_frames(&report);
    for (frames, blocks) in blocks {
        assert_eq!(found.get(&frames), Some(&blocks), "{which}: {frames:#?} in {found:#?}");
    }
    // To 3.11 a thread without the global lock, such as one that opens a folder, is taken to be in its first interpreter.
    let said = report.quality.warnings.iter().any(|warning| warning.contains("do not match"));
    assert!(!said || embedding.minor <= 11, "{which}: {:?}", report.quality.warnings);
    let calls = callers.map_or("without", |_| "with");
    println!("{which}: {expected} stacks of 3 interpreters equal, {calls} calls between them");
    // What is linked in has no more of the interpreter than something needs.
    let has_calls = embedding.minor >= 8 && how == "as a library";
    assert!(!has_calls || calls == "with", "{which}");
}

/// The large live blocks by their Python frames. A bytearray has a byte behind its own.
fn blocks_by_frames(report: &Report) -> HashMap<Frames, Blocks> {
    let mut blocks: HashMap<Frames, Blocks> = HashMap::new();
    for site in &report.sites {
        let (more, bytes) = (site.totals.inuse_objects, site.totals.inuse_space);
        if more > 0 && bytes >= more * SMALLEST {
            let (objects, space) = blocks.entry(python(&site.stack)).or_default();
            (*objects, *space) = (*objects + more, *space + bytes);
        }
    }
    blocks
}

fn through_an_environment() {
    for interpreter in interpreters() {
        let folder = TempDir::new().unwrap();
        let environment = folder.path().join("environment");
        let made = Command::new(&interpreter)
            .args(["-m", "venv", "--without-pip"])
            .arg(&environment)
            .output()
            .unwrap();
        assert!(made.status.success(), "{interpreter}: {}", String::from_utf8_lossy(&made.stderr));
        let program = "import sys\nkept = []\ndef keep(size):\n    kept.append(bytearray(size))\n\
                       assert sys.prefix != sys.base_prefix\nprint('ready', flush=True)\n\
                       for line in sys.stdin:\n    keep(int(line))\n    print('kept', flush=True)\n";
        let mut command = Command::new(environment.join("bin/python"));
        let mut python = Program::start_until(command.args(["-c", program]), "ready");
        let heapscope = Heapscope::attach(python.pid(), &[]);
        assert_eq!(python.ask("40000"), "kept");
        let report = heapscope.stop();
        let frame = |name: &str, line| (name.to_owned(), "<string>".to_owned(), line);
        let expected = vec![frame("keep", 4), frame("<module>", 8)];
        assert_eq!(blocks_by_frames(&report).get(&expected), Some(&(1, 40_001)), "{interpreter}");
    }
}

/// A program with what such a build begins with: no more of it is looked at.
fn free_threaded_builds_are_declined() {
    let program = fixture::build("free_threaded.c", &["-rdynamic"]);
    let mut program = Program::start_until(&mut Command::new(program), "ready");
    let heapscope = Heapscope::attach(program.pid(), &[]);
    assert_eq!(program.ask("go"), "kept");
    let report = heapscope.stop();
    let said = &report.quality.warnings;
    let says = |warning: &String| warning.contains("a free-threaded Python (built without its global lock)");
    assert!(said.iter().any(says), "{said:?}");
    // The native stacks are as ever.
    let kept = report.sites.iter().find(|site| site.totals.inuse_space == 12_345).unwrap();
    assert!(kept.functions().contains(&"keep"), "{:?}", kept.functions());
    assert!(kept.python().is_empty());
}
