//! A base backup's beginning and end, in one session that must live from one to the other.
//!
//! [`BackupSession::start`] → copy files, calling [`BackupSession::ping`] now and then → [`BackupSession::stop`].
//! Dropping it ends the session, and PostgreSQL aborts the backup by itself. Always the non-exclusive way: 14's
//! `pg_start_backup(…, exclusive => false)`, 15's `pg_backup_start`. Nothing here waits for the archive
//! (`wait_for_archive` is off): that proof is the backup's own duty.

use std::time::{Duration, SystemTime};

use tokio_postgres::types::Type;

use super::session::{Session, get, lsn, raw_bytes};
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, TimelineId, Timestamp};

/// A spread checkpoint takes up to `checkpoint_timeout`, which may be a day.
const START_WITHIN: Duration = Duration::from_hours(25);
const STOP_WITHIN: Duration = Duration::from_mins(10);

/// What the server said when the backup began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupStart {
    /// Where replay of this backup must begin.
    pub start_lsn: Lsn,
    /// The timeline at the start; the label's own word is in [`BackupStop`].
    pub timeline: TimelineId,
    pub started_at: Timestamp,
    pub from_standby: bool,
}

/// What the server said when it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupStop {
    /// From here on the copy is consistent (a standby: its minimum recovery point).
    pub stop_lsn: Lsn,
    /// `backup_label`, byte for byte.
    pub label: Vec<u8>,
    /// `tablespace_map`, byte for byte; empty when there are no tablespaces.
    pub tablespace_map: Vec<u8>,
    /// The database's clock.
    pub stop_time: Timestamp,
    /// As the label says them; start and timeline agree with [`BackupStart`].
    pub label_facts: LabelFacts,
}

/// The lines of `backup_label` (PostgreSQL's `build_backup_content`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFacts {
    pub start_lsn: Lsn,
    /// The segment that holds it, as PostgreSQL spelt it.
    pub start_file: String,
    pub checkpoint_lsn: Lsn,
    pub timeline: TimelineId,
    /// `primary` or `standby`.
    pub from_standby: bool,
}

/// A backup in progress.
#[derive(Debug)]
pub struct BackupSession {
    session: Session,
    start: BackupStart,
}

impl BackupSession {
    /// Tells the server that a backup begins. `fast` asks for an immediate checkpoint; without it the start waits
    /// for a spread one. Fails with `Code::NotReady` and the grants when the role may not.
    pub async fn start(session: Session, label: &str, fast: bool) -> Result<Self> {
        // Twice, so that a pooler has the chance to show itself before the server is told anything.
        session.ping().await?;
        session.ping().await?;
        let started_at = session.now().await?;
        let from_standby = session.is_in_recovery().await?;
        let sql = if session.major().0 >= 15 {
            "SELECT pg_catalog.pg_backup_start($1, $2)::pg_catalog.text"
        } else {
            "SELECT pg_catalog.pg_start_backup($1, $2, false)::pg_catalog.text"
        };
        let parameters: &[super::session::Parameter<'_>] = &[(&label, Type::TEXT), (&fast, Type::BOOL)];
        let row = session.row("begin a base backup", START_WITHIN, sql, parameters).await?;
        let start_lsn = lsn(get(&row, 0)?)?.ok_or_else(|| {
            Error::new(Code::Sql, "the server named no start of the backup").at(session.place())
        })?;
        session.ping().await.map_err(|e| e.while_doing("the backup session does not hold"))?;
        let timeline = session.timeline().await?;
        Ok(Self { start: BackupStart { start_lsn, timeline, started_at, from_standby }, session })
    }

    pub fn started(&self) -> &BackupStart {
        &self.start
    }
    /// For questions asked meanwhile; whatever ends this session ends the backup.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Keeps the connection in use, and finds out at once when the backup can no longer become whole: the session
    /// is lost, or a standby was promoted.
    pub async fn ping(&self) -> Result<()> {
        let check = async {
            self.session.ping().await?;
            if self.session.is_in_recovery().await? == self.start.from_standby {
                return Ok(());
            }
            Err(Error::new(Code::BackupFailed, "the standby was promoted during the backup")
                .at(self.session.place()))
        };
        check.await.map_err(|e: Error| {
            e.while_doing("the backup session is lost, so the backup cannot become whole")
        })
    }

    /// Ends the backup and gives the session back.
    pub async fn stop(self) -> Result<(BackupStop, Session)> {
        self.ping().await?;
        let Self { session, start } = self;
        let columns = concat!(
            "lsn::pg_catalog.text, ",
            raw_bytes!("labelfile"),
            ", ",
            raw_bytes!("spcmapfile"),
            ", pg_catalog.clock_timestamp()"
        );
        let call = if session.major().0 >= 15 {
            "pg_catalog.pg_backup_stop(false)"
        } else {
            "pg_catalog.pg_stop_backup(false, false)"
        };
        let sql = format!("SELECT {columns} FROM {call}");
        let row = session.row("end the base backup", STOP_WITHIN, &sql, &[]).await?;
        let stop_lsn = lsn(get(&row, 0)?)?.ok_or_else(|| {
            Error::new(Code::Sql, "the server named no end of the backup").at(session.place())
        })?;
        let label: Vec<u8> = get(&row, 1)?;
        let tablespace_map: Option<Vec<u8>> = get(&row, 2)?;
        let stop_time: SystemTime = get(&row, 3)?;
        let label_facts = parse_label(&label)?;
        if label_facts.start_lsn != start.start_lsn {
            let what =
                format!("the label begins at {}, the backup at {}", label_facts.start_lsn, start.start_lsn);
            return Err(Error::new(Code::BackupFailed, what).at(session.place()));
        }
        let stop = BackupStop {
            stop_lsn,
            label,
            tablespace_map: tablespace_map.unwrap_or_default(),
            stop_time: Timestamp(stop_time.into()),
            label_facts,
        };
        Ok((stop, session))
    }
}

/// Reads a `backup_label`. Unknown lines are passed over; a missing one of those that matter is `Code::Damaged`.
pub fn parse_label(label: &[u8]) -> Result<LabelFacts> {
    let text = String::from_utf8_lossy(label);
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
            .ok_or_else(|| Error::new(Code::Damaged, format!("backup_label has no line `{key}`")))
    };
    let start = value("START WAL LOCATION")?;
    let (start_lsn, file) = start.split_once(" (file ").unwrap_or((start, ""));
    let position = |text: &str| {
        text.trim()
            .parse()
            .map_err(|e: Error| Error::new(Code::Damaged, "backup_label has no sound LSN").because(e))
    };
    let timeline = value("START TIMELINE")?.trim().parse().map(TimelineId);
    Ok(LabelFacts {
        start_lsn: position(start_lsn)?,
        start_file: file.trim_end_matches(')').to_owned(),
        checkpoint_lsn: position(value("CHECKPOINT LOCATION")?)?,
        timeline: timeline
            .map_err(|e| Error::new(Code::Damaged, "backup_label has no sound timeline").because(e))?,
        from_standby: value("BACKUP FROM")?.trim() == "standby",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &[u8] = b"START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\n\
        CHECKPOINT LOCATION: 0/3000080\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-21 09:00:00 UTC\nLABEL: pgkeep \xff\nSTART TIMELINE: 1\n";

    #[test]
    fn a_label_is_read_even_when_its_words_are_not_utf8() {
        let facts = parse_label(LABEL).unwrap();
        assert_eq!(facts.start_lsn, Lsn(0x300_0028));
        assert_eq!(facts.checkpoint_lsn, Lsn(0x300_0080));
        assert_eq!(facts.start_file, "000000010000000000000003");
        assert_eq!((facts.timeline, facts.from_standby), (TimelineId(1), false));
    }

    #[test]
    fn a_label_cut_off_anywhere_before_its_last_line_is_damaged() {
        let whole = LABEL.len() - "START TIMELINE: 1\n".len();
        for length in 0..whole {
            assert_eq!(parse_label(&LABEL[..length]).unwrap_err().code(), Code::Damaged, "{length}");
        }
    }
}
