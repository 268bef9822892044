//! `20261121T020000Z-full-3f9a`: UTC start second, kind, four random hex digits. Ids sort by time.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveDateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::time::Timestamp;
use crate::error::{Code, Error};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    Full,
    Incr,
    Dump,
    Schema,
    Tables,
}

impl BackupKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incr => "incr",
            Self::Dump => "dump",
            Self::Schema => "schema",
            Self::Tables => "tables",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Full, Self::Incr, Self::Dump, Self::Schema, Self::Tables]
            .into_iter()
            .find(|k| k.as_str() == text)
    }
    /// True for the kinds that WAL is replayed onto.
    pub const fn is_base(self) -> bool {
        matches!(self, Self::Full | Self::Incr)
    }
}
impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A backup's id, also the name of its directory in the repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

impl BackupId {
    /// A fresh id; `random` makes two backups of one second differ.
    pub fn new(started_at: Timestamp, kind: BackupKind, random: u16) -> Self {
        Self(format!("{}-{kind}-{random:04x}", started_at.compact_seconds()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    pub fn kind(&self) -> BackupKind {
        // `parse` admits no id whose middle is not a kind.
        self.0.split('-').nth(1).and_then(BackupKind::parse).unwrap_or(BackupKind::Full)
    }
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (time, kind, random) = (parts.next()?, parts.next()?, parts.next()?);
        let hex =
            random.len() == 4 && random.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let timed = time.len() == 16 && NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").is_ok();
        (parts.next().is_none() && hex && timed && BackupKind::parse(kind).is_some())
            .then(|| Self(text.to_owned()))
    }
}
impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl FromStr for BackupId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).ok_or_else(|| {
            Error::new(Code::Usage, format!("`{text}` is not a backup id"))
                .hint("an id looks like 20261121T020000Z-full-3f9a; `pgkeep list` shows them")
        })
    }
}
impl Serialize for BackupId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_sorts_by_time() {
        let t: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let id = BackupId::new(t, BackupKind::Full, 0x3f9a);
        assert_eq!(id.as_str(), "20261121T020000Z-full-3f9a");
        assert_eq!(BackupId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(id.kind(), BackupKind::Full);
        assert!(BackupId::new(t.plus(std::time::Duration::from_secs(1)), BackupKind::Dump, 0) > id);
    }

    #[test]
    fn a_path_or_a_misspelt_id_is_refused() {
        for text in [
            "",
            "../x",
            "20261121T020000Z-full-3F9A",
            "20261121T020000Z-half-3f9a",
            "20261321T020000Z-full-3f9a",
            "20261121T020000Z-full-3f9a-x",
            "20261121T020000Z-full",
            "é0261121T020000Z-full-3f9a",
        ] {
            assert_eq!(BackupId::parse(text), None, "{text:?}");
        }
    }
}
