//! A whole recording, as `heapscope report` reads it; and the messages in it, behind checksums that are right, which no
//! fuzzer would guess.
#![no_main]

use heapscope::report::{
    json,
    options::ReportOptions,
    recording::{
        Recording,
        chunk::{self, Kind},
        write,
    },
};
use libfuzzer_sys::fuzz_target;

/// The input's chunks, each behind its kind and its length in two bytes, as a file whose checksums are right.
fn sealed(mut input: &[u8]) -> Vec<u8> {
    const KINDS: [Kind; 7] = [
        Kind::Definitions,
        Kind::Snapshot,
        Kind::Quality,
        Kind::Account,
        Kind::End,
        Kind::Head,
        Kind::Unknown(77),
    ];
    let mut file = Vec::new();
    chunk::write_header(&mut file).expect("no error of a vector");
    chunk::write(Kind::Head, &[], &mut file).expect("no error of a vector");
    while let Some(([kind, low, high], rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        input = rest;
        let kind = KINDS[usize::from(*kind) % KINDS.len()];
        chunk::write(kind, message, &mut file).expect("a small message");
    }
    file
}

fn check(bytes: Vec<u8>) {
    let Ok(recording) = Recording::read(bytes) else { return };
    let options = ReportOptions::default();
    let last = recording.snapshots().len();
    for profile in [recording.profile(), recording.profile_at(last / 2)] {
        let mut out = Vec::new();
        json::write(&profile, &options, &mut out).expect("no error of a vector");
        for site in &profile.sites {
            assert!(
                site.history.over_time.iter().all(|(at, _)| *at < profile.history.snapshots.len()),
                "of a snapshot that is there"
            );
        }
        let mut again = Vec::new();
        write(&profile, &options, &mut again).expect("what was read can be written");
        let read = Recording::read(again).expect("what was written can be read");
        assert_eq!((read.damage(), read.is_closed()), (None, true));
        assert_eq!(read.profile().totals, profile.totals);
    }
}

fuzz_target!(|input: &[u8]| {
    check(input.to_vec());
    check(sealed(input));
});
