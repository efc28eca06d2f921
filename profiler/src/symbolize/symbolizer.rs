//! From a code address to named frames.
//!
//! This is the one place where a return address becomes the address of its call: the byte before it. A call that never
//! returns may be a function's last instruction, and then the return address lies in the next function. Whoever calls
//! passes return addresses as they are and gets them back as they are in [`Frame::address`].

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    demangle::{demangle, keep_mangled},
    elf_names::{ElfNames, Engine, Named, Place},
    frame::{Frame, FrameKind},
    image_names::ImageNames,
    perf_map::PerfMap,
    role::role_of,
};
use crate::target::{
    address::Svma,
    module::{Content, Module},
};

/// How names are made.
#[derive(Clone, Debug)]
pub struct SymbolizeOptions {
    /// Whether C++ and Rust names are made readable.
    pub demangle: bool,
    /// Where separate debug files are looked for, best first.
    pub debug_dirs: Vec<PathBuf>,
}

impl Default for SymbolizeOptions {
    fn default() -> Self {
        Self { demangle: true, debug_dirs: vec!["/usr/lib/debug".into(), "/lib/debug".into()] }
    }
}

/// A return address with the module that it lies in.
#[derive(Clone, Debug)]
pub struct CodeLocation {
    /// The return address as the target sees it (AVMA), not reduced.
    pub address: u64,
    /// The module and the stated address of `address` in it, not reduced either; `None` for code without a file.
    pub module: Option<(Arc<Module>, Svma)>,
    /// Whether the frame was found by a frame-pointer guess.
    pub guessed: bool,
}

/// Names code addresses, and remembers what it has named.
#[derive(Debug)]
pub struct Symbolizer {
    options: SymbolizeOptions,
    program: Option<String>,
    perf_map: Option<PerfMap>,
    engine: Engine,
    modules: HashMap<*const Module, ModuleNames>,
    named: HashMap<LocationKey, Vec<Arc<Frame>>>,
}

/// A [`CodeLocation`] as the key of what has been named: address, module with stated address, whether guessed.
type LocationKey = (u64, Option<(*const Module, Svma)>, bool);

/// The names of one module.
#[derive(Debug)]
struct ModuleNames {
    /// Held, so that neither its address (our key) nor its file descriptor (in the source's path) is used again.
    _held: Arc<Module>,
    path: String,
    names: Names,
}

#[derive(Debug)]
enum Names {
    Elf(ElfNames),
    Image(ImageNames),
}

impl Symbolizer {
    /// A symbolizer that has read nothing yet.
    #[must_use]
    pub fn new(options: SymbolizeOptions) -> Self {
        let engine = Engine::new(options.debug_dirs.clone());
        Self {
            options,
            program: None,
            perf_map: None,
            engine,
            modules: HashMap::new(),
            named: HashMap::new(),
        }
    }

    /// Tells which module is the program itself: the executable's path as the target sees it. Without it every module
    /// counts as a library.
    pub fn set_program(&mut self, exe: &Path) {
        self.program = Some(exe.to_string_lossy().into_owned());
        self.named.clear();
    }

    /// Gives the names of generated code, used for addresses without a module.
    pub fn set_perf_map(&mut self, map: PerfMap) {
        self.perf_map = Some(map);
        self.named.clear();
    }

    /// The frames at one return address, leaf first: the functions inlined there, innermost first, then the function that
    /// holds them. There is always at least one; where nothing names the address its function is `None`.
    pub fn frames(&mut self, at: &CodeLocation) -> Vec<Arc<Frame>> {
        let place = at.module.as_ref().map(|(module, svma)| (Arc::as_ptr(module), *svma));
        let key = (at.address, place, at.guessed);
        if let Some(frames) = self.named.get(&key) {
            return frames.clone();
        }
        let frames: Vec<Arc<Frame>> = self.name(at).into_iter().map(Arc::new).collect();
        self.named.insert(key, frames.clone());
        frames
    }

    fn name(&mut self, at: &CodeLocation) -> Vec<Frame> {
        let Some((module, svma)) = &at.module else {
            let call = at.address.saturating_sub(1);
            let name = self.perf_map.as_ref().and_then(|map| map.name_of(call)).map(str::to_owned);
            return vec![self.frame(at, None, None, name, Place::default(), false)];
        };
        let Self { engine, modules, options, .. } = self;
        let known = modules.entry(Arc::as_ptr(module)).or_insert_with(|| ModuleNames::new(module, options));
        let path = known.path.clone();
        let call = Svma(svma.0.saturating_sub(1));
        let found = match &mut known.names {
            Names::Elf(names) => names.look_up(engine, call),
            Names::Image(names) => {
                names.name_of(call).map(|name| Named { functions: vec![(name.to_owned(), Place::default())] })
            }
        };
        let Some(Named { functions }) = found else {
            return vec![self.frame(at, Some(path), Some(*svma), None, Place::default(), false)];
        };
        let readable = if self.options.demangle { demangle } else { keep_mangled };
        let outermost = functions.len().saturating_sub(1);
        functions
            .into_iter()
            .enumerate()
            .map(|(i, (symbol, place))| {
                let function = Some(readable(&symbol));
                self.frame(at, Some(path.clone()), Some(*svma), function, place, i < outermost)
            })
            .collect()
    }

    fn frame(
        &self,
        at: &CodeLocation,
        module: Option<String>,
        offset: Option<Svma>,
        function: Option<String>,
        place: Place,
        inlined: bool,
    ) -> Frame {
        Frame {
            role: role_of(module.as_deref(), function.as_deref(), self.program.as_deref()),
            function,
            file: place.file,
            line: place.line,
            module,
            address: at.address,
            module_offset: offset.map(|svma| svma.0),
            kind: FrameKind::Native,
            inlined,
            guessed: at.guessed,
        }
    }
}

impl ModuleNames {
    fn new(module: &Arc<Module>, options: &SymbolizeOptions) -> Self {
        let names = match &module.content {
            Content::File(held) => {
                Names::Elf(ElfNames::new(held, module.build_id.as_deref(), &options.debug_dirs))
            }
            Content::Memory(image) => Names::Image(ImageNames::new(image)),
        };
        Self { _held: Arc::clone(module), path: module.path.to_string_lossy().into_owned(), names }
    }
}

#[cfg(test)]
mod tests;
