//! `backup.json`: what a backup is, signed, plain, without secrets, published last.

use serde::{Deserialize, Serialize};

use super::documents;
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
}

impl BackupRecord {
    /// Reads and checks a record; `place` is for messages.
    pub fn parse(bytes: &[u8], place: &str) -> Result<Self> {
        let mut record: Self = documents::parse_versioned(bytes, place)?;
        if record.kind.is_base() {
            record.base = Some(documents::parse(bytes, place)?);
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
}
