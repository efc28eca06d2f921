//! Programs made for the tests, with functions whose names and places are known.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use heapscope::{
    symbolize::{
        frame::Frame,
        symbolizer::{CodeLocation, SymbolizeOptions, Symbolizer},
    },
    target::{
        address::Svma,
        module::{Content, Module},
    },
};
use iced_x86::{Decoder, DecoderOptions};
use object::{Object, ObjectSection, ObjectSymbol};
use tempfile::TempDir;

use super::{file_ending, run_in};

/// `take` and `shelve` are inlined into `grow`.
pub(crate) const SHELF: &str = r#"#include <cstdlib>
void *volatile kept;
namespace {
__attribute__((always_inline)) inline void *take(unsigned long size) {
    return std::malloc(size);                   // line 5
}
__attribute__((always_inline)) inline void *shelve(unsigned long size) {
    return take(size + 1);                      // line 8
}
}
struct Shelf {
    __attribute__((noinline)) void *grow(unsigned long size);
};
void *Shelf::grow(unsigned long size) {
    void *block = shelve(size);                 // line 15
    *static_cast<char *>(block) = 1;
    return block;
}
int main(int count, char **) {
    Shelf shelf;
    kept = shelf.grow(static_cast<unsigned long>(count));
    return 0;
}
"#;

const RUST: &str = "mod shelf {
    #[inline(never)]
    pub fn grow_table<T: Default + Clone>(size: usize) -> Vec<T> {
        vec![T::default(); std::hint::black_box(size)]
    }
}
fn main() {
    std::hint::black_box(shelf::grow_table::<u64>(std::env::args().count()));
}
";

/// No debug files but those that a test makes.
pub(crate) fn symbolizer() -> Symbolizer {
    Symbolizer::new(SymbolizeOptions { demangle: true, debug_dirs: Vec::new(), usual_debug_dirs: Vec::new() })
}

/// A program in a folder of its own.
pub(crate) struct Program {
    folder: TempDir,
    /// Where the call of malloc in `grow` returns to, as the file states it.
    pub(crate) call: u64,
}

impl Program {
    pub(crate) fn build(compiler: &str, flags: &[&str]) -> Self {
        Self::build_source(SHELF, compiler, flags)
    }

    pub(crate) fn build_source(source: &str, compiler: &str, flags: &[&str]) -> Self {
        let mut program = Self { folder: TempDir::new().unwrap(), call: 0 };
        fs::write(program.path("shelf.cpp"), source).unwrap();
        let arguments = [flags, &["-o", "program", "shelf.cpp"]].concat();
        assert!(program.run(compiler, &arguments));
        let function = if source == SHELF { "_ZN5Shelf4growEm" } else { "_ZN5Shelf5wrongEm" };
        program.call = program.first_call_in(function);
        program
    }

    pub(crate) fn of_rust(flag: Option<&str>) -> Self {
        let program = Self { folder: TempDir::new().unwrap(), call: 0 };
        fs::write(program.path("program.rs"), RUST).unwrap();
        let flags = ["-Cdebuginfo=2", "-Copt-level=2", "program.rs"];
        assert!(program.run("rustc", &flags.into_iter().chain(flag).collect::<Vec<_>>()));
        program
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> bool {
        run_in(self.folder.path(), program, arguments)
    }

    pub(crate) fn file_ending(&self, end: &str) -> PathBuf {
        file_ending(&self.path(""), end)
    }

    /// As a target has it mapped.
    pub(crate) fn module(&self) -> Arc<Module> {
        let path = self.path("program");
        Arc::new(Module::new(path.clone(), Content::File(File::open(path).unwrap()), true).unwrap())
    }

    /// The functions at malloc's return, innermost first; `-` where there is no name.
    pub(crate) fn functions(&self, symbolizer: &mut Symbolizer) -> Vec<String> {
        self.functions_at(self.call, symbolizer)
    }

    pub(crate) fn functions_at(&self, svma: u64, symbolizer: &mut Symbolizer) -> Vec<String> {
        self.functions_of(&self.module(), svma, symbolizer)
    }

    pub(crate) fn functions_of(
        &self,
        module: &Arc<Module>,
        svma: u64,
        symbolizer: &mut Symbolizer,
    ) -> Vec<String> {
        let name = |frame: Arc<Frame>| frame.function.clone().unwrap_or_else(|| "-".into());
        frames(module, svma, symbolizer).into_iter().map(name).collect()
    }

    /// Both inlined functions and the one that holds them, each with its file and line.
    pub(crate) fn assert_chain(&self, symbolizer: &mut Symbolizer) {
        let frames = frames(&self.module(), self.call, symbolizer);
        let seen: Vec<(&str, Option<u32>, bool)> = frames
            .iter()
            .map(|frame| (frame.function.as_deref().unwrap_or("-"), frame.line, frame.inlined))
            .map(|(function, line, inlined)| {
                (function.trim_start_matches("(anonymous namespace)::"), line, inlined)
            })
            .map(|(function, line, inlined)| (function.split('(').next().unwrap(), line, inlined))
            .collect();
        let expected = [("take", Some(5), true), ("shelve", Some(8), true), ("Shelf::grow", Some(15), false)];
        let losses: Vec<_> = symbolizer.losses().collect();
        assert_eq!(seen, expected, "{losses:?}");
        for frame in &frames {
            assert!(Path::new(frame.file.as_deref().unwrap()).ends_with("shelf.cpp"), "{frame:?}");
        }
        assert_eq!(symbolizer.losses().collect::<Vec<_>>(), []);
    }

    fn first_call_in(&self, function: &str) -> u64 {
        let bytes = fs::read(self.path("program")).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(function)).unwrap();
        let text = file.section_by_index(symbol.section_index().unwrap()).unwrap();
        let code = text.data_range(symbol.address(), symbol.size()).unwrap().unwrap();
        let mut instructions = Decoder::with_ip(64, code, symbol.address(), DecoderOptions::NONE).into_iter();
        instructions.find(|instruction| instruction.is_call_near()).unwrap().next_ip()
    }

    pub(crate) fn function_containing(&self, part: &str) -> u64 {
        let bytes = fs::read(self.path("program")).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let names = |symbol: &object::Symbol<'_, '_>| symbol.name().is_ok_and(|name| name.contains(part));
        file.symbols().find(|symbol| names(symbol) && symbol.size() > 0).unwrap().address()
    }

    /// The address of the stub that `grow` calls.
    pub(crate) fn stub_of(&self, function: &str) -> u64 {
        assert_eq!(function, "malloc", "the only one that is called there");
        let bytes = fs::read(self.path("program")).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let text = file.section_by_name(".text").unwrap();
        let call = text.data_range(self.call - 5, 5).unwrap().unwrap();
        let instruction = Decoder::with_ip(64, call, self.call - 5, DecoderOptions::NONE).decode();
        instruction.near_branch_target()
    }
}

fn frames(module: &Arc<Module>, svma: u64, symbolizer: &mut Symbolizer) -> Vec<Arc<Frame>> {
    let address = 0x5555_0000_0000 + svma;
    symbolizer.frames(&CodeLocation {
        address,
        module: Some((Arc::clone(module), Svma(svma))),
        guessed: false,
    })
}
