//! Sizes, durations and choices as people type them.

use std::time::Duration;

use clap::ValueEnum;
use parse_size::{ByteSuffix, Config};
use profiler_common::sampling::MAX_INTERVAL;

use crate::session::options::UsdtUse;

/// `512`, `4KiB`, `1M`: bytes; a suffix without `i` counts in thousands, as the SI has it.
pub(super) fn size(text: &str) -> Result<u64, String> {
    Config::new()
        .with_byte_suffix(ByteSuffix::Allow)
        .parse_size(text)
        .map_err(|error| format!("{error}; write bytes such as 512, 4KiB or 1MiB"))
}

/// A size that samples can be apart.
pub(super) fn sample_interval(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("to record every block, say --exact".into()),
        interval @ 1..=MAX_INTERVAL => Ok(interval),
        _ => Err("samples can be at most 1GiB apart".into()),
    }
}

/// Percent of a process's CPU time; `None` for no budget.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Budget(pub(super) Option<f64>);

/// `5%`, `0.5`, `off`.
pub(super) fn budget(text: &str) -> Result<Budget, String> {
    if text == "off" {
        return Ok(Budget(None));
    }
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
    percent
        .filter(|percent| *percent > 0.0 && *percent < 100.0)
        .map(|percent| Budget(Some(percent)))
        .ok_or_else(|| "write a share of the CPU time between 0% and 100%, such as 5%, or `off`".into())
}

/// `30s`, `2m`, `500ms`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write a time such as 30s, 500ms or 2m"))
}

/// When a program's own probes are used.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Usdt {
    /// Where it has them and a budget is to be kept
    Auto,
    /// Never
    Never,
    /// Always; without them, not at all
    Always,
}

impl Usdt {
    pub(super) fn of(self) -> UsdtUse {
        match self {
            Self::Auto => UsdtUse::Auto,
            Self::Never => UsdtUse::Never,
            Self::Always => UsdtUse::Always,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("4KiB"), Ok(4096));
        assert_eq!(size("1k"), Ok(1000));
        assert!(size("many").is_err());
        assert!(size("-1").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("soon").is_err());
    }
}
