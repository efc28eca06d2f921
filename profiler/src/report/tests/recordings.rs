//! Recordings: what is written is read, whatever it is; what is damaged is said; version 1 is read for ever.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::report::{
    budget::{BudgetReport, Recorded},
    profile::CodeMapping,
    recording::{
        Counters, Head, Moment, ReadError, Recording, Resident, Writer,
        chunk::{self, FILE_HEADER},
        write,
    },
};

fn written(profile: &Profile) -> Vec<u8> {
    let mut out = Vec::new();
    write(profile, &ReportOptions::default(), &mut out).unwrap();
    out
}

fn json(profile: &Profile) -> String {
    report(Format::Json, profile, &ReportOptions::default())
}

/// Everything of a profile as text, to compare it with another.
fn all(profile: &Profile) -> String {
    format!("{profile:?}")
}

#[test]
fn a_finished_profile_comes_back_whole() {
    let mut shop = shop();
    shop.mapped = Some(mapped());
    shop.python = Some(python());
    let recording = Recording::read(written(&shop)).unwrap();
    assert_eq!((recording.damage(), recording.is_closed()), (None, true));
    assert_eq!(all(&recording.profile()), all(&shop));
    // And once more, as a recording of the recording.
    let again = Recording::read(written(&recording.profile())).unwrap();
    assert_eq!(all(&again.profile()), all(&shop));
}

/// What a budget led to, and what windows saw, is told by the copy as by the original.
#[test]
fn windows_come_back() {
    let mut profile = windows::in_windows();
    profile.sites.iter_mut().for_each(|site| site.history.over_time.clear());
    let recording = Recording::read(written(&profile)).unwrap();
    assert_eq!(all(&recording.profile()), all(&profile));
    assert_eq!(json(&recording.profile()), json(&profile));
}

/// Every block at first, then samples, then windows: each snapshot says what was recorded by its time.
#[test]
fn a_snapshot_knows_what_was_recorded_by_then() {
    let steps = [Recorded::Every, Recorded::Sampled(4096), Recorded::Windows(1024)];
    let steps: Vec<_> = (0..).map(|step| Duration::from_secs(2 * step)).zip(steps).collect();
    let mut mode = Head::of(&shop()).mode;
    let mut out = Vec::new();
    let mut writer = Writer::begin(&mut out, &Head::of(&shop())).unwrap();
    writer.define(1, "glibc", &stack_of(1)).unwrap();
    for second in 0..6 {
        mode.budget = BudgetReport {
            percent: Some(5.0),
            at_least_percent: Some(2.0),
            processor_percent: Some(0.5),
            advance: Some(Duration::from_millis(500)),
            steps: steps.iter().filter(|(after, _)| after.as_secs() <= second).copied().collect(),
        };
        mode.sample_interval = Some(mode.budget.largest_interval()).filter(|interval| *interval > 0);
        let moment = Moment { after: Duration::from_secs(second), ..Moment::default() };
        let counters = Counters { alloc_objects: 5, inuse_objects: 5, errors: [second; 4], ..leak()[0][1] };
        writer.snapshot(&moment, &Quality::default(), &mode, [(1, counters)]).unwrap();
    }
    let recording = Recording::read(out).unwrap();
    let told = [0, 1, 2, 3, 4, 5].map(|snapshot| recording.profile_at(snapshot));
    assert_eq!(
        told.each_ref().map(|told| told.mode.sampling()),
        ["exact", "exact", "sampled", "sampled", "windows", "windows"]
    );
    assert_eq!(told.each_ref().map(|told| told.errors.is_some()), [false, false, true, true, true, true]);
    assert_eq!(told.each_ref().map(|told| told.mode.budget.steps.len()), [1, 1, 2, 2, 3, 3]);
    let says = |told: &Profile| told.quality.warnings.iter().any(|text| text.contains("in windows only"));
    assert_eq!(told.each_ref().map(says), [false, false, false, false, true, true]);
    assert_eq!(told.map(|told| told.history.snapshots.len()), [1, 2, 3, 4, 0, 0]);
}

/// With more ranges than one message takes.
pub(super) fn mapped() -> mapped::MappedMemory {
    let site = |count: u64| mapped::MappedSiteReport {
        inuse_space: count * 4096,
        alloc_space: count * 8192,
        alloc_calls: count,
        oldest: Some(Duration::from_nanos(7)),
        ranges: (0..count).map(|at| (at * 8192, at * 8192 + 4096)).collect(),
        stack: vec![Arc::new(program("map", 3))],
    };
    mapped::MappedMemory {
        inuse_space: 5,
        inuse_pieces: 6,
        calls: mapped::MappingCalls { mmap: 3, failed: 1, ..Default::default() },
        heap: mapped::HeapGrowth { at_begin: Some(0), at_end: None },
        sites: vec![site(20_000), site(1), site(0)],
        ..Default::default()
    }
}

pub(super) fn python() -> pools::PythonMemory {
    let site = pools::PoolSiteReport {
        opened: 9,
        inuse_pools: 8,
        inuse_objects: 70,
        inuse_object_space: 600,
        oldest: Some(Duration::from_millis(5)),
        stack: vec![Arc::new(program("pool", 4))],
    };
    pools::PythonMemory {
        allocator: "pymalloc".into(),
        watched: true,
        pool_size: 4096,
        all_pools: Some(11),
        all_objects: Some(12),
        all_object_space: Some(13),
        unseen_pools: 1,
        read: true,
        opened: 9,
        inuse_pools: 8,
        inuse_objects: 70,
        inuse_object_space: 600,
        sites: vec![site],
        ..Default::default()
    }
}

/// A site's numbers over time, and what a recording is to say of them.
type Histories = Vec<Vec<Counters>>;

fn key(site: usize) -> u64 {
    0x1234_5678_9abc_def0 ^ (site as u64) << 7
}

fn stack_of(site: usize) -> Vec<Arc<Frame>> {
    let line = u32::try_from(site).unwrap() + 1;
    [program("work", line), program("main", 1)].map(Arc::new).into()
}

/// A recording with a snapshot for each step of the histories; the bytes, and how long they were after each snapshot.
pub(super) fn recorded(
    histories: &Histories,
    sampled: bool,
    close: Option<&Profile>,
) -> (Vec<u8>, Vec<usize>) {
    let mut head = Head::of(&shop());
    head.mode.sample_interval = sampled.then_some(4096);
    let mut out = Vec::new();
    let mut writer = Writer::begin(&mut out, &head).unwrap();
    let mut lengths = Vec::new();
    let mut quality = Quality { stacks_walked: 5, ..Quality::default() };
    for step in 0..histories.iter().map(Vec::len).max().unwrap_or(0) {
        // A site is met at the step of its number.
        let met = histories.iter().enumerate().filter(|(site, _)| *site <= step);
        let now: Vec<_> = met.filter_map(|(site, history)| Some((key(site), *history.get(step)?))).collect();
        for (site, _) in histories.iter().enumerate().take(step + 1) {
            if !writer.knows(key(site)) {
                writer.define(key(site), "glibc", &stack_of(site)).unwrap();
            }
        }
        quality.probe_hits += 1;
        let moment = Moment {
            after: Duration::from_secs(step as u64),
            resident: Resident { rss: Some(4096 * step as u64), anon: Some(1), ..Resident::default() },
            marks: if step == 2 { vec!["warm".into()] } else { Vec::new() },
        };
        writer.snapshot(&moment, &quality, &head.mode, now).unwrap();
        lengths.push(writer.written());
    }
    if let Some(profile) = close {
        let keys: Vec<u64> = (0..profile.sites.len()).map(|site| key(1000 + site)).collect();
        writer.close(profile, &keys, false).unwrap();
    }
    (out, lengths)
}

/// What a site has at a step.
fn at(history: &[Counters], site: usize, step: usize) -> Counters {
    if site > step {
        Counters::default()
    } else {
        history.get(step).or(history.last()).copied().unwrap_or_default()
    }
}

fn check_snapshots(histories: &Histories, recording: &Recording) {
    for step in 0..recording.snapshots().len() {
        let profile = recording.profile_at(step);
        assert_eq!(profile.duration, Duration::from_secs(step as u64));
        let mut space = 0_u64;
        for (site, history) in histories.iter().enumerate() {
            let expected = at(history, site, step);
            space = space.saturating_add(expected.inuse_space);
            let line = u32::try_from(site).unwrap() + 1;
            let found = profile.sites.iter().find(|found| found.stack[0].line == Some(line));
            let Some(found) = found else {
                assert_eq!((expected.alloc_objects, expected.inuse_objects), (0, 0), "site {site} at {step}");
                continue;
            };
            let totals = Totals {
                inuse_space: expected.inuse_space,
                inuse_objects: expected.inuse_objects,
                alloc_space: expected.alloc_space,
                alloc_objects: expected.alloc_objects,
            };
            assert_eq!(found.totals, totals, "site {site} at {step}");
            assert_eq!(found.history.temporary_objects, expected.temporary_objects);
            let last = found.history.over_time.last().map_or(0, |(_, space)| *space);
            assert_eq!(last, expected.inuse_space);
        }
        assert_eq!(profile.history.snapshots.last().unwrap().inuse.space, space);
    }
}

fn counters() -> impl Strategy<Value = Counters> {
    let number = || prop_oneof![4 => 0u64..200, 2 => any::<u32>().prop_map(u64::from), 1 => any::<u64>()];
    (number(), number(), number(), number(), number()).prop_map(|(a, b, c, d, e)| Counters {
        alloc_objects: a,
        alloc_space: b,
        inuse_objects: c,
        inuse_space: d,
        temporary_objects: e,
        errors: [a, b, c, d],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the numbers do, each snapshot says what every site had at its time.
    #[test]
    fn snapshots_come_back(
        histories in prop::collection::vec(prop::collection::vec(counters(), 12), 1..6), sampled: bool,
    ) {
        let (bytes, _) = recorded(&histories, sampled, None);
        let recording = Recording::read(bytes).unwrap();
        prop_assert_eq!(recording.damage(), None);
        check_snapshots(&histories, &recording);
    }
}

fn leak() -> Histories {
    let step = |step: u64, size: u64| Counters {
        alloc_objects: 10 * step,
        alloc_space: 10 * step * size,
        inuse_objects: 3 * step,
        inuse_space: 3 * step * size,
        temporary_objects: step,
        errors: [0; 4],
    };
    [100, 64, 24].map(|size| (0..6).map(|at| step(at, size)).collect()).into()
}

/// Ends of chunks.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let ends = chunk::chunks(bytes, FILE_HEADER).map(|chunk| chunk.unwrap().1);
    std::iter::once(FILE_HEADER).chain(ends).collect()
}

#[test]
fn whatever_ends_it_the_snapshots_before_are_there() {
    let shop = shop();
    let (bytes, lengths) = recorded(&leak(), false, Some(&shop));
    let whole = Recording::read(bytes.clone()).unwrap().profile();
    assert_eq!(
        (whole.totals, whole.sites.len(), whole.history.snapshots.len()),
        (shop.totals, shop.sites.len(), 6)
    );
    let boundaries = boundaries(&bytes);
    let some = (0..bytes.len()).filter(|length| length % 11 == 0 || boundaries.contains(length));
    for length in some {
        let read = Recording::read(bytes[..length].to_vec());
        let whole = lengths.iter().filter(|end| **end <= length).count();
        let Ok(recording) = read else {
            assert!(length < boundaries[1], "{length}: {read:?}");
            continue;
        };
        assert_eq!(recording.snapshots().len(), whole, "{length}");
        assert_eq!(recording.damage().is_none(), boundaries.contains(&length), "{length}");
        assert!(!recording.is_closed());
        let profile = recording.profile();
        let warning = profile.quality.warnings.iter().any(|text| text.starts_with("The recording "));
        assert!(warning, "{length}: {:?}", profile.quality.warnings);
        if boundaries.contains(&length) {
            check_snapshots(&leak(), &recording);
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (bytes, _) = recorded(&leak(), false, Some(&shop()));
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        match Recording::read(damaged) {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(recording) => {
                assert!(!recording.warnings().is_empty(), "byte {at}");
                let _ = recording.profile();
            }
        }
    }
}

#[test]
fn what_is_no_recording() {
    assert_eq!(Recording::read(Vec::new()).unwrap_err(), ReadError::NotARecording);
    assert_eq!(Recording::read(b"\x7fELF and more".to_vec()).unwrap_err(), ReadError::NotARecording);
    let mut newer = written(&shop());
    newer[8] = 2;
    assert_eq!(Recording::read(newer).unwrap_err(), ReadError::Newer(2));
    let mut unknown = Vec::new();
    chunk::write(chunk::Kind::Unknown(99), b"of a later version", &mut unknown).unwrap();
    let mut bytes = written(&shop());
    let behind_head = boundaries(&bytes)[1];
    bytes.splice(behind_head..behind_head, unknown);
    let recording = Recording::read(bytes).unwrap();
    assert_eq!((recording.is_closed(), recording.unknown_chunks()), (true, 1));
    assert!(recording.warnings()[0].contains("later version"));
}

/// A file that claims more than there is, or than any real one has, takes no memory.
#[test]
fn hostile_sizes() {
    use prost::Message;

    use crate::report::recording::message::{Definitions, Site};
    let mut out = Vec::new();
    Writer::begin(&mut out, &Head::of(&shop())).unwrap();
    let with = |kind, plain: &[u8]| {
        let mut bytes = out.clone();
        chunk::write(kind, plain, &mut bytes).unwrap();
        Recording::read(bytes).unwrap().damage().unwrap().to_owned()
    };
    let site = |number, stack| Definitions {
        sites: vec![Site { number, allocator: String::new(), stack }],
        ..Definitions::default()
    };
    let of = |definitions: Definitions| with(chunk::Kind::Definitions, &definitions.encode_to_vec());
    assert!(of(site(7, Vec::new())).contains("not its turn"));
    assert!(of(site(0, vec![0])).contains("frames that are not defined"));
    assert!(with(chunk::Kind::Snapshot, &[0xff; 30]).contains("cannot be read"));
    // One byte of a million claims that the message has four gigabytes.
    let mut bytes = out.clone();
    chunk::write(chunk::Kind::Quality, &[0; 1000], &mut bytes).unwrap();
    assert!(
        chunk::write(chunk::Kind::Quality, &vec![0; 2 << 20], &mut bytes).is_err(),
        "too large to be read"
    );
}

/// Never to be written anew: it is what version 1 is. When a later version reads it differently, that version is wrong.
#[test]
fn version_1_is_read_for_ever() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/version-1.hscope");
    if !path.exists() {
        let mut profile = shop();
        profile.mapped = Some(mapped());
        profile.code = vec![CodeMapping {
            path: "/srv/shop".into(),
            build_id: Some("0123456789abcdef".into()),
            range: 0x1000..0x2000,
            file_offset: 0x1000,
        }];
        fs::write(&path, recorded(&leak(), true, Some(&profile)).0).unwrap();
    }
    let recording = Recording::read(fs::read(&path).unwrap()).unwrap();
    assert_eq!((recording.damage(), recording.is_closed()), (None, true));
    hold_against_golden("version-1.hscope.json", &json(&recording.profile()));
    hold_against_golden("version-1.hscope.2s.json", &json(&recording.profile_at(2)));
    let taken = &recording.snapshots()[2];
    assert_eq!((taken.marks.as_slice(), taken.resident.anon), (&["warm".to_owned()][..], Some(1)));
}
