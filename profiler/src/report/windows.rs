//! The table's words and columns where calls were seen in windows only, and it is not known what is live.

use std::time::Duration;

use super::{
    budget::{Windowed, whole},
    profile::SiteReport,
    units::{blocks, bytes, counted, percent, span},
};
use crate::symbolize::label::clean;

/// Everything that was kept.
pub(super) fn kept_in_all(windowed: &Windowed) -> String {
    let error = windowed.kept.rate_error.map(|error| format!(" ± {}", per_second(error))).unwrap_or_default();
    let at_least = if windowed.is_slow() { "at least " } else { "" };
    format!(
        "{at_least}{}{error}: {} in {} kept of {} ({} in all)",
        per_second(windowed.kept.rate),
        bytes(windowed.kept.held.space),
        blocks(windowed.kept.held.objects),
        counted(windowed.count, "window", "windows"),
        span(windowed.observed)
    )
}

/// The numbers of a site, or the heads of their columns.
pub(super) fn row(windowed: &Windowed, lasted: Duration, site: Option<(usize, &SiteReport)>) -> String {
    let row = |[rank, rate, error, share, kept, allocated, oldest, allocator]: [&str; 8]| {
        format!(
            "{rank:>4}  {rate:>10} {error:<6}  {share:>6}  {kept:>10}  {allocated:>12}  {oldest:>9}  {allocator}"
        )
    };
    let Some((rank, site)) = site else {
        return row(["#", "kept/s", "error", "share", "kept", "allocated/s", "oldest", "allocator"]);
    };
    let kept = site.kept.unwrap_or_default();
    let error = kept
        .rate_error
        .filter(|_| kept.rate > 0.0)
        .map(|error| format!("±{:.0}%", 100.0 * error / kept.rate));
    let allocated = site.totals.alloc_space as f64 / lasted.as_secs_f64().max(1e-9);
    row([
        &rank.to_string(),
        &bytes(whole(kept.rate)),
        &error.unwrap_or_else(|| "-".to_owned()),
        &percent(kept.held.space, windowed.kept.held.space),
        &bytes(kept.held.space),
        &bytes(whole(allocated)),
        &site.oldest.map_or_else(|| String::from("-"), span),
        &clean(&site.allocator),
    ])
}

fn per_second(rate: f64) -> String {
    format!("{}/s", bytes(whole(rate)))
}
