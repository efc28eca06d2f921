//! A record of the ring buffer: no more frames than there are bytes, whatever the head says.
#![no_main]

use heapscope::probe::StackRecord;
use libfuzzer_sys::fuzz_target;
use profiler_common::{limits::MAX_FRAMES, records::StackHead};

fuzz_target!(|record: &[u8]| {
    let Some(stack) = StackRecord::parse(record) else {
        assert!(record.len() < size_of::<StackHead>());
        return;
    };
    let bytes = record.len() - size_of::<StackHead>();
    assert_eq!(stack.frames.len(), (bytes / 8).min(stack.head.frames.into()).min(MAX_FRAMES));
    for index in 0..=usize::from(stack.head.frames) {
        assert!(index < MAX_FRAMES || !stack.guessed(index));
    }
});
