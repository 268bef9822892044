//! How far a primary has written its WAL, in one statement, asked every few seconds.

use super::session::{QUICK, Session, get, lsn};
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, TimelineId};

/// What a server says of its WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// WAL of `timeline` is on disk before `flush`.
    Primary { timeline: TimelineId, flush: Lsn },
    /// Archiving is off: what it writes is nobody's.
    NotArchived,
    /// A standby, or a recovery that has not ended.
    InRecovery,
}

impl Session {
    pub async fn written(&self) -> Result<Written> {
        // The functions fail in recovery, which never begins again while a server runs.
        let sql = "SELECT r, CASE WHEN NOT r THEN pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text END, \
                   CASE WHEN NOT r THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END, \
                   pg_catalog.current_setting('archive_mode') \
                   FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) AS role";
        let row = self.row("ask how far WAL is flushed", QUICK, sql, &[]).await?;
        let (flush, file): (Option<String>, Option<String>) = (get(&row, 1)?, get(&row, 2)?);
        let mode: String = get(&row, 3)?;
        if get(&row, 0)? {
            return Ok(Written::InRecovery);
        }
        if mode == "off" {
            return Ok(Written::NotArchived);
        }
        let timeline = file.as_deref().and_then(|name| name.get(..8)).and_then(TimelineId::from_hex);
        match (lsn(flush)?, timeline) {
            (Some(flush), Some(timeline)) => Ok(Written::Primary { timeline, flush }),
            _ => Err(Error::new(Code::Sql, "the server does not say where its WAL ends").at(self.place())),
        }
    }
}
