//! `backup.json`: what a backup is, signed, plain, without secrets, published last.

use serde::{Deserialize, Serialize};

use super::{documents, keys};
use crate::error::{Code, Error, Result};
use crate::model::{
    BackupId, BackupKind, ClusterName, Digest, Lsn, PgMajor, SegmentName, SegmentSize, SystemId, TimelineId,
    Timestamp,
};

/// One object of a backup. Length and digest are of the stored bytes, so that a holder of no key can check them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Relative to the backup's directory.
    pub key: String,
    pub bytes: u64,
    pub sha256: Digest,
}

/// Blocks of a file whose checksum failed and stayed so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageErrors {
    pub file: String,
    /// Block numbers within this file.
    pub blocks: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceEntry {
    pub oid: u32,
    /// As PostgreSQL gave it; relative (`pg_tblspc/<oid>`) for one in place.
    pub location: String,
}

/// What a base backup says beyond the common part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseBackup {
    pub timeline: TimelineId,
    pub start_lsn: Lsn,
    pub stop_lsn: Lsn,
    /// The database's clock.
    pub stop_time: Timestamp,
    pub wal_first: SegmentName,
    pub wal_last: SegmentName,
    pub wal_segment_bytes: SegmentSize,
    pub from_standby: bool,
    pub data_checksums: bool,
    pub page_errors: Vec<PageErrors>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    pub tablespaces: Vec<TablespaceEntry>,
    #[serde(default)]
    pub requires: Vec<BackupId>,
}

/// What a dump, a schema or exported tables say beyond the common part. Tables are in the index: this is plain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalBackup {
    pub databases: Vec<String>,
    /// The earliest of the databases' snapshots: whatever committed before it is in.
    pub snapshot_lsn: Lsn,
    /// The database's clock then.
    pub snapshot_at: Timestamp,
    /// `pg_dump (PostgreSQL) 18.6`
    pub tool_version: String,
    /// Tables with data.
    #[serde(default)]
    pub tables: u64,
    /// Their rows.
    #[serde(default)]
    pub rows: u64,
    /// How many warnings the index (or the run, for `schema`) has: something was left out.
    #[serde(default)]
    pub warnings: u64,
}

/// `backup.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRecord {
    pub format: u32,
    pub id: BackupId,
    pub kind: BackupKind,
    pub cluster: ClusterName,
    pub host: String,
    pub pgkeep_version: String,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// `18.6`
    pub pg_version: String,
    pub system_identifier: SystemId,
    /// age public keys of the data; empty without encryption.
    pub recipients: Vec<String>,
    /// `zstd+age` or `zstd`.
    pub codec: String,
    pub bytes_raw: u64,
    pub bytes_stored: u64,
    pub objects: Vec<ObjectEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Present for the kinds that WAL is replayed onto. (Read by [`BackupRecord::parse`], so that a base backup
    /// that lacks a field is refused instead of passing for one of another kind.)
    #[serde(flatten, skip_deserializing)]
    pub base: Option<BaseBackup>,
    /// Present for the other kinds, and read alike.
    #[serde(flatten, skip_deserializing)]
    pub logical: Option<LogicalBackup>,
}

impl BackupRecord {
    /// Reads and checks a record; `place` is for messages.
    pub fn parse(bytes: &[u8], place: &str) -> Result<Self> {
        let mut record: Self = documents::parse_versioned(bytes, place)?;
        if record.kind.is_base() {
            record.base = Some(documents::parse(bytes, place)?);
        } else {
            record.logical = Some(documents::parse(bytes, place)?);
        }
        record.check().map_err(|what| Error::new(Code::Damaged, what).at(place))?;
        Ok(record)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.id.kind() != self.kind {
            return Err("the backup's id and kind differ");
        }
        let clean = |key: &str| key.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !self.objects.iter().all(|o| clean(&o.key)) {
            return Err("an object's key leaves the backup's directory");
        }
        let sane = |b: &BaseBackup| {
            b.start_lsn <= b.stop_lsn
                && b.wal_first.number(b.wal_segment_bytes) <= b.wal_last.number(b.wal_segment_bytes)
        };
        if !self.base.as_ref().is_none_or(sane) {
            return Err("the backup ends before it begins");
        }
        Ok(())
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        documents::to_bytes(self)
    }

    /// The base part; an error for a dump where a base backup was meant.
    pub fn base(&self) -> Result<&BaseBackup> {
        self.base.as_ref().ok_or_else(|| {
            Error::new(Code::NoBackup, format!("{} is a {} backup, not a base backup", self.id, self.kind))
                .hint("`pgkeep list` shows base backups as `full`")
        })
    }

    /// The logical part; an error for a base backup where a dump was meant.
    pub fn logical(&self) -> Result<&LogicalBackup> {
        self.logical.as_ref().ok_or_else(|| {
            Error::new(Code::NoBackup, format!("{} is a {} backup, not a logical one", self.id, self.kind))
                .hint("`pgkeep list` shows logical backups as `dump`, `schema` and `tables`")
        })
    }

    /// True when pages failed their checksum: it may be restored, but nothing may lean on it.
    pub fn is_damaged(&self) -> bool {
        self.base.as_ref().is_some_and(|b| !b.page_errors.is_empty())
    }

    /// The major of `pg_version`.
    pub fn major(&self) -> Option<PgMajor> {
        self.pg_version.split('.').next()?.parse().ok().map(PgMajor)
    }

    pub fn object(&self, key: &str) -> Option<&ObjectEntry> {
        self.objects.iter().find(|o| o.key == key)
    }

    /// The objects that, one after the other, are the stream stored under `key`: itself, and its continuations where
    /// it was longer than an object may be. Empty when there is none.
    pub fn parts(&self, key: &str) -> Vec<&ObjectEntry> {
        let names = (1..).map(|number| keys::backup::part(key, number));
        names.map_while(|name| self.object(&name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &[u8] = include_bytes!("../../tests/fixtures/format1/dump.json");

    #[test]
    fn a_dumps_record_of_format_1_keeps_its_form() {
        let record = BackupRecord::parse(DUMP, "x").unwrap();
        assert_eq!(record.logical().unwrap().databases, ["app", "Größe"]);
        assert!(record.base.is_none() && record.base().is_err());
        assert_eq!(String::from_utf8(record.to_bytes().unwrap()).unwrap(), String::from_utf8_lossy(DUMP));
    }

    #[test]
    fn a_long_stream_goes_on_in_its_parts() {
        let record = BackupRecord::parse(DUMP, "x").unwrap();
        let keys: Vec<_> = record.parts("dump/app.dump.zst.age").iter().map(|o| o.key.as_str()).collect();
        assert_eq!(keys, ["dump/app.dump.zst.age", "dump/app.dump.zst.age.part002"]);
        assert!(record.parts("dump/other.dump.zst.age").is_empty());
    }

    #[test]
    fn a_logical_record_without_its_part_is_damaged() {
        let text = String::from_utf8_lossy(DUMP).replace("\"databases\"", "\"other\"");
        assert_eq!(BackupRecord::parse(text.as_bytes(), "x").unwrap_err().code(), Code::Damaged);
    }
}
