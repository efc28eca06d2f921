//! Numbers for people: bytes in binary units, counts with separators, spans of time.

use std::time::Duration;

use humansize::{BINARY, format_size};

/// `512 B`, `12.3 MiB`: binary units with one decimal.
#[must_use]
pub fn bytes(count: u64) -> String {
    let decimals = usize::from(count >= 1024);
    format_size(count, BINARY.decimal_places(decimals).decimal_zeroes(decimals))
}

/// ` ± 1.2 MiB`: an estimate's standard error, or nothing where there is none.
#[must_use]
pub fn plus_minus(error: Option<u64>, unit: impl Fn(u64) -> String) -> String {
    error.map(|error| format!(" ± {}", unit(error))).unwrap_or_default()
}

/// `+1.2 MiB`, `-512 B`, `0 B`: how much more or less.
#[must_use]
pub fn change(bytes_more: i64) -> String {
    let sign = match bytes_more {
        1.. => "+",
        0 => "",
        ..0 => "-",
    };
    format!("{sign}{}", bytes(bytes_more.unsigned_abs()))
}

/// `4,567`: a comma between thousands.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 block`, `4,567 blocks`.
#[must_use]
pub fn blocks(number: u64) -> String {
    counted(number, "block", "blocks")
}

/// The number with the right form of its noun.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// From here on, an estimated share of the time is as good as all of it: it is cut at 100%.
const NEARLY_ALL: f64 = 99.5;

/// `42.9%`, or `nearly all`: what the probes took of the target's CPU time, in percent.
#[must_use]
pub fn overhead(percent: f64) -> String {
    if percent >= NEARLY_ALL { "nearly all".to_owned() } else { format!("{percent:.1}%") }
}

/// `5 s`, `30.2 s`, `2 min 5 s`, `3 h 4 min`, `2 d 7 h`.
#[must_use]
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..120 => {
            let text = format!("{:.1}", time.as_secs_f64());
            format!("{} s", text.strip_suffix(".0").unwrap_or(&text))
        }
        120..7200 => format!("{minutes} min {} s", seconds % 60),
        7200..172_800 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", count(days), hours % 24),
    }
}

/// `82.9%` of `whole`; a part of nothing is `-`. What is more than nothing is never shown as `0.0%`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub fn percent(part: u64, whole: u64) -> String {
    let share = 100.0 * part as f64 / whole as f64;
    match (part, whole) {
        (_, 0) => String::from("-"),
        (1.., _) if share < 0.05 => String::from("<0.1%"),
        _ => format!("{share:.1}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(
            [0, 1023, 1024, 12_897_484, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "12.3 MiB", "16.0 EiB"]
        );
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1, 2000].map(blocks), ["0 blocks", "1 block", "2,000 blocks"]);
        assert_eq!([0, 1536, -7].map(change), ["0 B", "+1.5 KiB", "-7 B"]);
        assert_eq!(change(i64::MIN), "-8.0 EiB");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn spans() {
        let shown = [0.04, 30.21, 125.0, 11_040.0, 200_000.0].map(|s| span(Duration::from_secs_f64(s)));
        assert_eq!(shown, ["0 s", "30.2 s", "2 min 5 s", "3 h 4 min", "2 d 7 h"]);
        assert!(span(Duration::MAX).ends_with(" h"));
    }

    #[test]
    fn an_overhead_that_was_cut_at_all_is_no_number() {
        assert_eq!(
            [0.04, 42.91, 99.4, 99.5, 100.0].map(overhead),
            ["0.0%", "42.9%", "99.4%", "nearly all", "nearly all"]
        );
    }

    #[test]
    fn shares() {
        assert_eq!(
            [(829, 1000), (1, 1000), (1, 10_000), (0, 5), (5, 0)].map(|(p, w)| percent(p, w)),
            ["82.9%", "0.1%", "<0.1%", "0.0%", "-"]
        );
    }
}
