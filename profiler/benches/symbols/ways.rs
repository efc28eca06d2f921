//! The ways to name addresses, and what each answers, in one form.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use heapscope::{
    symbolize::{
        demangle::demangle,
        symbolizer::{CodeLocation, SymbolizeOptions, Symbolizer},
    },
    target::{
        address::Svma,
        module::{Content, Module},
    },
};

/// One way to name addresses.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// A program beside us, or ourselves.
    tool: Option<&'static [&'static str]>,
}

pub(crate) static WAYS: [Way; 5] = [
    Way { name: "heapscope", tool: None },
    Way {
        name: "llvm-symbolizer",
        tool: Some(&["llvm-symbolizer", "--no-demangle", "--functions=linkage", "--inlining", "--obj"]),
    },
    Way { name: "addr2line", tool: Some(&["addr2line", "-a", "-f", "-i", "-e"]) },
    Way { name: "addr2line (crate)", tool: None },
    Way { name: "blazesym", tool: None },
];

/// The functions at an address, innermost first, demangled (a destructor has several linkage names at one place), each with the last part of its file's path and the line.
pub(crate) type Answer = Vec<(String, String)>;

/// Whether both know the same functions.
pub(crate) fn same_functions(one: &Answer, other: &Answer) -> bool {
    one.iter().map(|(function, _)| function).eq(other.iter().map(|(function, _)| function))
}

impl Way {
    pub(crate) fn is_there(&self) -> bool {
        self.tool.is_none_or(|tool| Command::new(tool[0]).arg("--version").output().is_ok())
    }

    /// The command that reads the addresses from standard input, or from `list`.
    pub(crate) fn command(&self, file: &Path, list: &Path) -> Vec<PathBuf> {
        match self.tool {
            Some(tool) => tool.iter().map(PathBuf::from).chain([file.to_owned()]).collect(),
            None => {
                let ourselves = std::env::current_exe().unwrap();
                vec![ourselves, "answer".into(), self.name.into(), file.to_owned(), list.to_owned()]
            }
        }
    }
}

/// What a way printed, address by address.
pub(crate) fn answers(way: &Way, printed: &str) -> Vec<Answer> {
    match way.name {
        "llvm-symbolizer" => printed
            .split("\n\n")
            .filter(|part| !part.trim().is_empty())
            .map(|part| pairs(part.lines()))
            .collect(),
        "addr2line" => printed.split("\n0x").map(|part| pairs(part.lines().skip(1))).collect(),
        _ => printed.lines().map(|line| pairs(line.split('\t'))).collect(),
    }
}

/// Functions and places in turn.
fn pairs<'a>(mut lines: impl Iterator<Item = &'a str>) -> Answer {
    let mut answer = Vec::new();
    while let (Some(function), Some(place)) = (lines.next(), lines.next()) {
        answer.push((demangle(function), last_part(place)));
    }
    answer
}

/// `/usr/include/c++/12/new:180:3 (discriminator 2)` becomes `new:180`.
fn last_part(place: &str) -> String {
    let place = place.split(" (").next().unwrap_or_default();
    let mut parts = place.rsplit('/').next().unwrap_or_default().split(':');
    let (file, line) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{file}:{line}")
}

/// Names the addresses of `list` in one of our ways, and prints an answer a line.
pub(crate) fn answer(way: &str, file: &str, list: &str) {
    let hex = |line: &str| u64::from_str_radix(line.trim_start_matches("0x"), 16).unwrap();
    let addresses: Vec<u64> = fs::read_to_string(list).unwrap().lines().map(hex).collect();
    match way {
        "heapscope" => by_heapscope(file, &addresses),
        "blazesym" => by_blazesym(file, &addresses),
        _ => by_addr2line(file, &addresses),
    }
}

fn print<'a>(functions: impl Iterator<Item = (&'a str, Option<String>, Option<u32>)>) {
    let shown = functions.map(|(function, file, line)| {
        format!("{function}\t{}:{}", file.unwrap_or_else(|| "??".into()), line.unwrap_or(0))
    });
    println!("{}", shown.collect::<Vec<_>>().join("\t"));
}

fn by_heapscope(path: &str, addresses: &[u64]) {
    let content = Content::File(File::open(path).unwrap());
    let module = Arc::new(Module::new(path.into(), content, true).unwrap());
    let mut symbolizer = Symbolizer::new(SymbolizeOptions { demangle: false, ..SymbolizeOptions::default() });
    // The symbolizer is given return addresses, and looks up the call before.
    let locations: Vec<CodeLocation> = addresses
        .iter()
        .map(|address| address + 1)
        .map(|address| CodeLocation {
            address,
            module: Some((Arc::clone(&module), Svma(address))),
            guessed: false,
        })
        .collect();
    symbolizer.prepare(&locations);
    for location in &locations {
        let frames = symbolizer.frames(location);
        print(
            frames
                .iter()
                .map(|frame| (frame.function.as_deref().unwrap_or("??"), frame.file.clone(), frame.line)),
        );
    }
}

fn by_blazesym(path: &str, addresses: &[u64]) {
    use blazesym::symbolize::{Input, Symbolized, Symbolizer, source};
    let symbolizer = Symbolizer::builder().enable_demangling(false).enable_auto_reload(false).build();
    let source = source::Source::Elf(source::Elf::new(path));
    for address in addresses {
        let found = symbolizer.symbolize_single(&source, Input::VirtOffset(*address)).unwrap();
        let Symbolized::Sym(symbol) = found else {
            print([("??", None, None)].into_iter());
            continue;
        };
        let place = |code: Option<&blazesym::symbolize::CodeInfo<'_>>| {
            (code.map(|code| code.file.to_string_lossy().into_owned()), code.and_then(|code| code.line))
        };
        let inlined = symbolizer_order(&symbol);
        print(inlined.into_iter().map(|(name, code)| {
            let (file, line) = place(code);
            (name, file, line)
        }));
    }
}

type Named<'a> = (&'a str, Option<&'a blazesym::symbolize::CodeInfo<'a>>);

/// Innermost first; the crate has the outer function, then what was inlined into it, outermost first.
fn symbolizer_order<'a>(symbol: &'a blazesym::symbolize::Sym<'a>) -> Vec<Named<'a>> {
    let mut chain: Vec<Named<'a>> = vec![(symbol.name.as_ref(), symbol.code_info.as_deref())];
    chain.extend(symbol.inlined.iter().map(|inlined| (inlined.name.as_ref(), inlined.code_info.as_ref())));
    chain.reverse();
    chain
}

fn by_addr2line(path: &str, addresses: &[u64]) {
    use object::{Object, ObjectSection};
    let bytes = fs::read(path).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    let section = |id: gimli::SectionId| {
        let data = elf.section_by_name(id.name()).and_then(|section| section.data().ok()).unwrap_or_default();
        Ok::<_, gimli::Error>(gimli::EndianSlice::new(data, gimli::LittleEndian))
    };
    let mut dwarf = gimli::Dwarf::load(section).unwrap();
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    let context = addr2line::Context::from_dwarf(dwarf).unwrap();
    for address in addresses {
        let mut frames = context.find_frames(*address).skip_all_loads().unwrap();
        let mut found = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.map(|function| function.raw_name().unwrap().into_owned());
            let place = frame.location;
            let file = place.as_ref().and_then(|place| place.file.map(str::to_owned));
            found.push((name.unwrap_or_else(|| "??".into()), file, place.and_then(|place| place.line)));
        }
        print(found.iter().map(|(name, file, line)| (name.as_str(), file.clone(), *line)));
    }
}
