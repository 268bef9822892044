//! One connection to one server process, and the statements that need no module of their own.
//!
//! Every statement has a deadline. One that passes ends the session: the server is asked to cancel, and the
//! connection is not used again, for nobody knows what it would answer next. A lost session says so at the next
//! call.

mod copy_in;
mod copy_out;
mod tap;

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};
use tokio_postgres::{Client, Connection, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use copy_in::CopyIn;
pub use copy_out::{CopyOut, Piece};
use tap::{Diversion, Tap};

use crate::error::{Code, Error, Result};
use crate::model::{Lsn, PgMajor, SystemId, Timestamp};

/// Enough for any statement that only looks.
pub(super) const QUICK: Duration = Duration::from_secs(30);

/// Text as it lies in the server's memory, whatever the encodings of database and client: paths are bytes.
macro_rules! raw_bytes {
    ($expression:literal) => {
        concat!("pg_catalog.decode(pg_catalog.replace(", $expression, r", E'\\', E'\\\\'), 'escape')")
    };
}
pub(super) use raw_bytes;

/// The first number of pgkeep's advisory locks, taken in database `postgres` of the primary.
pub const LOCK_CLASS: i32 = 1_885_825_904;
/// One base backup of a cluster at a time.
pub const LOCK_BACKUP: i32 = 1;
/// One expiry at a time.
pub const LOCK_EXPIRE: i32 = 2;
/// One dump at a time, one schema, one export of tables: they disturb neither each other nor a base backup.
pub const LOCK_DUMP: i32 = 11;
pub const LOCK_SCHEMA: i32 = 12;
pub const LOCK_TABLES: i32 = 13;
/// One restore of a database at a time on a server: what has a name of ours is a leftover then.
pub const LOCK_RESTORE: i32 = 21;

pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// One kept-alive connection. Not `Clone`: what needs a session of its own makes one.
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
    tls: MakeRustlsConnect,
    /// Of a session on a local socket that pgkeep itself has opened.
    local: Option<Local>,
    place: String,
    version_num: u32,
    backend_pid: i32,
    user: String,
    mark: String,
    abandoned: std::sync::atomic::AtomicBool,
}

/// The server's socket, and the way that rows take from there.
pub(super) struct Local {
    socket: PathBuf,
    diversion: Diversion,
}

impl Local {
    /// A stream to connect over, and what its session needs. None where nobody listens there.
    pub(super) async fn open(socket: PathBuf) -> Option<(Tap<UnixStream>, Self)> {
        let (tap, diversion) = Tap::new(UnixStream::connect(&socket).await.ok()?);
        Some((tap, Self { socket, diversion }))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, backend {})", self.place, self.backend_pid)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The client's own end closes the connection politely; the task must not outlive a runtime that hangs on it.
        if self.abandoned.load(std::sync::atomic::Ordering::Relaxed) {
            self.driver.abort();
        }
    }
}

impl Session {
    pub(super) async fn begin<S, T>(
        client: Client,
        connection: Connection<S, T>,
        tls: MakeRustlsConnect,
        local: Option<Local>,
        place: String,
    ) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Its error reaches every waiting statement; nothing is lost here.
        let driver = tokio::spawn(async move { drop(connection.await) });
        let mark = format!("{:016x}", rand::random::<u64>());
        let mut session = Self {
            client,
            driver,
            tls,
            local,
            place,
            version_num: 0,
            backend_pid: 0,
            user: String::new(),
            mark,
            abandoned: std::sync::atomic::AtomicBool::new(false),
        };
        session.settle().await?;
        Ok(session)
    }

    /// The settings under which everything else is said. The mark is what [`Session::ping`] looks for.
    async fn settle(&mut self) -> Result<()> {
        let set = "SELECT pg_catalog.set_config('search_path', '', false), \
                   pg_catalog.set_config('statement_timeout', '0', false), \
                   pg_catalog.set_config('lock_timeout', '0', false), \
                   pg_catalog.set_config('idle_in_transaction_session_timeout', '0', false), \
                   pg_catalog.set_config('DateStyle', 'ISO', false), \
                   pg_catalog.set_config('TimeZone', 'UTC', false), \
                   pg_catalog.set_config('pgkeep.session', $1, false)";
        let mark = self.mark.clone();
        self.row("prepare the session", QUICK, set, &[(&mark, Type::TEXT)]).await?;
        let row = self
            .row(
                "ask for the version",
                QUICK,
                "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4, pg_catalog.pg_backend_pid(), \
                 current_user::pg_catalog.text",
                &[],
            )
            .await?;
        let (version, pid): (i32, i32) = (get(&row, 0)?, get(&row, 1)?);
        self.version_num = u32::try_from(version).unwrap_or_default();
        self.backend_pid = pid;
        self.user = get(&row, 2)?;
        if !self.major().is_supported() {
            return Err(Error::new(Code::NotReady, format!("PostgreSQL {} is not supported", self.major()))
                .at(&self.place)
                .hint("pgkeep works with PostgreSQL 14 to 18"));
        }
        // Known to all supported versions: came with 14.
        self.row(
            "prepare the session",
            QUICK,
            "SELECT pg_catalog.set_config('idle_session_timeout', '0', false)",
            &[],
        )
        .await?;
        if self.version_num >= 170_000 {
            let set = "SELECT pg_catalog.set_config('transaction_timeout', '0', false)";
            self.row("prepare the session", QUICK, set, &[]).await?;
        }
        Ok(())
    }

    pub fn major(&self) -> PgMajor {
        PgMajor::from_version_num(self.version_num)
    }
    pub fn version_num(&self) -> u32 {
        self.version_num
    }
    /// The role that its statements run as.
    pub fn user(&self) -> &str {
        &self.user
    }
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }
    /// Where it leads, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }
    /// True once the connection is known to be gone.
    pub fn is_lost(&self) -> bool {
        self.client.is_closed() || self.abandoned.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Says that the session is alive and still the same server process.
    pub async fn ping(&self) -> Result<()> {
        let sql = "SELECT pg_catalog.pg_backend_pid(), \
                   coalesce(pg_catalog.current_setting('pgkeep.session', true), '')";
        let row = self.row("ask whether the session lives", QUICK, sql, &[]).await?;
        let (pid, mark): (i32, String) = (get(&row, 0)?, get(&row, 1)?);
        if pid == self.backend_pid && mark == self.mark {
            return Ok(());
        }
        Err(Error::new(Code::Connect, "the session moved to another server process")
            .at(&self.place)
            .hint("a pooler in transaction mode stands in between: connect to PostgreSQL itself"))
    }

    /// Runs one statement that returns rows. `doing` completes "cannot …" in the error.
    pub async fn rows(
        &self,
        doing: &str,
        within: Duration,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>> {
        self.within(doing, within, self.client.query_typed(sql, parameters)).await
    }
    /// Like [`Session::rows`], for exactly one row.
    pub async fn row(
        &self,
        doing: &str,
        within: Duration,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Row> {
        let mut rows = self.rows(doing, within, sql, parameters).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(Error::new(Code::Sql, format!("cannot {doing}: not one row")).at(&self.place)),
        }
    }
    /// Runs statements without parameters or results, as one implicit transaction.
    pub async fn batch(&self, doing: &str, within: Duration, sql: &str) -> Result<()> {
        self.within(doing, within, self.client.batch_execute(sql)).await
    }

    /// Ends what the server is doing for us and gives the connection up: an open transaction is rolled back.
    pub async fn give_up(&self) {
        self.abandon().await;
    }

    async fn within<T>(
        &self,
        doing: &str,
        within: Duration,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        if self.is_lost() {
            return Err(self.lost(doing));
        }
        match tokio::time::timeout(within, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) if e.is_closed() => Err(self.lost(doing).because(e)),
            Ok(Err(e)) => Err(self.sql_error(doing, &e)),
            Err(_) => {
                self.abandon().await;
                let what = format!("cannot {doing}: no answer within {} s", within.as_secs());
                Err(Error::new(Code::Sql, what).at(&self.place))
            }
        }
    }

    /// Asks the server to stop what it is doing for us, and gives the connection up.
    async fn abandon(&self) {
        self.abandoned.store(true, std::sync::atomic::Ordering::Relaxed);
        let token = self.client.cancel_token();
        let cancel = async {
            if let Some(local) = &self.local {
                if let Ok(stream) = UnixStream::connect(&local.socket).await {
                    let _ = token.cancel_query_raw(stream, NoTls).await;
                }
            } else {
                let _ = token.cancel_query(self.tls.clone()).await;
            }
        };
        // Best effort: the connection is given up whatever comes of it.
        let _ = tokio::time::timeout(Duration::from_secs(5), cancel).await;
    }

    fn lost(&self, doing: &str) -> Error {
        Error::new(Code::Connect, format!("cannot {doing}: the connection to PostgreSQL is lost"))
            .at(&self.place)
            .hint("look at the server's log: it says why it ended the session")
    }

    fn sql_error(&self, doing: &str, e: &tokio_postgres::Error) -> Error {
        let Some(db) = e.as_db_error() else {
            return Error::new(Code::Sql, format!("cannot {doing}: {}", chain(e))).at(&self.place);
        };
        let denied = db.code().code() == "42501";
        let code = match db.code().code() {
            "42501" => Code::NotReady,
            // lock_not_available, deadlock_detected
            "55P03" | "40P01" => Code::Busy,
            // undefined_table, invalid_schema_name
            "42P01" | "3F000" => Code::NoTable,
            _ => Code::Sql,
        };
        let detail = db.detail().map(|d| format!(" ({d})")).unwrap_or_default();
        let error = Error::new(code, format!("cannot {doing}: {}{detail}", db.message())).at(&self.place);
        match (denied, db.hint()) {
            // serialization_failure, on a standby
            _ if db.code().code() == "40001" && db.message().contains(super::dump_tool::CONFLICT) => {
                error.hint(super::dump_tool::CONFLICT_HINT)
            }
            (true, _) => error.hint(super::roles::hint(self.major(), &self.user)),
            (false, Some(hint)) => error.hint(hint.to_owned()),
            (false, None) => error,
        }
    }

    pub async fn is_in_recovery(&self) -> Result<bool> {
        self.value("ask for the server's role", "SELECT pg_catalog.pg_is_in_recovery()").await
    }
    pub async fn system_identifier(&self) -> Result<SystemId> {
        let sql = "SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()";
        let text: String = self.value("ask for the system identifier", sql).await?;
        // It is unsigned there and signed in SQL.
        let signed: i64 =
            text.parse().map_err(|_| Error::new(Code::Sql, "the system identifier is no number"))?;
        Ok(SystemId(signed.cast_unsigned()))
    }
    /// The database's clock.
    pub async fn now(&self) -> Result<Timestamp> {
        let time: SystemTime = self.value("ask for the time", "SELECT pg_catalog.clock_timestamp()").await?;
        Ok(Timestamp(time.into()))
    }
    /// How far replay has come; none before the first record.
    pub async fn last_replay_lsn(&self) -> Result<Option<Lsn>> {
        let sql = "SELECT pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text";
        lsn(self.value("ask how far replay is", sql).await?)
    }
    /// The commit time of the last transaction replayed.
    pub async fn last_replay_time(&self) -> Result<Option<Timestamp>> {
        let time: Option<SystemTime> =
            self.value("ask how far replay is", "SELECT pg_catalog.pg_last_xact_replay_timestamp()").await?;
        Ok(time.map(|t| Timestamp(t.into())))
    }
    /// Where the server writes (a primary) or has replayed to (a standby).
    pub async fn position(&self) -> Result<Lsn> {
        let sql = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
                   ELSE pg_catalog.pg_current_wal_insert_lsn() END::pg_catalog.text";
        let text: Option<String> = self.value("ask for the WAL position", sql).await?;
        lsn(text)?.ok_or_else(|| Error::new(Code::Sql, "the server has no WAL position yet").at(&self.place))
    }
    /// Up to where WAL is durable on a primary.
    pub async fn flush_position(&self) -> Result<Lsn> {
        let sql = "SELECT pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text";
        lsn(self.value("ask for the WAL position", sql).await?)?
            .ok_or_else(|| Error::new(Code::Sql, "the server has no WAL position yet").at(&self.place))
    }
    /// True while replay is paused (or about to be).
    pub async fn is_replay_paused(&self) -> Result<bool> {
        self.value("ask whether replay is paused", "SELECT pg_catalog.pg_is_wal_replay_paused()").await
    }
    /// How many prepared transactions wait, holding their locks.
    pub async fn prepared_transactions(&self) -> Result<i64> {
        let sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts";
        self.value("count the prepared transactions", sql).await
    }
    /// One value of the setting as PostgreSQL shows it; none when it does not exist.
    pub async fn setting(&self, name: &str) -> Result<Option<String>> {
        let sql = "SELECT pg_catalog.current_setting($1, true)";
        let row = self.row(&format!("read the setting {name}"), QUICK, sql, &[(&name, Type::TEXT)]).await?;
        get(&row, 0)
    }

    /// The end of the segment that was closed; none on a standby, where it is impossible. A switch right after
    /// another one does nothing, and the answer is the end of the earlier.
    pub async fn switch_wal(&self) -> Result<Lsn> {
        let sql = "SELECT pg_catalog.pg_switch_wal()::pg_catalog.text";
        lsn(self.value("switch to a new WAL segment", sql).await?)?
            .ok_or_else(|| Error::new(Code::Sql, "pg_switch_wal said nothing").at(&self.place))
    }
    /// Names this moment; the position is the record's end.
    pub async fn create_restore_point(&self, name: &str) -> Result<Lsn> {
        let sql = "SELECT pg_catalog.pg_create_restore_point($1)::pg_catalog.text";
        let row = self.row("make a restore point", QUICK, sql, &[(&name, Type::TEXT)]).await?;
        lsn(get(&row, 0)?)?.ok_or_else(|| Error::new(Code::Sql, "pg_create_restore_point said nothing"))
    }
    /// Needs `pg_checkpoint` (15+) or a superuser. Waits as long as the checkpoint takes, an hour at most.
    pub async fn checkpoint(&self) -> Result<()> {
        self.batch("make a checkpoint", Duration::from_hours(1), "CHECKPOINT").await
    }
    /// Held by this session until it ends; false when somebody else has it.
    pub async fn try_advisory_lock(&self, class: i32, object: i32) -> Result<bool> {
        let sql = "SELECT pg_catalog.pg_try_advisory_lock($1, $2)";
        let row =
            self.row("take the lock", QUICK, sql, &[(&class, Type::INT4), (&object, Type::INT4)]).await?;
        get(&row, 0)
    }
    pub async fn advisory_unlock(&self, class: i32, object: i32) -> Result<bool> {
        let sql = "SELECT pg_catalog.pg_advisory_unlock($1, $2)";
        let row = self
            .row("give the lock back", QUICK, sql, &[(&class, Type::INT4), (&object, Type::INT4)])
            .await?;
        get(&row, 0)
    }
    /// Ends recovery and waits until it has ended.
    pub async fn promote(&self, within: Duration) -> Result<()> {
        let seconds = i32::try_from(within.as_secs()).unwrap_or(i32::MAX).max(1);
        let sql = "SELECT pg_catalog.pg_promote(true, $1)";
        let row = self.row("promote the server", within + QUICK, sql, &[(&seconds, Type::INT4)]).await?;
        if get(&row, 0)? {
            return Ok(());
        }
        Err(Error::new(Code::Service, format!("the server was not promoted within {seconds} s"))
            .at(&self.place)
            .hint("look at its log"))
    }

    /// One value of one row; only for statements that merely look.
    pub(super) async fn value<T: FromSqlOwned>(&self, doing: &str, sql: &str) -> Result<T> {
        get(&self.row(doing, QUICK, sql, &[]).await?, 0)
    }
}

/// A column of the type that the statement says.
pub(super) fn get<T: FromSqlOwned>(row: &Row, column: usize) -> Result<T> {
    row.try_get(column)
        .map_err(|e| Error::new(Code::Sql, "PostgreSQL answered with another type than expected").because(e))
}

pub(super) fn lsn(text: Option<String>) -> Result<Option<Lsn>> {
    text.map(|t| t.parse().map_err(|e: Error| Error::new(Code::Sql, "an LSN was expected").because(e)))
        .transpose()
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        text = format!("{text}: {c}");
        cause = c.source();
    }
    text
}
