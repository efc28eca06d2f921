//! The search for allocators: symbols of a hostile file, and hostile code in a valid one, where wrappers are told by
//! following their jumps; then the place for each probe.
#![no_main]

use std::sync::Arc;

use heapscope::target::{allocator::find_in, placement::place};
use heapscope_fuzz::{module_in_file, with_allocator};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = input.starts_with(b"\x7fELF");
    let Ok(module) = (if whole { module_in_file(input) } else { module_in_file(&with_allocator(input)) })
    else {
        return;
    };
    let module = Arc::new(module);
    let Ok(allocators) = find_in(&module) else { return };
    assert!(allocators.len() <= 5);
    for allocator in &allocators {
        // Four other families' functions can join those of the first.
        assert!(allocator.functions.len() + allocator.wrappers.len() <= 5 * 128);
        for function in &allocator.functions {
            assert!(function.aliases.len() <= 128);
            if let Ok(placement) = place(&module, function) {
                assert!(u64::from(placement.offset_in_function) < function.size);
            }
        }
    }
});
