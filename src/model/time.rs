//! Moments in UTC with microseconds, which is what PostgreSQL's WAL records carry.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, TimeDelta, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Code, Error};

/// Seconds from the Unix epoch to PostgreSQL's (2000-01-01 00:00:00 UTC).
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

/// A moment. RFC 3339 in UTC (`2026-11-21T02:00:00.123456Z`) in files and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub DateTime<Utc>);

impl Timestamp {
    /// From a WAL record's or `pg_control`'s TimestampTz: microseconds since 2000-01-01 UTC.
    pub fn from_postgres_micros(micros: i64) -> Option<Self> {
        let unix = micros.checked_add(POSTGRES_EPOCH_SECONDS.checked_mul(1_000_000)?)?;
        Utc.timestamp_micros(unix).single().map(Self)
    }
    pub fn postgres_micros(self) -> i64 {
        self.0.timestamp_micros() - POSTGRES_EPOCH_SECONDS * 1_000_000
    }
    /// From seconds since 1970 (`pg_control`'s own time field).
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        Utc.timestamp_opt(seconds, 0).single().map(Self)
    }
    /// `20261121T020000Z`: the head of a backup id.
    pub fn compact_seconds(self) -> String {
        self.0.format("%Y%m%dT%H%M%SZ").to_string()
    }
    /// `20261121T020000.123456Z`: marks and reports.
    pub fn compact_micros(self) -> String {
        self.0.format("%Y%m%dT%H%M%S%.6fZ").to_string()
    }
    /// `2026-11-21 02:00:00.123456+00`: as PostgreSQL prints and reads it, always UTC.
    pub fn postgres(self) -> String {
        self.0.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
    }
    /// `2026-11-21 02:00:00 UTC`: for people.
    pub fn human(self) -> String {
        self.0.format("%Y-%m-%d %H:%M:%S UTC").to_string()
    }
    /// Time from `earlier` to `self`; zero when it is not earlier.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        (self.0 - earlier.0).to_std().unwrap_or_default()
    }
    pub fn minus(self, span: std::time::Duration) -> Self {
        TimeDelta::from_std(span).ok().and_then(|d| self.0.checked_sub_signed(d)).map_or(self, Self)
    }
    pub fn plus(self, span: std::time::Duration) -> Self {
        TimeDelta::from_std(span).ok().and_then(|d| self.0.checked_add_signed(d)).map_or(self, Self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}
impl FromStr for Timestamp {
    type Err = Error;
    /// RFC 3339 only; what people type is read by `model::target`.
    fn from_str(text: &str) -> Result<Self, Error> {
        DateTime::parse_from_rfc3339(text)
            .map(|t| Self(t.with_timezone(&Utc)))
            .map_err(|e| Error::new(Code::Usage, format!("`{text}` is not a time")).because(e))
    }
}
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_of_postgres_is_the_year_2000() {
        assert_eq!(Timestamp::from_postgres_micros(0).unwrap().to_string(), "2000-01-01T00:00:00Z");
        let t: Timestamp = "2026-11-21T02:00:00.123456Z".parse().unwrap();
        assert_eq!(Timestamp::from_postgres_micros(t.postgres_micros()), Some(t));
        assert_eq!(t.compact_seconds(), "20261121T020000Z");
        assert_eq!(t.compact_micros(), "20261121T020000.123456Z");
        assert_eq!(t.postgres(), "2026-11-21 02:00:00.123456+00");
        assert_eq!(Timestamp::from_postgres_micros(i64::MAX), None);
    }
}
