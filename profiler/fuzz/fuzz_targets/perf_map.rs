//! `/tmp/perf-PID.map`: whatever a JIT writes, names are harmless and belong to a line of the file.
#![no_main]

use heapscope::symbolize::{label, perf_map::PerfMap};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let map = PerfMap::parse(text);
    let number = |field: &[u8]| {
        let digits = std::str::from_utf8(field).ok()?;
        u64::from_str_radix(digits.trim_start_matches("0x"), 16).ok()
    };
    for line in text.split(|&byte| byte == b'\n') {
        let mut fields = line.splitn(3, |&byte| byte == b' ');
        let (Some(start), Some(size)) = (fields.next().and_then(number), fields.next().and_then(number))
        else {
            continue;
        };
        for address in [start, start.wrapping_add(size).wrapping_sub(1), start.wrapping_add(size)] {
            if let Some(name) = map.name_of(address) {
                assert!(!name.is_empty() && name.len() <= 4 * 4096);
                assert_eq!(label::clean(name), name, "names are clean");
            }
        }
    }
});
