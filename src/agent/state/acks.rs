//! Acknowledgements that outlive the agent: which content of which file every required repository has.
//!
//! Keyed by system identifier, timeline, name and digest, and good only for the repositories that gave it. A row that is
//! lost costs a look at the store.

use rusqlite::{Connection, params};

use super::State;
use crate::archive::push::Fingerprint;
use crate::error::Result;
use crate::model::{Digest, Lsn, SystemId, Timestamp, WalFileName};

/// For `MIGRATIONS`.
pub const TABLE: &str = "CREATE TABLE acks (
    system TEXT NOT NULL, timeline INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
    holders TEXT NOT NULL,
    device TEXT NOT NULL, inode TEXT NOT NULL, bytes TEXT NOT NULL,
    mtime INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    damaged_at TEXT, damage TEXT,
    acked_at INTEGER NOT NULL,
    PRIMARY KEY (system, timeline, name, digest)
) WITHOUT ROWID";

/// That a file with these bytes is durable everywhere it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub name: WalFileName,
    pub digest: Digest,
    /// The file's when it was digested.
    pub fingerprint: Fingerprint,
    pub damage: Option<(Lsn, String)>,
    pub at: Timestamp,
}

/// Writes acknowledgements, in one transaction.
pub fn keep(state: &State, system: SystemId, holders: &str, acks: &[Ack]) -> Result<()> {
    state.with(|connection| {
        let all = connection.transaction()?;
        for ack in acks {
            insert(&all, system, holders, ack)?;
        }
        all.commit()
    })
}

fn insert(all: &Connection, system: SystemId, holders: &str, ack: &Ack) -> rusqlite::Result<()> {
    let Fingerprint { device, inode, bytes, mtime, ctime } = ack.fingerprint;
    let damage = ack.damage.as_ref();
    all.prepare_cached(
        "INSERT OR REPLACE INTO acks VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)",
    )?
    .execute(params![
        system.to_string(),
        ack.name.timeline().0,
        ack.name.to_string(),
        ack.digest.to_string(),
        holders,
        device.to_string(),
        inode.to_string(),
        bytes.to_string(),
        mtime.0,
        mtime.1,
        ctime.0,
        ctime.1,
        damage.map(|(lsn, _)| lsn.to_string()),
        damage.map(|(_, why)| why),
        ack.at.postgres_micros(),
    ])?;
    Ok(())
}

/// Those that these repositories gave, the oldest first. A row that cannot be read is none.
pub fn load(state: &State, system: SystemId, holders: &str) -> Result<Vec<Ack>> {
    state.with(|connection| {
        let mut rows = connection.prepare_cached(
            "SELECT name, digest, device, inode, bytes, mtime, mtime_ns, ctime, ctime_ns, damaged_at, damage, acked_at
             FROM acks WHERE system = ?1 AND holders = ?2 ORDER BY acked_at",
        )?;
        let found = rows.query_map(params![system.to_string(), holders], |row| Ok(read(row)))?;
        Ok(found.flatten().flatten().collect())
    })
}

fn read(row: &rusqlite::Row<'_>) -> Option<Ack> {
    let text = |at: usize| row.get::<_, String>(at).ok();
    let number = |at: usize| text(at)?.parse::<u64>().ok();
    let damage = match (text(9), text(10)) {
        (Some(lsn), Some(why)) => Some((lsn.parse().ok()?, why)),
        _ => None,
    };
    Some(Ack {
        name: WalFileName::parse(&text(0)?)?,
        digest: Digest::parse(&text(1)?)?,
        fingerprint: Fingerprint {
            device: number(2)?,
            inode: number(3)?,
            bytes: number(4)?,
            mtime: (row.get(5).ok()?, row.get(6).ok()?),
            ctime: (row.get(7).ok()?, row.get(8).ok()?),
        },
        damage,
        at: Timestamp::from_postgres_micros(row.get(11).ok()?)?,
    })
}

/// Forgets what was acknowledged before `before`.
pub fn prune(state: &State, before: Timestamp) -> Result<()> {
    state.with(|connection| {
        connection.execute("DELETE FROM acks WHERE acked_at < ?1", params![before.postgres_micros()])?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_comes_back_for_the_same_cluster_and_repositories_only() {
        let state = State::in_memory().unwrap();
        let ack = Ack {
            name: WalFileName::parse("0000000A0000000000000007").unwrap(),
            digest: Digest([7; 32]),
            fingerprint: Fingerprint {
                device: u64::MAX,
                inode: 2,
                bytes: 16 << 20,
                mtime: (-1, 999_999_999),
                ctime: (5, 6),
            },
            damage: Some((Lsn(0x7000_1000), "bad".to_owned())),
            at: "2026-11-21T02:00:00.5Z".parse().unwrap(),
        };
        keep(&state, SystemId(u64::MAX), "a=1", std::slice::from_ref(&ack)).unwrap();
        keep(&state, SystemId(u64::MAX), "a=1", std::slice::from_ref(&ack)).unwrap();
        assert_eq!(load(&state, SystemId(u64::MAX), "a=1").unwrap(), std::slice::from_ref(&ack));
        assert_eq!(load(&state, SystemId(u64::MAX), "a=2").unwrap(), []);
        assert_eq!(load(&state, SystemId(1), "a=1").unwrap(), []);
        prune(&state, ack.at).unwrap();
        assert_eq!(load(&state, SystemId(u64::MAX), "a=1").unwrap().len(), 1);
        prune(&state, "2026-11-21T02:00:01Z".parse().unwrap()).unwrap();
        assert_eq!(load(&state, SystemId(u64::MAX), "a=1").unwrap(), []);
    }
}
