//! The shop, seen in windows only: what every format says of it.

use std::time::Duration;

use profiler_common::records::Held;

use super::{Format, Profile, ReportOptions, hold_against_golden, report, shop, table};
use crate::report::{
    budget::{BudgetReport, Kept, Recorded, Windowed},
    history::History,
    profile::{Mode, Totals},
};

fn kept(space: u64, objects: u64) -> Kept {
    Kept { held: Held { space, objects }, rate: space as f64 / 3.0, rate_error: Some(space as f64 / 30.0) }
}

pub(super) fn in_windows() -> Profile {
    let mut shop = shop();
    for site in &mut shop.sites {
        site.kept = Some(kept(site.totals.inuse_space, site.totals.inuse_objects));
        site.totals = Totals { inuse_space: 0, inuse_objects: 0, ..site.totals };
    }
    let windowed = Windowed {
        count: 31,
        observed: Duration::from_secs(3),
        slowdown: 1.1,
        kept: kept(shop.totals.inuse_space, shop.totals.inuse_objects),
        gone: 12,
        resident: vec![(Duration::ZERO, 100 << 20), (Duration::from_secs(30), 190 << 20)],
    };
    shop.quality.warnings.splice(0..0, windowed.warnings(shop.duration, Duration::ZERO));
    let steps =
        vec![(Duration::ZERO, Recorded::Sampled(4096)), (Duration::from_secs(2), Recorded::Windows(1024))];
    Profile {
        mode: Mode {
            sample_interval: Some(4096),
            budget: BudgetReport { percent: Some(10.0), steps, ..BudgetReport::default() },
            ..shop.mode
        },
        errors: Some(Totals { alloc_space: 5 << 20, alloc_objects: 900, ..Totals::default() }),
        totals: Totals { inuse_space: 0, inuse_objects: 0, ..shop.totals },
        history: History::default(),
        windowed: Some(windowed),
        ..shop
    }
}

#[test]
fn the_table_says_kept_and_not_live() {
    let json = report(Format::Json, &in_windows(), &ReportOptions::default());
    hold_against_golden("shop-windows.json", &json.replace("},{", "},\n{"));
    let table = table(&in_windows(), &ReportOptions::default());
    hold_against_golden("shop-windows.table", &table);
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
}

#[test]
fn pictures_show_what_was_kept_and_say_so() {
    let profile = in_windows();
    let kept = profile.windowed.as_ref().map(|windowed| windowed.kept.held.space).unwrap();
    let folded = report(Format::Folded, &profile, &ReportOptions::default());
    let sum: u64 = folded.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    assert_eq!(sum, kept);
    assert!(folded.contains("# warning: Calls were seen for 3 s in 31 windows only"), "{folded}");
    let svg = report(Format::Svg, &profile, &ReportOptions::default());
    assert!(svg.contains("heapscope: kept bytes of") && svg.contains("they may be gone"), "{svg}");
}

#[test]
fn slow_windows_give_lower_bounds() {
    let mut profile = in_windows();
    let windowed = profile.windowed.as_mut().unwrap();
    windowed.slowdown = 2.5;
    profile.quality.warnings = windowed.warnings(profile.duration, Duration::ZERO);
    let table = table(&profile, &ReportOptions::default());
    assert!(table.contains("; at least") && table.contains("2.5 times slower"), "{table}");
}
