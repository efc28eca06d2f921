//! `/proc/PID/maps`: every line becomes a sound mapping or is counted as damaged.
#![no_main]

use heapscope::target::maps::Maps;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let maps = Maps::parse(text);
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
    assert_eq!(maps.mappings.len() + maps.damaged_lines, lines);
    for mapping in &maps.mappings {
        assert!(
            mapping.size() > 0
                && mapping.contains(mapping.range.start)
                && !mapping.contains(mapping.range.end)
        );
        assert!(mapping.path().is_none_or(|path| path.is_absolute()));
        assert!(maps.find(mapping.range.start).is_some());
    }
});
