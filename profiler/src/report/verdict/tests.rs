//! Verdicts on drawn curves: a leak, a cache, a pool, a burst, noise.

use std::time::{Duration, SystemTime};

use profiler_common::records::Held;
use proptest::prelude::*;

use super::*;
use crate::report::{
    history::{History, SiteHistory, Snapshot},
    profile::{Mode, Quality, TargetInfo, Totals},
};

/// A profile of one site that held `curve` at snapshots `step` apart, in blocks of 1,024 bytes, of which `freed` more came
/// and went.
fn profile(curve: &[u64], step: Duration, freed: u64) -> Profile {
    let live = curve.last().copied().unwrap_or_default();
    let objects = live / 1024;
    let mut over_time: Vec<(usize, u64)> = curve.iter().copied().enumerate().collect();
    over_time.dedup_by_key(|(_, space)| *space);
    over_time.retain(|change| *change != (0, 0));
    let after = |index: usize| step * u32::try_from(index).unwrap_or(u32::MAX);
    let snapshot = |(index, space): (usize, &u64)| Snapshot {
        after: after(index),
        inuse: Held { objects: space / 1024, space: *space },
        rss: None,
    };
    let site = SiteReport {
        totals: Totals {
            inuse_space: live,
            inuse_objects: objects,
            alloc_space: (objects + freed) * 1024,
            alloc_objects: objects + freed,
        },
        errors: None,
        kept: None,
        oldest: None,
        allocator: "glibc".into(),
        stack: Vec::new(),
        history: SiteHistory {
            exit: Held { objects, space: live },
            peak: Held { objects: 0, space: curve.iter().copied().max().unwrap_or_default() },
            over_time,
            ..SiteHistory::default()
        },
    };
    Profile {
        target: TargetInfo::default(),
        started: SystemTime::UNIX_EPOCH,
        duration: after(curve.len()),
        mode: Mode::default(),
        totals: site.totals,
        errors: None,
        quality: Quality::default(),
        history: History {
            snapshots: curve.iter().enumerate().map(snapshot).collect(),
            ..History::default()
        },
        sites: vec![site],
        windowed: None,
        code: Vec::new(),
        mapped: None,
        python: None,
        growth: None,
    }
}

fn judged(curve: &[u64], freed: u64) -> Verdict {
    let profile = profile(curve, Duration::from_secs(1), freed);
    verdict(&profile, &profile.sites[0])
}

const KIB: u64 = 1024;

#[test]
fn a_leak_grows_steadily() {
    let leak: Vec<u64> = (0..=660).map(|second| second * 17 * KIB).collect();
    let judged_leak = judged(&leak, 0);
    assert_eq!(
        judged_leak.text,
        "grows steadily: 1020.0 KiB/min for 10 min 59 s, 17 blocks/s of 1,024 B, none freed"
    );
    assert!((judged_leak.growth - 17.0 * 1024.0).abs() < 1.0);
    assert!(judged(&leak, 800).text.ends_with("6.7% freed"), "{}", judged(&leak, 800).text);
}

#[test]
fn memory_that_grew_once_is_a_plateau() {
    let pool: Vec<u64> = (0..60u64).map(|second| second.min(12) * 100 * KIB).collect();
    assert_eq!(judged(&pool, 0).text, "plateau: 1.2 MiB for 48 s, none freed");
    assert_eq!(judged(&[[5 * KIB; 1], [5 * KIB; 1]].concat(), 0).trend, Trend::TooShort);
    assert_eq!(judged(&[5 * KIB; 20], 0).text, "plateau: 5.0 KiB for 19 s, none freed");
}

#[test]
fn a_full_cache_is_told_from_a_plateau_by_what_comes_and_goes() {
    let cache: Vec<u64> = (0..60u64).map(|second| second.min(12) * 100 * KIB).collect();
    assert_eq!(judged(&cache, 5000).text, "cache-like: 1.2 MiB for 48 s, while 5,000 blocks came and went");
    let mut profile = profile(&cache, Duration::from_secs(1), 200);
    assert_eq!(
        verdict(&profile, &profile.sites[0]).trend,
        Trend::Plateau,
        "few were freed, perhaps long ago"
    );
    profile.history.birth_span = Duration::from_secs(1);
    profile.sites[0].history.births =
        vec![(2, Held { objects: 800, space: 800 * KIB }), (50, Held { objects: 400, space: 400 * KIB })];
    assert_eq!(verdict(&profile, &profile.sites[0]).trend, Trend::CacheLike, "what lives is young");
}

#[test]
fn growth_in_steps_is_not_steady() {
    let steps: Vec<u64> = (0..60u64).map(|second| (second / 25 + 1) * 900 * KIB).collect();
    assert_eq!(
        judged(&steps, 0).text,
        "grows unsteadily: 1.8 MiB/min for 59 s, 31 blocks/s of 1,024 B, none freed"
    );
}

#[test]
fn bursts_come_and_go_or_shrink() {
    let saw: Vec<u64> = (0..60u64).map(|second| (second % 7) * 100 * KIB).collect();
    assert_eq!(judged(&saw, 9000).trend, Trend::ComesAndGoes);
    let burst: Vec<u64> =
        (0..60u64).map(|second| if second < 40 { 4 * KIB * KIB } else { KIB * KIB }).collect();
    assert_eq!(judged(&burst, 9000).text, "shrinks: 1.0 MiB of 4.0 MiB, which it held after 39 s");
    let gone: Vec<u64> = burst.iter().map(|level| level / (3 * KIB * KIB) * 4 * KIB * KIB).collect();
    assert_eq!(judged(&gone, 9000).text, "all freed: 9,000 blocks, 4.0 MiB at the peak");
}

#[test]
fn nothing_is_said_of_too_little() {
    assert_eq!(judged(&[0, 10 * KIB, 20 * KIB], 0).text, "too short to tell: seen at 2 snapshots in 2 s");
    assert_eq!(judged(&[], 5).text, "all freed: 5 blocks");
    let late: Vec<u64> = (0..60u64).map(|second| second.saturating_sub(56) * KIB).collect();
    assert_eq!(judged(&late, 0).trend, Trend::TooShort, "the site is as young as that");
    let leak: Vec<u64> = (0..60).map(|second| second * KIB).collect();
    let mut sampled = profile(&leak, Duration::from_secs(1), 0);
    sampled.sites[0].errors = Some(Totals { inuse_space: 30 * KIB, ..Totals::default() });
    let text = verdict(&sampled, &sampled.sites[0]).text;
    assert_eq!(text, "too short to tell: too few samples, 59.0 KiB ± 30.0 KiB");
}

#[test]
fn where_young_blocks_are_left_out_nothing_is_said_of_the_freed() {
    let leak: Vec<u64> = (0..60).map(|second| second * KIB).collect();
    let mut profile = profile(&leak, Duration::from_secs(1), 0);
    profile.mode.min_age = Some(Duration::from_secs(10));
    assert!(verdict(&profile, &profile.sites[0]).text.ends_with("none freed"));
    profile.history.exit =
        Some(crate::report::history::Moment { after: Duration::ZERO, held: Held::NOTHING, error: None });
    assert!(verdict(&profile, &profile.sites[0]).text.ends_with("of 1,024 B"));
}

proptest! {
    /// Whatever the numbers, there is a verdict of one line.
    #[test]
    fn no_history_breaks_it(
        curve in prop::collection::vec(any::<u64>(), 0..40), step in 0u64..1 << 40, freed in 0u64..9,
        changes in prop::collection::vec((0usize..50, any::<u64>()), 0..9),
    ) {
        let mut profile = profile(&curve.iter().map(|level| level >> 12).collect::<Vec<_>>(), Duration::from_millis(step), freed);
        prop_assert!(!verdict(&profile, &profile.sites[0]).text.contains('\n'));
        profile.sites[0].history.over_time = changes;
        profile.sites[0].totals.alloc_space = u64::MAX;
        let judged = verdict(&profile, &profile.sites[0]);
        prop_assert!(judged.text.starts_with(judged.trend.label()) && judged.growth.is_finite());
    }
}
