//! What the agent remembers across restarts: one SQLite file, `agent.db` in the state directory. Acknowledgements, job
//! runs, alert states: a cache and a diary, never the only copy of a truth. A file that is missing, or that SQLite
//! calls damaged, is begun anew (the damaged one is kept aside), which costs time and no data: at the start, and
//! whenever it is found out. While the disk is full, the agent remembers in memory and tries the file again.
//!
//! Each area keeps its tables in a file of its own below `state/` and lists its statements in `MIGRATIONS`, in order;
//! released ones are never changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use crate::error::{Code, Error, Result};
use crate::util::durable;

pub mod acks;
pub mod alerts;
pub mod damage;
pub mod runs;
pub mod usage;

/// How long a statement waits for another process's lock.
const BUSY: Duration = Duration::from_secs(5);

/// After a full disk: until the file is tried again.
const RETRY: Duration = Duration::from_mins(1);

/// Applied in this order; `user_version` counts those that are done.
const MIGRATIONS: &[&str] = &[acks::TABLE, runs::TABLES, alerts::MIGRATION, usage::TABLE, damage::TABLE];

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct State(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    connection: Connection,
    kept: Kept,
}

/// Where the memory is kept.
#[derive(Debug)]
enum Kept {
    File(PathBuf),
    /// In memory until this file can be written.
    Meanwhile {
        file: PathBuf,
        tried: Instant,
    },
    Nowhere,
}

impl State {
    /// Opens or makes the file; begins anew where it is damaged. An error where the directory cannot be used.
    pub fn open(path: &Path) -> Result<Self> {
        match open_file(path) {
            Ok(connection) => Ok(Self::of(connection, Kept::File(path.to_owned()))),
            Err(e) if is_full(&e) => {
                tracing::error!(error = %e, file = %path.display(), "the disk is full: the agent remembers in memory");
                let kept = Kept::Meanwhile { file: path.to_owned(), tried: Instant::now() };
                Ok(Self::of(in_memory()?, kept))
            }
            Err(e) => {
                let directory = path.parent().unwrap_or(path);
                Err(failed(e).at(path.display()).hint(format!(
                    "{} must be a directory of the user that the agent runs as (the owner of the data directory): \
                     chown postgres: {0}",
                    directory.display()
                )))
            }
        }
    }
    /// For tests, and for commands that run without a state directory.
    pub fn in_memory() -> Result<Self> {
        Ok(Self::of(in_memory()?, Kept::Nowhere))
    }
    /// For a command's look while no agent answers: changes nothing. None where there is no memory yet, or one of
    /// another version.
    pub fn look(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let open = || {
            let connection = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            connection.busy_timeout(BUSY)?;
            let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            rusqlite::Result::Ok((u32::try_from(MIGRATIONS.len()) == Ok(version)).then_some(connection))
        };
        let connection = open().map_err(|e| failed(e).at(path.display()))?;
        Ok(connection.map(|connection| Self::of(connection, Kept::Nowhere)))
    }
    fn of(connection: Connection, kept: Kept) -> Self {
        Self(Arc::new(Mutex::new(Inner { connection, kept })))
    }
    /// Runs short statements; they are on disk when it returns. Blocks: a millisecond or so. An error is this call's
    /// alone: the next one may find a file that was begun anew.
    pub fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.follow_file();
        let done = work(&mut inner.connection);
        if done.as_ref().is_err_and(is_damage) {
            inner.begin_anew();
        }
        done.map_err(failed)
    }
}

impl Inner {
    /// The file may have been removed, or be possible again.
    fn follow_file(&mut self) {
        match &mut self.kept {
            // Without it the statements would go to a file that nobody finds again.
            Kept::File(path) if !path.exists() => self.begin_anew(),
            Kept::Meanwhile { tried, .. } if tried.elapsed() >= RETRY => {
                *tried = Instant::now();
                self.begin_anew();
            }
            Kept::File(_) | Kept::Meanwhile { .. } | Kept::Nowhere => {}
        }
    }

    fn begin_anew(&mut self) {
        let (Kept::File(path) | Kept::Meanwhile { file: path, .. }) = &self.kept else { return };
        let path = path.clone();
        match open_file(&path) {
            Ok(connection) => {
                tracing::warn!(file = %path.display(), "the agent's memory was begun anew");
                *self = Self { connection, kept: Kept::File(path) };
            }
            // Statements fail until it can; who asked says so.
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "the agent's memory cannot be begun anew yet");
            }
        }
    }
}

/// Opens the file, in place of one that is damaged or of a later version.
fn open_file(path: &Path) -> rusqlite::Result<Connection> {
    let opened = Connection::open(path).and_then(prepared);
    match opened {
        Err(e) if is_damage(&e) => {
            tracing::warn!(error = %e, file = %path.display(), "the agent's memory is damaged and set aside");
            set_aside(path);
            Connection::open(path).and_then(prepared)
        }
        other => other,
    }
}

/// One is kept for who wants to know; its journals are of no use without it.
fn set_aside(path: &Path) {
    let beside = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let moved = durable::rename_over(path, &beside(".damaged"));
    for ending in ["-wal", "-shm"] {
        let removed = durable::remove_file(&beside(ending));
        if let Err(error) = moved.as_ref().and(removed.as_ref()) {
            tracing::warn!(%error, "the damaged memory cannot be set aside");
        }
    }
}

fn in_memory() -> Result<Connection> {
    Connection::open_in_memory().and_then(prepared).map_err(failed)
}

fn prepared(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    let done: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if sound != "ok" || MIGRATIONS.len() < done as usize {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(sound),
        ));
    }
    for (number, statement) in (1u32..).zip(MIGRATIONS) {
        if number > done {
            connection
                .execute_batch(&format!("BEGIN; {statement}; PRAGMA user_version = {number}; COMMIT"))?;
        }
    }
    Ok(connection)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

fn failed(cause: rusqlite::Error) -> Error {
    Error::new(Code::Io, "the agent's memory cannot be used").because(cause).hint(
        "agent.db in the state directory holds nothing that cannot be found out again: stop the agent, remove the file, \
         start it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(state: &State) -> Result<i64> {
        state.with(|db| {
            db.execute_batch("CREATE TABLE IF NOT EXISTS t (x)")?;
            db.execute("INSERT INTO t VALUES (1)", [])?;
            db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        })
    }

    #[test]
    fn what_was_remembered_is_there_after_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.db");
        assert_eq!(count(&State::open(&path).unwrap()).unwrap(), 1);
        assert_eq!(count(&State::open(&path).unwrap()).unwrap(), 2);
    }

    #[test]
    fn garbage_is_set_aside_and_the_memory_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.db");
        std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
        assert_eq!(count(&State::open(&path).unwrap()).unwrap(), 1);
        assert_eq!(std::fs::read(dir.path().join("agent.db.damaged")).unwrap(), vec![b'x'; 10_000]);
    }

    #[test]
    fn a_page_overwritten_under_the_agent_is_found_out_and_costs_one_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.db");
        let state = State::open(&path).unwrap();
        count(&state).unwrap();
        state.with(|db| db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA shrink_memory")).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, vec![0xAA; bytes.len()]).unwrap();
        let tries: Vec<_> = (0..3).map(|_| count(&state)).collect();
        assert!(tries[2].is_ok(), "{tries:?}");
        assert_eq!(count(&State::open(&path).unwrap()).unwrap(), *tries[2].as_ref().unwrap() + 1);
    }

    #[test]
    fn a_file_of_a_later_version_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 1000).unwrap();
        assert_eq!(count(&State::open(&path).unwrap()).unwrap(), 1);
        assert!(dir.path().join("agent.db.damaged").exists());
    }

    #[test]
    fn a_file_removed_under_the_agent_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.db");
        let state = State::open(&path).unwrap();
        count(&state).unwrap();
        count(&state).unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert_eq!(count(&state).unwrap(), 1);
        assert!(path.exists());
    }

    #[test]
    fn a_place_that_is_no_directory_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = State::open(&dir.path().join("nowhere/agent.db")).unwrap_err();
        assert_eq!(error.code(), Code::Io);
        assert!(error.hint_text().unwrap().contains("must be a directory of the user"), "{error:?}");
    }
}
