//! How a server is, in one short statement that reads no table, asked all day long.

use std::time::Duration;

use super::facts::TIMELINE;
use super::session::{QUICK, Session, get, lsn};
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, TimelineId};

/// Short: a server that needs longer for this is not well.
const WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    pub in_recovery: bool,
    /// None in recovery.
    pub flush: Option<Lsn>,
    pub timeline: TimelineId,
    /// The larger of `max_wal_size` and `wal_keep_size`: up to there pg_wal grows by design.
    pub wal_target_bytes: u64,
    /// A primary without `archive_mode`, or without a command and a library.
    pub archiving_off: bool,
}

impl Session {
    pub async fn vitals(&self) -> Result<Vitals> {
        let sql = format!(
            "SELECT r, CASE WHEN NOT r THEN pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text END, {TIMELINE}, \
             greatest(pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_wal_size')), \
             pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_keep_size'))), \
             NOT r AND (pg_catalog.current_setting('archive_mode') = 'off' OR \
             pg_catalog.current_setting('archive_command') IN ('', '(disabled)') AND \
             coalesce(pg_catalog.current_setting('archive_library', true), '') = '') \
             FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) AS role"
        );
        let row = self.row("ask the server how it is", WITHIN, &sql, &[]).await?;
        let (timeline, target): (i64, i64) = (get(&row, 2)?, get(&row, 3)?);
        let timeline = u32::try_from(timeline).ok().filter(|id| *id > 0).map(TimelineId);
        Ok(Vitals {
            in_recovery: get(&row, 0)?,
            flush: lsn(get(&row, 1)?)?,
            timeline: timeline.ok_or_else(|| {
                Error::new(Code::Sql, "the server does not say its timeline").at(self.place())
            })?,
            wal_target_bytes: u64::try_from(target).unwrap_or(0),
            archiving_off: get(&row, 4)?,
        })
    }

    /// Of all databases. Looks at every file.
    pub async fn databases_bytes(&self) -> Result<u64> {
        let sql = "SELECT pg_catalog.sum(pg_catalog.pg_database_size(oid))::pg_catalog.int8 FROM pg_catalog.pg_database";
        let bytes: i64 = get(&self.row("ask for the databases' size", QUICK, sql, &[]).await?, 0)?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }
}
