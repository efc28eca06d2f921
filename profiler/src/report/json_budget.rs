//! The JSON of [`super::budget`]; docs/json.md is its contract.

use std::time::Duration;

use serde::Serialize;

use super::budget::{Kept, Recorded, Windowed};

/// What was recorded from some time on.
#[derive(Serialize)]
pub(super) struct RecordedView {
    seconds: f64,
    sampling: &'static str,
    sample_interval: Option<u64>,
}

impl RecordedView {
    pub(super) fn of((after, recorded): &(Duration, Recorded)) -> Self {
        Self {
            seconds: after.as_secs_f64(),
            sampling: recorded.label(),
            sample_interval: recorded.interval(),
        }
    }
}

/// Blocks that were not seen freed.
#[derive(Serialize)]
pub(super) struct KeptView {
    space: u64,
    objects: u64,
    space_per_second: f64,
    space_per_second_error: Option<f64>,
}

impl KeptView {
    pub(super) fn of(kept: &Kept) -> Self {
        Self {
            space: kept.held.space,
            objects: kept.held.objects,
            space_per_second: kept.rate,
            space_per_second_error: kept.rate_error,
        }
    }
}

/// Windows.
#[derive(Serialize)]
pub(super) struct WindowsView {
    count: u64,
    observed_seconds: f64,
    gone_between_windows: u64,
    slowdown: f64,
    rates_are_lower_bounds: bool,
    resident_at_first: Option<u64>,
    resident_at_end: Option<u64>,
    kept: KeptView,
}

impl WindowsView {
    pub(super) fn of(windowed: &Windowed) -> Self {
        Self {
            count: windowed.count,
            observed_seconds: windowed.observed.as_secs_f64(),
            gone_between_windows: windowed.gone,
            slowdown: windowed.slowdown,
            rates_are_lower_bounds: windowed.is_slow(),
            resident_at_first: windowed.resident.first().map(|(_, bytes)| *bytes),
            resident_at_end: windowed.resident.last().map(|(_, bytes)| *bytes),
            kept: KeptView::of(&windowed.kept),
        }
    }
}
