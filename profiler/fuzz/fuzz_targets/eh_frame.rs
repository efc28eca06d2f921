//! `.eh_frame` inside a valid ELF file: the call frame instructions, entry by entry.
#![no_main]

use heapscope::unwind::rows::{Pruning, rows_with};
use heapscope_fuzz::{check_rows, with_call_frames};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|eh_frame: &[u8]| {
    let file = with_call_frames(eh_frame);
    for pruning in [Pruning::None, Pruning::CallSites] {
        if let Ok(module) = rows_with(&file, pruning) {
            check_rows(&module, &file);
        }
    }
});
