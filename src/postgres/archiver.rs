//! What PostgreSQL itself says about its archiving.

use std::time::SystemTime;

use super::session::{QUICK, Session, get};
use crate::error::Result;
use crate::model::Timestamp;

/// `pg_stat_archiver`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiverState {
    pub archived_count: u64,
    pub last_archived_wal: Option<String>,
    pub last_archived_at: Option<Timestamp>,
    /// Tries that failed. A command that ends with a status above 125 is not counted.
    pub failed_count: u64,
    pub last_failed_wal: Option<String>,
    pub last_failed_at: Option<Timestamp>,
}

impl Session {
    pub async fn archiver(&self) -> Result<ArchiverState> {
        let sql = "SELECT archived_count, last_archived_wal, last_archived_time, failed_count, last_failed_wal, \
                   last_failed_time FROM pg_catalog.pg_stat_archiver";
        let row = self.row("ask how archiving goes", QUICK, sql, &[]).await?;
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        let time = |t: Option<SystemTime>| t.map(|t| Timestamp(t.into()));
        Ok(ArchiverState {
            archived_count: count(get(&row, 0)?),
            last_archived_wal: get(&row, 1)?,
            last_archived_at: time(get(&row, 2)?),
            failed_count: count(get(&row, 3)?),
            last_failed_wal: get(&row, 4)?,
            last_failed_at: time(get(&row, 5)?),
        })
    }
}
