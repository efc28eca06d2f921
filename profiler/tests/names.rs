//! Where names come from: every kind of file that debug information hides in, made by the tools that make them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking, and its name says what it tests"
)]

#[path = "names/files.rs"]
mod files;
#[allow(dead_code, reason = "several test binaries share it, and none needs all of it")]
mod support;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use files::{Program, SHELF, symbolizer};
use heapscope::{
    symbolize::symbolizer::{SymbolizeOptions, Symbolizer},
    target::module::{Content, Module},
};
use support::{
    case::{self, Case, case, case_with},
    needs::Need,
};

const DWZ: Need = Need::Program("dwz");
const DWP: Need = Need::Program("dwp");
const CLANG: Need = Need::Program("clang++");

const CASES: &[Case] = &[
    case("versions_of_dwarf", versions_of_dwarf),
    case_with("another_compiler", &[CLANG], another_compiler),
    case("compressed_sections", compressed_sections),
    case("a_link_to_a_debug_file_is_followed_everywhere", links_everywhere),
    case_with("shared_by_dwz", &[DWZ], shared_by_dwz),
    case("split_into_dwo_files", split_into_dwo_files),
    case_with("split_into_a_package", &[DWP], split_into_a_package),
    case("stubs_of_the_linkage_table", stubs),
    case_with("names_of_rust", &[Need::Program("rustc")], names_of_rust),
    case("cut_while_it_is_read", cut_while_it_is_read),
    case("written_to_since_it_was_mapped", written_to),
];

fn main() -> ExitCode {
    case::run(&[CASES], &[])
}

fn versions_of_dwarf() {
    for version in 2..=5 {
        let program = Program::build("c++", &[&format!("-gdwarf-{version}"), "-O2"]);
        program.assert_chain(&mut symbolizer());
    }
}

fn another_compiler() {
    for flags in [["-g", "-O2"], ["-gdwarf-4", "-O2"], ["-gline-tables-only", "-O2"]] {
        let program = Program::build("clang++", &flags);
        program.assert_chain(&mut symbolizer());
    }
}

fn compressed_sections() {
    for form in ["zlib-gabi", "zlib-gnu", "zstd"] {
        let program = Program::build("c++", &["-g", "-O2"]);
        let done = program.run("objcopy", &[&format!("--compress-debug-sections={form}"), "program"]);
        if !done {
            // binutils may be built without zstd.
            assert_eq!(form, "zstd");
            continue;
        }
        program.assert_chain(&mut symbolizer());
    }
}

/// Beside the file, in `.debug` beside it, in a folder of the user's, there also below the file's own path.
fn links_everywhere() {
    let program = Program::build("c++", &["-g", "-O2", "-Wl,--build-id=none"]);
    assert!(program.run("objcopy", &["--only-keep-debug", "program", "kept.debug"]));
    assert!(program.run("objcopy", &["--strip-all", "--add-gnu-debuglink=kept.debug", "program"]));
    let debug = fs::read(program.path("kept.debug")).unwrap();
    let folder = program.path("");
    let user = program.path("user");
    let below = user.join(folder.strip_prefix("/").unwrap());
    for place in [folder.clone(), folder.join(".debug"), user.clone(), below] {
        fs::remove_file(program.path("kept.debug")).ok();
        assert_eq!(program.functions(&mut with_debug_dir(&user)), ["-"], "{}", place.display());
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("kept.debug"), &debug).unwrap();
        program.assert_chain(&mut with_debug_dir(&user));
        // Not the file that the link means.
        fs::write(place.join("kept.debug"), [&debug[..], b"x"].concat()).unwrap();
        assert_eq!(program.functions(&mut with_debug_dir(&user)), ["-"], "{}", place.display());
        fs::remove_file(place.join("kept.debug")).unwrap();
    }
}

fn with_debug_dir(folder: &Path) -> Symbolizer {
    Symbolizer::new(SymbolizeOptions {
        demangle: true,
        debug_dirs: vec![folder.to_owned()],
        usual_debug_dirs: Vec::new(),
    })
}

/// dwz moves what several files have in common into another file.
fn shared_by_dwz() {
    let program = Program::build("c++", &["-gdwarf-4", "-O2", "-Wl,--build-id"]);
    fs::copy(program.path("program"), program.path("twin")).unwrap();
    assert!(program.run("dwz", &["-m", "common", "program", "twin"]));
    assert!(fs::metadata(program.path("common")).unwrap().len() > 1000);
    program.assert_chain(&mut symbolizer());
    // Without it the names that it has are missing, and no others take their place.
    fs::rename(program.path("common"), program.path("moved")).unwrap();
    let functions = program.functions(&mut symbolizer());
    assert!(functions.last().unwrap().starts_with("Shelf::grow"), "{functions:?}");
    assert_ne!(functions.len(), 3);
}

fn split_into_dwo_files() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let program = Program::build("c++", &[version, "-gsplit-dwarf", "-O2"]);
        let dwo = program.file_ending(".dwo");
        program.assert_chain(&mut symbolizer());
        // Moved away, it is missed by its name; in a folder of the user's it is found.
        let user = program.path("user");
        fs::create_dir(&user).unwrap();
        fs::rename(&dwo, user.join(dwo.file_name().unwrap())).unwrap();
        let mut lacking = symbolizer();
        let functions = program.functions(&mut lacking);
        assert!(functions.last().unwrap().starts_with("Shelf::grow"), "{functions:?}");
        let losses: Vec<String> = lacking.losses().map(|(_, reason)| reason.to_owned()).collect();
        let name = dwo.file_name().unwrap().to_str().unwrap();
        assert!(losses.iter().any(|loss| loss.contains(name)), "{losses:?}");
        program.assert_chain(&mut with_debug_dir(&user));
    }
}

fn split_into_a_package() {
    let program = Program::build("c++", &["-gdwarf-4", "-gsplit-dwarf", "-O2"]);
    let dwo = program.file_ending(".dwo");
    let name = dwo.file_name().unwrap().to_str().unwrap();
    assert!(program.run("dwp", &["-o", "program.dwp", name]));
    fs::remove_file(&dwo).unwrap();
    program.assert_chain(&mut symbolizer());
}

fn stubs() {
    for binding in ["lazy", "now"] {
        let program = Program::build("c++", &["-O2", &format!("-Wl,-z,{binding}"), "-fno-plt", "-fplt"]);
        let stub = program.stub_of("malloc");
        let functions = program.functions_at(stub + 1, &mut symbolizer());
        assert_eq!(functions, ["malloc@plt"], "{binding}");
    }
}

/// Both manglings; the one that rustc uses unasked is the older where this was written.
fn names_of_rust() {
    for scheme in [None, Some("-Csymbol-mangling-version=v0")] {
        let program = Program::of_rust(scheme);
        let inside = program.function_containing("grow_table") + 1;
        let functions = program.functions_at(inside, &mut symbolizer());
        assert!(functions.last().unwrap().starts_with("program::shelf::grow_table"), "{functions:?}");
        assert!(!functions.last().unwrap().contains("17h"), "a hash: {functions:?}");
        let mut mangled =
            Symbolizer::new(SymbolizeOptions { demangle: false, ..SymbolizeOptions::default() });
        let functions = program.functions_at(inside, &mut mangled);
        assert!(
            ["_R", "_ZN"].iter().any(|start| functions.last().unwrap().starts_with(start)),
            "{functions:?}"
        );
    }
}

/// Its pages vanish while they are read, again and again: that costs names and never us.
fn cut_while_it_is_read() {
    let program = Program::build("c++", &["-g", "-O2"]);
    let whole = fs::read(program.path("program")).unwrap();
    let file = File::options().write(true).open(program.path("program")).unwrap();
    let done = AtomicBool::new(false);
    let cut = thread::scope(|scope| {
        scope.spawn(|| {
            use std::os::unix::fs::FileExt;
            while !done.load(Ordering::Relaxed) {
                file.set_len(4096).unwrap();
                thread::yield_now();
                file.write_all_at(&whole, 0).unwrap();
            }
        });
        let mut cut = 0;
        for _ in 0..2000 {
            let Ok(held) = File::open(program.path("program")) else { continue };
            let Ok(module) = Module::new(program.path("program"), Content::File(held), true) else {
                continue;
            };
            let mut symbolizer = symbolizer();
            let functions = program.functions_of(&Arc::new(module), program.call, &mut symbolizer);
            let lost = symbolizer.losses().count() > 0;
            cut += usize::from(lost);
            // Either its own names, or none.
            assert!(
                lost || functions == ["-"] || functions.last().unwrap().starts_with("Shelf::grow"),
                "{functions:?}"
            );
        }
        done.store(true, Ordering::Relaxed);
        cut
    });
    println!("{cut} of 2,000 times it was noticed");
    assert!(cut > 0, "it was never cut while it was read");
}

/// The same file with other content, as cp(1) leaves it: what it says now is not of what was mapped.
fn written_to() {
    let program = Program::build("c++", &["-g", "-O2", "-Wl,--build-id"]);
    let module = program.module();
    let other =
        Program::build_source(&SHELF.replace("grow", "wrong"), "c++", &["-g", "-O2", "-Wl,--build-id"]);
    fs::write(program.path("program"), fs::read(other.path("program")).unwrap()).unwrap();
    let mut symbolizer = symbolizer();
    assert_eq!(program.functions_of(&module, program.call, &mut symbolizer), ["-"]);
    assert!(symbolizer.losses().any(|(_, reason)| reason.contains("written to")));
}

/// Runs a program in a folder; whether it succeeded.
fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    if !output.status.success() {
        println!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// The first file in a folder whose name ends so.
fn file_ending(folder: &Path, end: &str) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.to_str().unwrap().ends_with(end)).unwrap()
}
