//! The shop's peak, exit, marks, sizes, threads and mapped files.

use std::time::Duration;

use profiler_common::records::Held;

use crate::report::{
    history::{Generation, History, Moment, SiteHistory, SizeClass, Snapshot},
    profile::CodeMapping,
};

fn held(space: u64, objects: u64) -> Held {
    Held { space, objects }
}

pub(super) fn site_history(space: u64, objects: u64) -> SiteHistory {
    let class = |smallest, largest, inuse_objects| SizeClass {
        smallest,
        largest,
        alloc_objects: 2 * inuse_objects,
        inuse_objects,
    };
    SiteHistory {
        peak: held(2 * space, 2 * objects),
        exit: held(space, objects),
        temporary_objects: objects / 4,
        sizes: vec![class(33, Some(64), objects), class(65_537, None, 0)],
        threads: vec![("worker-1".into(), held(space, objects))],
        generations: vec![(0, held(space, objects))],
        over_time: vec![(1, space)],
        births: vec![
            (4, held(space / 4, objects / 4)),
            (150, held(space - space / 4, objects - objects / 4)),
        ],
    }
}

pub(super) fn history() -> History {
    let moment = |seconds, held| Moment { after: Duration::from_secs(seconds), held, error: None };
    let generation = |mark: Option<&str>, seconds, held| Generation {
        mark: mark.map(str::to_owned),
        after: Duration::from_secs(seconds),
        held,
        error: None,
    };
    let snapshot = |seconds, inuse| Snapshot {
        after: Duration::from_secs(seconds),
        inuse,
        rss: (seconds > 0).then_some(40 << 20),
    };
    History {
        peak: Some(moment(12, held(20 << 20, 90_000))),
        exit: Some(moment(30, held(9 << 20, 5_000))),
        end: held(8 << 20, 4_000),
        generations: vec![
            generation(None, 0, held(8 << 20, 4_000)),
            generation(Some("after warm-up"), 10, held(0, 0)),
        ],
        snapshots: vec![snapshot(0, held(0, 0)), snapshot(1, held(9 << 20, 5_000))],
        birth_span: Duration::from_millis(200),
        births: vec![(4, held(2 << 20, 1_000)), (150, held(6 << 20, 3_000))],
    }
}

/// All frames of the shop have addresses in this range, whatever their file.
pub(super) fn code() -> Vec<CodeMapping> {
    let file = |path: &str, build_id: Option<&str>| CodeMapping {
        path: path.into(),
        build_id: build_id.map(str::to_owned),
        range: 0x7f00_0000_0000..0x7f00_0000_2000,
        file_offset: 0x1000,
    };
    vec![
        file("/usr/lib/libjson.so.2", Some("0123456789abcdef0123456789abcdef01234567")),
        file("/srv/shop", Some("feedfacefeedfacefeedfacefeedfacefeedface")),
        file("/lib/x86_64-linux-gnu/libc.so.6", None),
        file("/usr/lib/libstripped.so", None),
    ]
}
