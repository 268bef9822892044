//! Durations and sizes as people write them.

use std::time::Duration;

/// "7d", "1h30m", "500ms"; zero is no duration.
pub fn duration(text: &str) -> Option<Duration> {
    let spaced = humantime::parse_duration(text).ok()?;
    (!spaced.is_zero() && spaced < Duration::from_hours(100 * 366 * 24)).then_some(spaced)
}

/// A duration that may be none: "0s".
pub(super) fn pause(text: &str) -> Option<Duration> {
    let none = humantime::parse_duration(text).is_ok_and(|span| span.is_zero());
    if none { Some(Duration::ZERO) } else { duration(text) }
}

/// "64MiB", "20MB", "1.5GiB", "512kB"; with "/s" for a bandwidth. Bare numbers have no unit and are refused.
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if part.len() > 6 || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = if part.is_empty() {
        0
    } else {
        let scale = 10u64.pow(u32::try_from(part.len()).ok()?);
        u64::try_from(u128::from(part.parse::<u64>().ok()?) * u128::from(factor) / u128::from(scale)).ok()?
    };
    whole.checked_mul(factor)?.checked_add(fraction).filter(|bytes| *bytes > 0)
}

/// "20MiB/s" or "20MiB".
pub(super) fn bandwidth(text: &str) -> Option<u64> {
    size(text.strip_suffix("/s").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("7d"), Some(Duration::from_hours(7 * 24)));
        assert_eq!(duration("1h30m"), Some(Duration::from_mins(90)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        for text in ["", "7", "0s", "-1s", "1 fortnight", "99999999999y"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_pause_is_a_duration_or_none() {
        assert_eq!(pause("0s"), Some(Duration::ZERO));
        assert_eq!(pause("0ms"), Some(Duration::ZERO));
        assert_eq!(pause("30s"), Some(Duration::from_secs(30)));
        for text in ["", "7", "-1s"] {
            assert_eq!(pause(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_with_a_unit_only() {
        assert_eq!(size("64MiB"), Some(64 << 20));
        assert_eq!(size("1.5 GiB"), Some(3 << 29));
        assert_eq!(size("20MB"), Some(20_000_000));
        assert_eq!(bandwidth("20MiB/s"), Some(20 << 20));
        for text in ["", "64", "64mib", "MiB", ".MiB", "1.2.3MiB", "-1MiB", "0MiB", "99999999999TiB", "é"] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }
}
