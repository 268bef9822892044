//! A snapshot of one database that several sessions, and PostgreSQL's own programs, look through together.
//!
//! Order, and why: the tables are locked **before** the snapshot is taken. Otherwise a `TRUNCATE` or a rewriting
//! `ALTER TABLE` could come in between, and the snapshot would see the table empty without a word. (`LOCK TABLE`
//! as the first statement of a transaction takes no snapshot.) The lock is the weakest there is and waits for a short
//! time only: behind a migration that waits itself, everybody else would queue behind us.
//!
//! The snapshot lives as long as the session that exported it.

use std::time::Duration;

use super::connect_to;
use super::conninfo::ConnInfo;
use super::session::{QUICK, Session};
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, TableName, Timestamp};

/// Tables in one `LOCK TABLE`.
const LOCKED_AT_ONCE: usize = 500;
/// All locks together, beside what each may wait.
const LOCKING: Duration = Duration::from_mins(10);

/// Values come out the same whatever role, database and server are set to; rows that a policy hides are an error
/// instead of silence; a client that is gone is noticed.
const SETTINGS: &str = "SET bytea_output = 'hex'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; \
                        SET xmloption = 'content'; SET row_security = off; SET synchronize_seqscans = off; \
                        SET client_connection_check_interval = '10s'";

/// An exported snapshot, with the session that keeps it alive.
#[derive(Debug)]
pub struct Snapshot {
    session: Session,
    /// For `SET TRANSACTION SNAPSHOT` and `pg_dump --snapshot`.
    pub id: String,
    /// Whatever had been confirmed as committed when WAL was here is in.
    pub lsn: Lsn,
    /// The database's clock just before it was taken.
    pub at: Timestamp,
}

impl Snapshot {
    /// Locks the tables, each within `patience` (else [`Code::Busy`]), and exports a snapshot. `clock` is a session of
    /// the same server: the place in WAL must be read just before the snapshot is taken, and any query of the
    /// transaction itself would take it.
    pub async fn export(
        session: Session,
        clock: &Session,
        tables: &[TableName],
        patience: Duration,
    ) -> Result<Self> {
        session.batch("prepare the session", QUICK, SETTINGS).await?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL lock_timeout = {}",
            milliseconds(patience)
        );
        session.batch("begin a transaction", QUICK, &begin).await?;
        lock(&session, tables, patience).await?;
        let (lsn, at) = (clock.position().await?, clock.now().await?);
        let id = session.value("export a snapshot", "SELECT pg_catalog.pg_export_snapshot()").await?;
        Ok(Self { session, id, lsn, at })
    }

    /// The session that looks through it.
    pub fn session(&self) -> &Session {
        &self.session
    }
    /// The session goes on reading by itself; who has joined needs the snapshot no more.
    pub fn into_session(self) -> Session {
        self.session
    }
    /// Says that the snapshot still exists.
    pub async fn ping(&self) -> Result<()> {
        self.session.ping().await.map_err(|e| e.while_doing("the snapshot is lost"))
    }
}

/// Another session that looks through the snapshot `id`, which need not outlive this. It locks the tables for itself, so
/// that later no statement of it waits behind somebody who waits for a stronger lock.
pub async fn join(info: &ConnInfo, id: &str, tables: &[TableName], patience: Duration) -> Result<Session> {
    let session = connect_to(info).await?;
    session.batch("prepare the session", QUICK, SETTINGS).await?;
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT {}; \
         SET LOCAL lock_timeout = {}",
        quote_literal(id),
        milliseconds(patience)
    );
    session.batch("look through the snapshot", QUICK, &begin).await?;
    lock(&session, tables, patience).await?;
    Ok(session)
}

/// Each within `patience`.
async fn lock(session: &Session, tables: &[TableName], patience: Duration) -> Result<()> {
    for some in tables.chunks(LOCKED_AT_ONCE) {
        let names: Vec<String> = some.iter().map(TableName::quoted).collect();
        let sql = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
        session.batch("lock the tables", LOCKING + patience, &sql).await.map_err(locked)?;
    }
    Ok(())
}

fn milliseconds(patience: Duration) -> String {
    format!("'{}ms'", patience.as_millis().clamp(1, 2_147_483_647))
}

/// `'it''s'`, for what takes no parameters.
pub(super) fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

fn locked(error: Error) -> Error {
    match error.code() {
        Code::Busy => error.hint(
            "another session holds or waits for a stronger lock: a migration, for example; `SELECT * FROM \
             pg_stat_activity WHERE wait_event_type = 'Lock'` shows it. `lock_timeout` and `retries` \
             of `[dump]` say how patiently it is tried",
        ),
        Code::NotReady => error.hint("`pgkeep check` shows which rights the role lacks for dumps"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_cannot_become_sql() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\'b"), r" E'a\\''b'");
    }
}
