//! What `--to` means.
//!
//! `latest` · a time (RFC 3339 or PostgreSQL's form, without a zone UTC; "10 minutes ago") · `lsn:0/3000060` ·
//! `xid:1234` · `name:before_migration` · `backup`.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

use super::lsn::{Lsn, TimelineId, Xid};
use super::time::Timestamp;
use crate::error::{Code, Error, Result};

/// Where a recovery ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The last WAL that the archive holds.
    Latest,
    /// The first moment the backup is consistent (PostgreSQL's `immediate`).
    Backup,
    Time(Timestamp),
    Lsn(Lsn),
    Xid(Xid),
    /// A restore point made by `pg_create_restore_point`.
    Name(String),
}

/// PostgreSQL's `recovery_target_inclusive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inclusion {
    /// Stop just after the target (PostgreSQL's default).
    After,
    /// Stop just before it.
    Before,
}

/// `--timeline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetTimeline {
    /// The highest timeline id with a history file or a segment.
    Highest,
    Id(TimelineId),
}

/// A target as it was typed, and whether a zone had to be assumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedTarget {
    pub target: Target,
    /// True when the time carried no zone and was read as UTC; the reader must be told.
    pub zone_assumed: bool,
}

impl Target {
    /// `now` is what "10 minutes ago" counts from.
    pub fn parse(text: &str, now: Timestamp) -> Result<ParsedTarget> {
        let text = text.trim();
        let exact = |target| Ok(ParsedTarget { target, zone_assumed: false });
        match text {
            "latest" => return exact(Self::Latest),
            "backup" => return exact(Self::Backup),
            _ => {}
        }
        if let Some(lsn) = text.strip_prefix("lsn:") {
            return exact(Self::Lsn(lsn.parse()?));
        }
        if let Some(xid) = text.strip_prefix("xid:") {
            let xid = xid.parse::<u32>().ok().filter(|x| *x >= 3);
            return xid.map_or_else(|| Err(unreadable(text)), |x| exact(Self::Xid(Xid(x))));
        }
        if let Some(name) = text.strip_prefix("name:") {
            // PostgreSQL: restore point names are shorter than MAXFNAMELEN (64).
            let fits = !name.is_empty() && name.len() < 64 && !name.contains(['\n', '\0']);
            return if fits { exact(Self::Name(name.to_owned())) } else { Err(unreadable(text)) };
        }
        if let Some(span) = text.strip_suffix("ago") {
            let span = parse_span(span.trim()).ok_or_else(|| unreadable(text))?;
            return exact(Self::Time(now.minus(span)));
        }
        parse_time(text).ok_or_else(|| unreadable(text))
    }

    /// True for the targets where `--before` and `--after` mean something.
    pub fn has_inclusion(&self) -> bool {
        matches!(self, Self::Time(_) | Self::Xid(_) | Self::Lsn(_))
    }
}

fn unreadable(text: &str) -> Error {
    Error::new(Code::Usage, format!("`{text}` is not a recovery target")).hint(
        "use latest, a time such as \"2026-11-21 14:25:00+00\" or \"10 minutes ago\", lsn:0/3000060, xid:1234, \
         name:RESTORE_POINT or backup",
    )
}

fn parse_span(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|d| *d < Duration::from_hours(100 * 366 * 24))
}

fn parse_time(text: &str) -> Option<ParsedTarget> {
    let zoned = |t: DateTime<FixedOffset>| ParsedTarget {
        target: Target::Time(Timestamp(t.with_timezone(&Utc))),
        zone_assumed: false,
    };
    let assumed =
        |t: NaiveDateTime| ParsedTarget { target: Target::Time(Timestamp(t.and_utc())), zone_assumed: true };
    // Only the T between date and time: that of "UTC" is not meant.
    let spaced = match text.split_at_checked(10) {
        Some((date, rest)) if rest.starts_with('T') => format!("{date} {}", &rest[1..]),
        _ => text.to_owned(),
    };
    if let Some(plain) = spaced.strip_suffix("UTC").or_else(|| spaced.strip_suffix('Z')) {
        return parse_plain(plain.trim_end()).map(|t| zoned(t.and_utc().fixed_offset()));
    }
    for form in
        ["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z", "%Y-%m-%d %H:%M:%S%.f %#z", "%Y-%m-%d %H:%M %#z"]
    {
        if let Ok(t) = DateTime::parse_from_str(&spaced, form) {
            return Some(zoned(t));
        }
    }
    parse_plain(&spaced).map(assumed)
}

fn parse_plain(text: &str) -> Option<NaiveDateTime> {
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
}

/// In the form that `--to` reads.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Backup => f.write_str("backup"),
            Self::Time(t) => f.write_str(&t.postgres()),
            Self::Lsn(lsn) => write!(f, "lsn:{lsn}"),
            Self::Xid(xid) => write!(f, "xid:{xid}"),
            Self::Name(name) => write!(f, "name:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }
    fn time(text: &str) -> (String, bool) {
        let parsed = Target::parse(text, now()).unwrap();
        (parsed.target.to_string(), parsed.zone_assumed)
    }

    #[test]
    fn times_are_read_in_every_form_people_type() {
        let exact = ("2025-12-15 14:25:00.000000+00".to_owned(), false);
        for text in [
            "2025-12-15 14:25:00+00",
            "2025-12-15T14:25:00Z",
            "2025-12-15 14:25:00Z",
            "2025-12-15 14:25:00 UTC",
            "2025-12-15 16:25:00+02",
            "2025-12-15 16:25:00+02:00",
            "2025-12-15T16:25:00+0200",
            "2025-12-15 16:25 +02",
            "2025-12-15 09:25:00-05",
            "2025-12-15 14:25:00.000+00",
            "2025-12-15 14:25+00",
        ] {
            assert_eq!(time(text), exact, "{text}");
        }
        assert_eq!(time("10 minutes ago"), ("2026-11-21 11:50:00.000000+00".to_owned(), false));
        assert_eq!(time("1h 30m ago"), ("2026-11-21 10:30:00.000000+00".to_owned(), false));
    }

    #[test]
    fn a_time_without_a_zone_is_utc_and_says_so() {
        for text in ["2025-12-15 14:25:00", "2025-12-15T14:25:00", "2025-12-15 14:25"] {
            assert_eq!(time(text), ("2025-12-15 14:25:00.000000+00".to_owned(), true), "{text}");
        }
        assert_eq!(time("2025-12-15"), ("2025-12-15 00:00:00.000000+00".to_owned(), true));
    }

    #[test]
    fn the_other_targets_read_back_as_printed() {
        for text in ["latest", "backup", "lsn:1/AB", "xid:744", "name:before migration"] {
            assert_eq!(Target::parse(text, now()).unwrap().target.to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_forms_that_work() {
        for text in [
            "",
            "yesterday",
            "xid:2",
            "xid:x",
            "lsn:7",
            "name:",
            "2025-13-01",
            "2025-12-15 25:00",
            "ago",
            "9e99 years ago",
            &format!("name:{}", "x".repeat(64)),
        ] {
            assert_eq!(Target::parse(text, now()).unwrap_err().code(), Code::Usage, "{text:?}");
        }
    }
}
