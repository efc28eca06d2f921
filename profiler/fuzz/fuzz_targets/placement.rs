//! Hostile code: a probe sits on the beginning of an instruction near the entry, or there is none.
#![no_main]

use heapscope::target::{address::FileOffset, placement::place_in};
use libfuzzer_sys::fuzz_target;
use profiler_common::records::Call;

fuzz_target!(|code: &[u8]| {
    for call in [Call::allocate(0), Call::reallocate(0, 1), Call::allocate_into(0, 2), Call::free(0)] {
        let Some(placement) = place_in(code, call, FileOffset(0x1000)) else { continue };
        let offset = usize::try_from(placement.offset_in_function).expect("an offset");
        assert!(offset < code.len() && offset <= 64, "the probe lies near the entry");
        assert_eq!(placement.file_offset.0, 0x1000 + offset as u64);
        assert!(code[offset] != 0xCC, "not on a breakpoint");
        if call.needs_return() {
            assert_eq!(placement.stack_offset, 0, "the return address is where the kernel looks for it");
        }
    }
});
