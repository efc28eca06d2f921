//! The user-space walk over tables and a stack of arbitrary words: it ends, within its limits, wherever it is led.
#![no_main]

use arbitrary::Arbitrary;
use bytemuck::{AnyBitPattern, pod_read_unaligned};
use heapscope::unwind::walk::{Found, Registers, Step, Tables, step, walk};
use libfuzzer_sys::fuzz_target;
use profiler_common::{
    limits::MAX_FRAMES,
    records::walk_end,
    tables::{MappingRange, PageRows, Rule},
};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    registers: [u64; 3],
    mappings: &'a [u8],
    pages: &'a [u8],
    rows: &'a [u8],
    rules: &'a [u8],
    stack_at: u64,
    stack: &'a [u8],
}

/// The bytes as values of a table, whatever they are.
fn table<T: AnyBitPattern>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(pod_read_unaligned).collect()
}

fuzz_target!(|input: Input<'_>| {
    // That mappings are sorted is the caller's promise, here as in the kernel.
    let mut mappings: Vec<MappingRange> = table(input.mappings);
    mappings.sort_by_key(|mapping| mapping.begin);
    let (pages, rows, rules) =
        (table::<PageRows>(input.pages), table::<u32>(input.rows), table::<Rule>(input.rules));
    let tables = Tables { mappings: &mappings, pages: &pages, rows: &rows, rules: &rules };
    let mut read_stack = |address: u64| {
        let offset = usize::try_from(address.wrapping_sub(input.stack_at)).ok()?;
        let bytes = input.stack.get(offset..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let [ip, sp, bp] = input.registers;
    let start = Registers { ip, sp, bp };

    let walked = walk(start, &tables, &mut read_stack);
    assert!((1..=MAX_FRAMES).contains(&walked.frames.len()));
    assert!(
        walked.end != walk_end::TRUNCATED || walked.frames.len() == MAX_FRAMES,
        "only a full stack is cut"
    );
    for index in walked.frames.len()..MAX_FRAMES {
        assert_eq!(walked.guessed[index / 64] >> (index % 64) & 1, 0, "only frames are marked as guesses");
    }

    let mut registers = start;
    let before = registers;
    match step(&mut registers, Found::Called, &tables, &mut read_stack) {
        Step::Caller(Found::Interrupted) => {}
        Step::Caller(_) => assert!(registers.sp > before.sp, "each frame lies above the one before it"),
        Step::End(_) => assert_eq!(registers, before),
    }
});
