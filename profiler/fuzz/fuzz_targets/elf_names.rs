//! Names from hostile symbol tables and DWARF. The crate that reads them may panic; that must stay behind our wall, and
//! so the panic hook of libFuzzer, which would end the process at once, is replaced: a panic that passes the wall still
//! ends it.
#![no_main]

use std::{panic, sync::Arc};

use heapscope::{
    symbolize::symbolizer::{CodeLocation, SymbolizeOptions, Symbolizer},
    target::address::Svma,
};
use heapscope_fuzz::{module_in_file, with_debug_sections};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: panic::set_hook(Box::new(|_| {})), |input: &[u8]| {
    let whole = input.starts_with(b"\x7fELF");
    let Ok(module) = (if whole { module_in_file(input) } else { module_in_file(&with_debug_sections(input)) })
    else {
        return;
    };
    let module = Arc::new(module);
    let mut symbolizer = Symbolizer::new(SymbolizeOptions { demangle: true, debug_dirs: Vec::new() });
    for at in [0x1001, 0x1010, 0x1040, 0x1fff, u64::MAX].map(Svma) {
        let location = CodeLocation { address: at.0, module: Some((Arc::clone(&module), at)), guessed: false };
        let frames = symbolizer.frames(&location);
        assert!((1..=65).contains(&frames.len()), "inlined functions are bounded");
        assert!(!frames.last().is_some_and(|frame| frame.inlined), "the last frame holds the others");
        for frame in frames {
            assert!(frame.function.as_ref().is_none_or(|name| name.len() <= 16 << 10));
            assert!(frame.file.as_ref().is_none_or(|file| file.len() <= 4 * 4096) && frame.line != Some(0));
        }
    }
});
