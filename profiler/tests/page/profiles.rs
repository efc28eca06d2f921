//! Profiles for the page: a service of as many sites as wanted, with a leak, a cache, Python, threads and marks; always the
//! same for the same number.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use heapscope::{
    report::{
        history::{Generation, History, Moment, SiteHistory, SizeClass, Snapshot},
        profile::{Mode, Profile, Quality, SiteReport, TargetInfo, Totals},
    },
    symbolize::frame::{Frame, FrameKind, FrameRole},
};
use profiler_common::records::Held;

/// Ten minutes, seen 240 times, with births in 200 spans.
pub(crate) const DURATION: Duration = Duration::from_secs(600);
const SNAPSHOTS: usize = 240;
pub(crate) const SPANS: usize = 200;

/// xorshift64: the same numbers everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

pub(crate) fn frame(function: &str, module: &str, role: FrameRole) -> Frame {
    let kind = if module.is_empty() { FrameKind::Python } else { FrameKind::Native };
    let line = function.bytes().fold(7u32, |sum, byte| sum * 3 % 977 + u32::from(byte));
    let folder = if kind == FrameKind::Python { "/srv/shop/plugins" } else { "/build/shop/src" };
    let ending = if kind == FrameKind::Python { "py" } else { "c" };
    let has_lines = matches!(role, FrameRole::Program | FrameRole::Library);
    Frame {
        function: Some(function.into()),
        file: has_lines.then(|| {
            format!("{folder}/{}.{ending}", function.split(['_', '(', ':']).next().unwrap_or("main"))
        }),
        line: has_lines.then_some(line),
        module: (!module.is_empty()).then(|| module.into()),
        address: 0x55d0_0000_1000 + u64::from(line),
        module_offset: Some(0x1000),
        kind,
        inlined: false,
        guessed: false,
        role,
    }
}

/// Sites share their frames, as those of a real profile do.
static MET: LazyLock<Mutex<HashMap<String, Arc<Frame>>>> = LazyLock::new(Mutex::default);

pub(crate) fn stack(leaf_first: &[(&str, &str, FrameRole)]) -> Vec<Arc<Frame>> {
    let mut met = MET.lock().unwrap();
    let key = |function: &str, module: &str| format!("{function} {module}");
    let shared = |(function, module, role): &(&str, &str, FrameRole)| {
        let place = met.entry(key(function, module));
        Arc::clone(place.or_insert_with(|| Arc::new(frame(function, module, *role))))
    };
    leaf_first.iter().map(shared).collect()
}

fn rooted(mut leaf_first: Vec<Arc<Frame>>) -> Vec<Arc<Frame>> {
    use FrameRole::{Program, Runtime};
    const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";
    leaf_first.extend(stack(&[
        ("worker_loop", "/srv/shop/shop", Program),
        ("start_thread", LIBC, Runtime),
        ("clone3", LIBC, Runtime),
    ]));
    leaf_first
}

/// A site whose live blocks, of this size, were born in these spans, each of so many; `freed` more came and went.
pub(crate) fn site(stack: Vec<Arc<Frame>>, size: u64, births: &[(usize, u64)], freed: u64) -> SiteReport {
    let objects: u64 = births.iter().map(|(_, objects)| objects).sum();
    let held = |objects| Held { objects, space: objects * size };
    let mut over_time = Vec::new();
    for (span, born) in births {
        let index = (span + 1) * SNAPSHOTS / SPANS;
        let before = over_time.last().map_or(0, |(_, space)| *space);
        over_time.push((index.min(SNAPSHOTS - 1), before + born * size));
    }
    over_time.dedup_by_key(|(index, _)| *index);
    let first = births.first().map(|(span, _)| *span);
    SiteReport {
        totals: Totals {
            inuse_space: objects * size,
            inuse_objects: objects,
            alloc_space: (objects + freed) * size,
            alloc_objects: objects + freed,
        },
        errors: None,
        kept: None,
        oldest: first
            .map(|span| DURATION - DURATION / u32::try_from(SPANS).unwrap() * u32::try_from(span).unwrap()),
        allocator: "glibc".into(),
        stack,
        history: SiteHistory {
            peak: held(objects),
            exit: held(objects),
            temporary_objects: freed / 2,
            sizes: vec![SizeClass {
                smallest: size,
                largest: Some(size),
                alloc_objects: objects + freed,
                inuse_objects: objects,
            }],
            threads: vec![
                ("worker-1".into(), held(objects - objects / 3)),
                ("worker-2".into(), held(objects / 3)),
            ],
            generations: vec![(0, held(objects / 2)), (1, held(objects - objects / 2))],
            over_time,
            births: births.iter().map(|(span, objects)| (*span, held(*objects))).collect(),
        },
    }
}

/// The service. The first site is the leak: 51 blocks of 1,024 bytes in each span, none freed.
pub(crate) fn service(sites: usize) -> Profile {
    use FrameRole::{Allocator, Interpreter, Library, Program};
    const SHOP: &str = "/srv/shop/shop";
    const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";
    const JSON: &str = "/usr/lib/x86_64-linux-gnu/libjson-c.so.5";
    const PYTHON: &str = "/usr/lib/libpython3.13.so.1.0";
    let mut dice = Dice(0x5eed_1234_9876_0001);
    let malloc = ("malloc", LIBC, Allocator);
    let every: Vec<(usize, u64)> = (0..SPANS).map(|span| (span, 51)).collect();
    let early: Vec<(usize, u64)> = (0..12).map(|span| (span, 180)).collect();
    let mut all = vec![
        site(
            rooted(stack(&[malloc, ("session_open", SHOP, Program), ("handle_request", SHOP, Program)])),
            1024,
            &every,
            0,
        ),
        site(
            rooted(stack(&[malloc, ("thumbnail_put", SHOP, Program), ("handle_request", SHOP, Program)])),
            4096,
            &early,
            20_000,
        ),
        site(
            rooted(stack(&[
                ("PyMem_Malloc", PYTHON, Allocator),
                ("PyDict_New", PYTHON, Interpreter),
                ("on_request", "", Program),
                ("_PyEval_EvalFrameDefault", PYTHON, Interpreter),
                ("run_plugin", SHOP, Program),
            ])),
            232,
            &[(3, 900), (90, 1400)],
            700,
        ),
    ];
    while all.len() < sites {
        let mut frames = vec![malloc];
        let number = all.len();
        let names: Vec<String> = (0..3 + dice.roll(14))
            .map(|depth| {
                format!(
                    "{}_{}",
                    ["parse", "render", "query", "encode", "route", "copy"]
                        [usize::try_from(dice.roll(6)).unwrap()],
                    (number as u64 * 7 + depth * dice.roll(5)) % 1800
                )
            })
            .collect();
        frames.extend(names.iter().enumerate().map(|(depth, name)| match depth % 3 {
            0 => (name.as_str(), JSON, Library),
            _ => (name.as_str(), SHOP, Program),
        }));
        frames.push(("handle_request", SHOP, Program));
        // Most sites have filled up by some moment.
        let length = if number % 23 == 0 { SPANS as u64 / 2 } else { 12 };
        let begin = usize::try_from(dice.roll(SPANS as u64 - length)).unwrap();
        let mut births: Vec<(usize, u64)> = (0..dice.roll(24))
            .map(|_| (begin + usize::try_from(dice.roll(length)).unwrap(), 1 + dice.roll(9)))
            .collect();
        births.sort_unstable();
        births.dedup_by_key(|(span, _)| *span);
        let size = 16 * (1 + dice.roll(40));
        let freed = dice.roll(4000) + 1;
        all.push(site(rooted(stack(&frames)), size, &births, freed));
    }
    profile(all)
}

/// A profile of these sites.
pub(crate) fn profile(mut sites: Vec<SiteReport>) -> Profile {
    sites.sort_by_key(|site| std::cmp::Reverse(site.totals.inuse_space));
    let sum = |part: fn(&Totals) -> u64| sites.iter().map(|site| part(&site.totals)).sum();
    let totals = Totals {
        inuse_space: sum(|totals| totals.inuse_space),
        inuse_objects: sum(|totals| totals.inuse_objects),
        alloc_space: sum(|totals| totals.alloc_space),
        alloc_objects: sum(|totals| totals.alloc_objects),
    };
    let mut births = vec![Held::NOTHING; SPANS];
    let mut live = vec![Held::NOTHING; SNAPSHOTS];
    for site in &sites {
        for (span, held) in &site.history.births {
            births[*span].space += held.space;
            births[*span].objects += held.objects;
        }
        let mut changes = site.history.over_time.iter().peekable();
        let (mut space, size) = (0, site.totals.inuse_space / site.totals.inuse_objects.max(1));
        for (index, sum) in live.iter_mut().enumerate() {
            while let Some((_, now)) = changes.next_if(|(from, _)| *from <= index) {
                space = *now;
            }
            sum.space += space;
            sum.objects += space / size.max(1);
        }
    }
    let snapshots: Vec<Snapshot> = live
        .iter()
        .enumerate()
        .map(|(index, held)| Snapshot {
            after: DURATION.mul_f64(index as f64 / (SNAPSHOTS - 1) as f64),
            inuse: *held,
            rss: Some((48 << 20) + held.space * 5 / 4 + (index as u64 % 7) * 40_000),
        })
        .collect();
    let end = Held { objects: totals.inuse_objects, space: totals.inuse_space };
    let generation = |mark: Option<&str>, seconds| Generation {
        mark: mark.map(str::to_owned),
        after: Duration::from_secs(seconds),
        held: Held { objects: end.objects / 2, space: end.space / 2 },
        error: None,
    };
    Profile {
        windowed: None,
        target: TargetInfo {
            pid: 4711,
            command: "/srv/shop/shop --port 8080 --workers 2".into(),
            exe: "/srv/shop/shop".into(),
        },
        started: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
        duration: DURATION,
        mode: Mode { command: "attach".into(), probes: "session".into(), ..Mode::default() },
        totals,
        errors: None,
        quality: Quality {
            unmatched_frees: 1834,
            lost: [("stack_record_lost".to_owned(), 2)].into(),
            stacks_walked: 40_000,
            truncated_stacks: 3,
            probe_hits: 81_000,
            overhead_percent: Some(0.84),
            warnings: vec!["libold.so.1 has no unwind information".into()],
            ..Quality::default()
        },
        history: History {
            peak: Some(Moment { after: DURATION, held: end, error: None }),
            exit: None,
            end,
            generations: vec![generation(None, 0), generation(Some("after warm-up"), 120)],
            snapshots,
            birth_span: DURATION / u32::try_from(SPANS).unwrap(),
            births: births.into_iter().enumerate().filter(|(_, held)| held.objects > 0).collect(),
        },
        sites,
        mapped: None,
        python: None,
        growth: None,
        code: Vec::new(),
    }
}
