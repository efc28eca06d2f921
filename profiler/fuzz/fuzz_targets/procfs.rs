//! The other texts of `/proc/PID`: stat, status, and names made fit for a terminal.
#![no_main]

use heapscope::target::procfs::{parse_stat, parse_status, printable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Some(stat) = parse_stat(text) {
        assert!(text.contains(&b')') && stat.state.is_ascii());
    }
    let _ = parse_status(text);
    assert!(!printable(text).contains(char::is_control));
});
