//! The headers of a module: segments, build-id, and addresses back and forth; and names from an image in memory.
#![no_main]

use std::sync::Arc;

use heapscope::{
    symbolize::symbolizer::{CodeLocation, SymbolizeOptions, Symbolizer},
    target::{address::Svma, maps::Maps},
};
use heapscope_fuzz::{check_module, module_in_memory};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(module) = module_in_memory(file) else { return };
    check_module(&module);
    let lines = "1000-2000 r-xp 00001000 00:00 1 /a\n7fff0000-80000000 r--p 00000000 00:00 1 /a\n";
    for mapping in &Maps::parse(lines.as_bytes()).mappings {
        let _ = module.bias(mapping);
    }
    let module = Arc::new(module);
    let mut symbolizer = Symbolizer::new(SymbolizeOptions { demangle: true, debug_dirs: Vec::new() });
    for segment in &module.segments {
        let at = Svma(segment.svma.0.saturating_add(segment.file_size / 2));
        let location =
            CodeLocation { address: at.0, module: Some((Arc::clone(&module), at)), guessed: false };
        assert!(!symbolizer.frames(&location).is_empty());
    }
});
