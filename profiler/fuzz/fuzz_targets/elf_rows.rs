//! A whole ELF file, as the unwinder reads it: headers, sections, `.eh_frame_hdr`, both kinds of call frame information.
#![no_main]

use heapscope::unwind::rows::rows;
use heapscope_fuzz::check_rows;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    if let Ok(module) = rows(file) {
        check_rows(&module, file);
    }
});
