//! The line tables of CPython's code objects, as they come out of the target's memory.
#![no_main]

use heapscope::target::python::lines::LineTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (i32, u16, &[u8])| {
    let (first_line, place, table) = input;
    for kind in [LineTable::Notes, LineTable::Ranges, LineTable::Locations] {
        for byte in [0, u64::from(place), u64::MAX] {
            let line = kind.line_of(table, i64::from(first_line), byte);
            assert!(line.is_none_or(|line| line > 0));
        }
    }
});
