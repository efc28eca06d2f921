//! From a code address to named frames.
//!
//! This is the one place where a return address becomes the address of its call: the byte before it. A call that never
//! returns may be a function's last instruction, and then the return address lies in the next function. Whoever calls
//! passes return addresses as they are and gets them back as they are in [`Frame::address`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    debug_files::DebugFiles,
    demangle::{demangle, keep_mangled},
    dwarf::Place,
    elf_names::{self, Named},
    frame::{Frame, FrameKind},
    perf_map::PerfMap,
    role::role_of,
    sources::Sources,
    target_root::TargetRoot,
    wanted::{self, WantedFunction},
};
use crate::target::{address::Svma, allocator::callers::NamedCode, module::Module};

/// How names are made.
#[derive(Clone, Debug)]
pub struct SymbolizeOptions {
    /// Whether C++, Rust and Swift names are made readable.
    pub demangle: bool,
    /// Where the user keeps separate debug files, best first.
    pub debug_dirs: Vec<PathBuf>,
    /// Where distributions keep them; looked for in the target's file system, then in ours.
    pub usual_debug_dirs: Vec<PathBuf>,
}

impl Default for SymbolizeOptions {
    fn default() -> Self {
        Self {
            demangle: true,
            debug_dirs: Vec::new(),
            usual_debug_dirs: vec!["/usr/lib/debug".into(), "/usr/local/lib/debug".into()],
        }
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
    demangle: bool,
    program: Option<String>,
    perf_map: Option<PerfMap>,
    debug_files: DebugFiles,
    /// Held, so that the addresses in our keys are not used again.
    modules: HashMap<*const Module, Arc<Module>>,
    named: HashMap<LocationKey, Vec<Arc<Frame>>>,
    losses: BTreeMap<String, BTreeSet<String>>,
}

/// A [`CodeLocation`] as the key of what has been named: address, module with stated address, whether guessed.
type LocationKey = (u64, Option<(*const Module, Svma)>, bool);

fn key(at: &CodeLocation) -> LocationKey {
    (at.address, at.module.as_ref().map(|(module, svma)| (Arc::as_ptr(module), *svma)), at.guessed)
}

impl Symbolizer {
    /// A symbolizer that has read nothing yet.
    #[must_use]
    pub fn new(options: SymbolizeOptions) -> Self {
        Self {
            demangle: options.demangle,
            program: None,
            perf_map: None,
            debug_files: DebugFiles::new(options.debug_dirs, options.usual_debug_dirs),
            modules: HashMap::new(),
            named: HashMap::new(),
            losses: BTreeMap::new(),
        }
    }

    /// Tells which module is the program itself: the executable's path as the target sees it. Without it every module
    /// counts as a library.
    pub fn set_program(&mut self, exe: &Path) {
        let exe = exe.to_string_lossy().into_owned();
        if self.program.as_ref() != Some(&exe) {
            self.program = Some(exe);
            self.named.clear();
        }
    }

    /// Gives the names of generated code, used for addresses without a module.
    pub fn set_perf_map(&mut self, map: PerfMap) {
        self.perf_map = Some(map);
        self.named.retain(|(_, place, _), _| place.is_some());
    }

    /// Looks for debug files in the file system of the process `pid` from now on, before ours. It is held open, so that
    /// this works after the process has ended.
    ///
    /// # Errors
    /// When the process is gone or its root may not be opened.
    pub fn set_target_root(&mut self, pid: u32) -> std::io::Result<()> {
        let root = if TargetRoot::is_ours(pid) { None } else { Some(TargetRoot::of_process(pid)?) };
        self.debug_files.set_target_root(root);
        Ok(())
    }

    /// Where the names of a module would come from.
    #[must_use]
    pub fn sources_of(&self, module: &Module) -> Sources {
        Sources::of(module, &self.debug_files)
    }

    /// The functions of a module with this name.
    #[must_use]
    pub fn functions_named(&self, module: &Module, wanted: &WantedFunction) -> Vec<NamedCode> {
        wanted::find(module, &self.debug_files, wanted)
    }

    /// Names of functions in a module that resemble this one, best first, with how much they do, from 0 to 1.
    #[must_use]
    pub fn names_near(&self, module: &Module, wanted: &WantedFunction) -> Vec<(f64, String)> {
        wanted::near(module, &self.debug_files, wanted)
    }

    /// What could not be named and why: for each file its reasons, as sentences without an end.
    pub fn losses(&self) -> impl Iterator<Item = (&str, &str)> {
        self.losses
            .iter()
            .flat_map(|(path, reasons)| reasons.iter().map(|reason| (path.as_str(), reason.as_str())))
    }

    /// Names all these locations at once, which costs a fraction of naming each by itself.
    pub fn prepare<'l>(&mut self, locations: impl IntoIterator<Item = &'l CodeLocation>) {
        let mut by_module: BTreeMap<String, HashMap<*const Module, Vec<&CodeLocation>>> = BTreeMap::new();
        for at in locations {
            if self.named.contains_key(&key(at)) {
                continue;
            }
            match &at.module {
                Some((module, _)) => {
                    let of_path = by_module.entry(module.path.to_string_lossy().into_owned()).or_default();
                    of_path.entry(Arc::as_ptr(module)).or_default().push(at);
                }
                None => {
                    let call = at.address.saturating_sub(1);
                    let name = self.perf_map.as_ref().and_then(|map| map.name_of(call)).map(str::to_owned);
                    let frame = self.frame(at, None, name, Place::default(), false);
                    self.named.insert(key(at), vec![Arc::new(frame)]);
                }
            }
        }
        for (path, locations) in
            by_module.iter().flat_map(|(path, modules)| modules.values().map(move |at| (path, at)))
        {
            self.name_module(path, locations);
        }
    }

    /// The frames at one return address, leaf first: the functions inlined there, innermost first, then the function that
    /// holds them. There is always at least one; where nothing names the address its function is `None`.
    pub fn frames(&mut self, at: &CodeLocation) -> Vec<Arc<Frame>> {
        if !self.named.contains_key(&key(at)) {
            self.prepare([at]);
        }
        self.named.get(&key(at)).cloned().unwrap_or_default()
    }

    /// Names locations that are all in the same module.
    fn name_module(&mut self, path: &str, locations: &[&CodeLocation]) {
        let call_of = |at: &CodeLocation| Some(Svma(at.module.as_ref()?.1.0.saturating_sub(1)));
        let Some((module, _)) = locations.first().and_then(|at| at.module.as_ref()) else { return };
        let mut calls: Vec<Svma> = locations.iter().filter_map(|at| call_of(at)).collect();
        calls.sort_unstable();
        calls.dedup();
        let (named, losses) = elf_names::look_up(module, &self.debug_files, &calls);
        for loss in losses {
            self.losses.entry(path.to_owned()).or_default().insert(loss.to_string());
        }
        self.modules.insert(Arc::as_ptr(module), Arc::clone(module));
        for at in locations {
            let named = call_of(at).and_then(|call| named.get(calls.binary_search(&call).ok()?));
            let frames = self.frames_of(at, path, named.cloned().unwrap_or_default());
            self.named.insert(key(at), frames);
        }
    }

    fn frames_of(&self, at: &CodeLocation, path: &str, named: Named) -> Vec<Arc<Frame>> {
        if named.functions.is_empty() {
            return vec![Arc::new(self.frame(at, Some(path), None, Place::default(), false))];
        }
        let readable = if self.demangle { demangle } else { keep_mangled };
        let outermost = named.functions.len() - 1;
        named
            .functions
            .into_iter()
            .enumerate()
            .map(|(i, (symbol, place))| {
                self.frame(at, Some(path), Some(readable(&symbol)), place, i < outermost)
            })
            .map(Arc::new)
            .collect()
    }

    fn frame(
        &self,
        at: &CodeLocation,
        module: Option<&str>,
        function: Option<String>,
        place: Place,
        inlined: bool,
    ) -> Frame {
        Frame {
            role: role_of(module, function.as_deref(), self.program.as_deref()),
            function,
            file: place.file.map(|file| file.to_string()),
            line: place.line,
            module: module.map(str::to_owned),
            address: at.address,
            module_offset: at.module.as_ref().map(|(_, svma)| svma.0),
            kind: FrameKind::Native,
            inlined,
            guessed: at.guessed,
        }
    }
}

#[cfg(test)]
mod tests;
