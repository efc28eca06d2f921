//! Symbol names: demangled within bounds, sorted into roles, and shown as one line of harmless text.
#![no_main]

use std::sync::Arc;

use heapscope::symbolize::{
    demangle::{MAX_NAME_BYTES, demangle, keep_mangled},
    fold::{cut_middle, fold, shorten},
    frame::{Frame, FrameKind},
    label,
    role::role_of,
};
use libfuzzer_sys::fuzz_target;

// The fields of the input, each but the first may be absent: symbol, module, file, what else there is to choose.
fuzz_target!(|input: &str| {
    let mut fields = input.split('\u{1f}');
    let symbol = fields.next().unwrap_or_default();
    let (module, file) = (fields.next(), fields.next());
    let choice = fields.next().and_then(|choice| choice.bytes().next()).unwrap_or_default();
    let name = demangle(symbol);
    assert!(name.len() <= MAX_NAME_BYTES && keep_mangled(symbol).len() <= MAX_NAME_BYTES);
    let frame = Arc::new(Frame {
        role: role_of(module, Some(&name), file),
        function: Some(name),
        file: file.map(str::to_owned),
        line: Some(choice.into()),
        module: module.map(str::to_owned),
        address: 0x1000,
        module_offset: Some(0x10),
        kind: if choice & 1 == 0 { FrameKind::Native } else { FrameKind::Python },
        inlined: false,
        guessed: choice & 2 == 0,
    });
    for text in [label::name(&frame), label::described(&frame)] {
        assert!(!text.is_empty(), "every frame has a name");
        assert_eq!(label::clean(&text), text, "one line of harmless text");
        assert!(cut_middle(&text, choice.into()).chars().count() <= usize::from(choice).max(3));
    }
    let stack = vec![frame; usize::from(choice % 7)];
    assert_eq!(fold(&stack, false).is_empty(), stack.is_empty(), "folding leaves a frame");
    assert!(shorten(&stack, choice.into(), 4).len() <= 4);
});
