//! Logical backups: `dump` (databases by `pg_dump`), `schema` (their DDL alone) and `tables` (named tables as CSV).
//!
//! Promises kept here: nothing is staged on disk and nothing leaves in the clear (5); a published backup is whole, that
//! is, PostgreSQL's program ended with 0 or the COPY reached its end, and what was stored was sealed only then; rows are
//! counted in the very stream that was stored.
//!
//! Order, and why:
//! 1. [`preflight`]: keys, repositories, server, PostgreSQL's programs of the server's major.
//! 2. The lock: one dump, one schema, one export of a cluster at a time; they disturb neither each other nor a base backup.
//! 3. Each database: its tables are locked, then a snapshot is exported ([`crate::postgres::snapshot`]), and everything
//!    of this database looks through it. Two databases cannot share one.
//! 4. Globals, index, signature, then `backup.json`: from then on the backup exists.
//!
//! A lock that is not to be had in time, or a server without a free connection, ends one database's try, which lets go of
//! everything and begins again later: nobody waits behind us for long. The DDL is kept in memory, sealed, until its
//! database is done, so that a try that failed has stored nothing.
//!
//! Failure and cancellation: PostgreSQL's programs die with the future, dropped uploads are aborted, and objects already
//! stored are leftovers without a record, which the next run reports. Memory is bounded by connections and
//! repositories, by the catalog (the archive's table of contents) and the compressed DDL, not by any table.

mod dump;
mod export;
mod globals;
mod opened;
mod outgoing;
mod pace;
mod patience;
mod preflight;
mod program;
mod run;
mod schema;
mod selection;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::run::logical;
use super::full::StillWanted;
use super::publish::RepositoryResult;
use crate::config::{ClusterConfig, Config};
use crate::error::{Error, Result};
use crate::model::{BackupKind, DatabasePattern, RepoName, TableFilter, TablePattern};
use crate::repository::record::BackupRecord;
use crate::util::clock::Clock;
use crate::util::progress::Progress;

/// What to back up, where to and how.
pub struct LogicalRequest<'a> {
    pub config: &'a Config,
    pub cluster: &'a ClusterConfig,
    pub work: LogicalWork,
    /// Empty: as the configuration says.
    pub databases: Vec<DatabasePattern>,
    /// Only this repository, which is then required.
    pub only: Option<&'a RepoName>,
    pub label: Option<String>,
    pub clock: Clock,
    pub progress: Arc<dyn Progress>,
    pub cancel: CancellationToken,
    /// As of a base backup: asked once the lock is held.
    pub still_wanted: Option<StillWanted>,
}

/// The three kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogicalWork {
    /// Whole databases, or these tables of them.
    Dump {
        tables: Vec<TablePattern>,
    },
    /// The DDL alone.
    Schema,
    Tables(TablesWork),
}

/// Tables as CSV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablesWork {
    /// At least one.
    pub tables: Vec<TablePattern>,
    pub filters: Vec<TableFilter>,
    /// Tables exported at once.
    pub connections: usize,
}

impl LogicalWork {
    pub fn kind(&self) -> BackupKind {
        match self {
            Self::Dump { .. } => BackupKind::Dump,
            Self::Schema => BackupKind::Schema,
            Self::Tables(_) => BackupKind::Tables,
        }
    }
}

/// A logical backup that was published in every required repository.
#[derive(Debug)]
pub struct LogicalReport {
    pub record: BackupRecord,
    pub repositories: Vec<RepositoryResult>,
    /// What PostgreSQL's programs warned of, and what was left out: findings.
    pub left_out: Vec<String>,
    /// What a person should know, though nothing is missing.
    pub notes: Vec<String>,
    pub took: Duration,
}

impl LogicalReport {
    /// One document: the record and what the run adds.
    pub fn json(&self) -> Result<serde_json::Value> {
        let mut json = serde_json::to_value(&self.record)
            .map_err(|e| Error::internal("a record that is no JSON").because(e))?;
        json["repositories"] = self.repositories.iter().map(RepositoryResult::json).collect();
        json["left_out"] = serde_json::json!(self.left_out);
        json["notes"] = serde_json::json!(self.notes);
        json["seconds"] = serde_json::json!(self.took.as_secs_f64());
        Ok(json)
    }
}
