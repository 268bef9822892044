//! Places where WAL was damaged or lost, each with what was done about it: so that one backup is taken for one of them,
//! whatever dies meanwhile.

use rusqlite::params;

use super::State;
use super::runs::{moment, text};
use crate::error::Result;
use crate::model::{ClusterName, JobName, SegmentName, Timestamp};

pub(super) const TABLE: &str = "
    CREATE TABLE damage (
        cluster TEXT NOT NULL,
        last_segment TEXT NOT NULL,
        what TEXT NOT NULL,
        found_at TEXT NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        next_at TEXT NOT NULL,
        ended_at TEXT,
        ended TEXT,
        PRIMARY KEY (cluster, last_segment)
    ) STRICT";

/// A place that no older backup can be recovered past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The last segment that is damaged or missing: a backup that begins behind it does not need it.
    pub last: SegmentName,
    pub what: String,
}

/// One about which something is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub place: Place,
    /// Backups that were tried because of it.
    pub tries: u32,
    /// Not before.
    pub next_at: Timestamp,
}

/// Writes a place down; true where it was not known.
pub fn note(state: &State, cluster: &ClusterName, place: &Place, now: Timestamp) -> Result<bool> {
    state.with(|connection| {
        let sql =
            "INSERT INTO damage (cluster, last_segment, what, found_at, next_at) VALUES (?1, ?2, ?3, ?4, ?4)
                   ON CONFLICT DO NOTHING";
        let values = params![cluster.as_str(), place.last.to_string(), place.what, text(now)];
        Ok(connection.execute(sql, values)? > 0)
    })
}

/// Those that nothing has ended yet, the oldest WAL first.
pub fn open(state: &State, cluster: &ClusterName) -> Result<Vec<Open>> {
    state.with(|connection| {
        let sql =
            "SELECT last_segment, what, tries, next_at FROM damage WHERE cluster = ?1 AND ended_at IS NULL
                   ORDER BY last_segment";
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map([cluster.as_str()], |row| {
            let last: String = row.get(0)?;
            let unreadable = |column| super::runs::unreadable(column, "what it should be");
            Ok(Open {
                place: Place {
                    last: SegmentName::parse(&last).ok_or_else(|| unreadable(0))?,
                    what: row.get(1)?,
                },
                tries: row.get(2)?,
                next_at: moment(row, 3)?.ok_or_else(|| unreadable(3))?,
            })
        })?;
        rows.collect()
    })
}

/// Not before this moment again; `tries` backups have been tried.
pub fn postpone(
    state: &State,
    cluster: &ClusterName,
    last: SegmentName,
    tries: u32,
    to: Timestamp,
) -> Result<()> {
    state.with(|connection| {
        let sql = "UPDATE damage SET tries = ?3, next_at = ?4 WHERE cluster = ?1 AND last_segment = ?2";
        connection.execute(sql, params![cluster.as_str(), last.to_string(), tries, text(to)]).map(drop)
    })
}

/// Nothing more is to be done about it, and why.
pub fn end(state: &State, cluster: &ClusterName, last: SegmentName, how: &str, now: Timestamp) -> Result<()> {
    state.with(|connection| {
        let sql = "UPDATE damage SET ended_at = ?3, ended = ?4 WHERE cluster = ?1 AND last_segment = ?2";
        connection.execute(sql, params![cluster.as_str(), last.to_string(), text(now), how]).map(drop)
    })
}

/// When the newest run of this job began that damage has caused and that took its backup.
pub fn last_done(state: &State, job: &JobName) -> Result<Option<Timestamp>> {
    state.with(|connection| {
        let sql = "SELECT max(started_at) FROM job_runs
                   WHERE cause = 'damage' AND job = ?1 AND outcome IN ('done', 'finding')";
        connection.query_row(sql, [job.as_str()], |row| moment(row, 0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_noted_once_and_open_until_it_is_ended() {
        let state = State::in_memory().unwrap();
        let cluster = ClusterName::parse("main").unwrap();
        let now: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-11-21T03:00:00Z".parse().unwrap();
        let last = SegmentName::parse("000000010000000000000003").unwrap();
        let place = Place { last, what: "damaged".to_owned() };
        assert!(note(&state, &cluster, &place, now).unwrap());
        assert!(!note(&state, &cluster, &place, later).unwrap());
        assert_eq!(open(&state, &cluster).unwrap(), [Open { place: place.clone(), tries: 0, next_at: now }]);
        assert_eq!(open(&state, &ClusterName::parse("other").unwrap()).unwrap(), []);
        postpone(&state, &cluster, last, 1, later).unwrap();
        assert_eq!(
            open(&state, &cluster).unwrap(),
            [Open { place: place.clone(), tries: 1, next_at: later }]
        );
        end(&state, &cluster, last, "covered", later).unwrap();
        assert_eq!(open(&state, &cluster).unwrap(), []);
        assert!(!note(&state, &cluster, &place, later).unwrap(), "what is ended does not come again");
    }
}
