//! What the agent remembers across restarts: one SQLite file, `agent.db` in the state directory. Acknowledgements, job
//! runs, alert states: a cache and a diary, never the only copy of a truth. A file that is missing, or that SQLite
//! calls damaged, is begun anew (the damaged one is kept aside), which costs time and no data.
//!
//! Each area keeps its tables in a file of its own below `state/` and lists its statements in `MIGRATIONS`, in order;
//! released ones are never changed.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use crate::error::{Code, Error, Result};

pub mod acks;

/// How long a statement waits for another process's lock.
const BUSY: Duration = Duration::from_secs(5);

/// Applied in this order; `user_version` counts those that are done.
const MIGRATIONS: &[&str] = &[acks::TABLE];

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct State(Arc<Mutex<Connection>>);

impl State {
    /// Opens or makes the file; begins anew where it is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = Connection::open(path).and_then(prepared);
        match opened {
            Ok(connection) => Ok(Self(Arc::new(Mutex::new(connection)))),
            Err(e) => Err(failed(e).at(path.display())),
        }
    }
    /// For tests, and for commands that run without a state directory.
    pub fn in_memory() -> Result<Self> {
        let connection = Connection::open_in_memory().and_then(prepared).map_err(failed)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }
    /// Runs short statements; they are on disk when it returns. Blocks: a millisecond or so.
    pub fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)).map_err(failed)
    }
}

fn prepared(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    let done: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (number, statement) in (1u32..).zip(MIGRATIONS) {
        if number > done {
            connection
                .execute_batch(&format!("BEGIN; {statement}; PRAGMA user_version = {number}; COMMIT"))?;
        }
    }
    Ok(connection)
}

fn failed(cause: rusqlite::Error) -> Error {
    Error::new(Code::Io, "the agent's memory cannot be used").because(cause).hint(
        "agent.db in the state directory holds nothing that cannot be found out again: stop the agent, remove the file, \
         start it",
    )
}
