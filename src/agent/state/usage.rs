//! What each repository was counted to hold, so that a restart of the agent does not list it all again.

use rusqlite::{OptionalExtension, params};

use super::State;
use crate::error::Result;
use crate::model::{RepoName, Timestamp};

/// For `MIGRATIONS`.
pub const TABLE: &str = "CREATE TABLE usage (
    repository TEXT NOT NULL PRIMARY KEY, id TEXT NOT NULL, counted_at INTEGER NOT NULL, bytes TEXT NOT NULL
) WITHOUT ROWID";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// When all of it was listed.
    pub at: Timestamp,
    /// Then, and what was sent since.
    pub bytes: u64,
}

/// `id` is the repository's own: another one under the same name was not counted.
pub fn keep(state: &State, repository: &RepoName, id: &str, count: Count) -> Result<()> {
    state.with(|connection| {
        connection.execute(
            "INSERT OR REPLACE INTO usage VALUES (?1, ?2, ?3, ?4)",
            params![repository.as_str(), id, count.at.postgres_micros(), count.bytes.to_string()],
        )?;
        Ok(())
    })
}

pub fn load(state: &State, repository: &RepoName, id: &str) -> Result<Option<Count>> {
    let row: Option<(i64, String)> = state.with(|connection| {
        connection
            .query_row(
                "SELECT counted_at, bytes FROM usage WHERE repository = ?1 AND id = ?2",
                params![repository.as_str(), id],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
    })?;
    Ok(row.and_then(|(at, bytes)| {
        Some(Count { at: Timestamp::from_postgres_micros(at)?, bytes: bytes.parse().ok()? })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_comes_back_for_the_same_repository_only() {
        let state = State::in_memory().unwrap();
        let name = RepoName::parse("eu").unwrap();
        let count = Count { at: "2026-11-21T02:00:00.5Z".parse().unwrap(), bytes: u64::MAX };
        assert_eq!(load(&state, &name, "a").unwrap(), None);
        keep(&state, &name, "a", Count { bytes: 1, ..count }).unwrap();
        keep(&state, &name, "a", count).unwrap();
        assert_eq!(load(&state, &name, "a").unwrap(), Some(count));
        assert_eq!(load(&state, &name, "b").unwrap(), None);
    }
}
