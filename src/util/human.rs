//! Numbers as people read them.

use std::time::Duration;

/// Bytes for people: "1.2 GiB".
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A text that goes into a message, without what was put there by mistake: an identity, or the password of a URL.
pub fn redacted(text: &str) -> String {
    const IDENTITY: &str = "AGE-SECRET-KEY-";
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.to_ascii_uppercase().find(IDENTITY) {
        let after = at + IDENTITY.len();
        shown.push_str(&rest[..after]);
        shown.push('…');
        rest = rest[after..].trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    }
    shown.push_str(rest);
    let Some((scheme, rest)) = shown.split_once("://") else { return shown };
    let end = rest.find(['/', '"', '`', ' ']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://…{}", &rest[at..]),
        None => shown,
    }
}

/// A span for people: tenths below ten seconds, whole seconds above ("2.4s", "1m 35s").
pub fn span(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if millis < 10_000 {
        return format!("{}.{}s", millis / 1000, millis % 1000 / 100);
    }
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}

/// A span in its two largest units: what matters at a glance.
pub fn rough(span: Duration) -> String {
    self::span(span).split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_or_a_password_in_a_message_is_not_repeated() {
        let said = redacted("`age-secret-key-1QQQ` and `AGE-SECRET-KEY-1ZZZ` are not recipients");
        assert_eq!(said, "`age-secret-key-…` and `AGE-SECRET-KEY-…` are not recipients");
        assert_eq!(redacted("`s3://key:pa@ss@bucket/x@y` is wrong"), "`s3://…@bucket/x@y` is wrong");
        assert_eq!(redacted("é http://host/a@b"), "é http://host/a@b");
    }

    #[test]
    fn bytes_are_printed_for_people() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB"), (3 << 29, "1.5 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_rough_span_has_two_units_at_most() {
        assert_eq!(rough(Duration::from_secs(93_784)), "1day 2h");
        assert_eq!(rough(Duration::from_millis(2_400)), "2.4s");
    }

    #[test]
    fn spans_are_short() {
        for (millis, text) in
            [(0, "0.0s"), (2_449, "2.4s"), (10_999, "10s"), (95_000, "1m 35s"), (90_061_000, "1day 1h 1m 1s")]
        {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }
}
