//! Which alerts are watched and open, and which notices still wait to be delivered. Lost, an open alert is told once
//! more.

use rusqlite::params;

use super::State;
use crate::agent::alerts::machine::{Notice, Watched};
use crate::error::Result;

pub(super) const MIGRATION: &str = "
    create table alert (key text primary key, body text not null) strict;
    create table alert_outbox (id integer primary key autoincrement, sink text not null, body text not null) strict";

/// A notice for one receiver that has not taken it yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Undelivered {
    pub id: i64,
    pub sink: String,
    pub notice: Notice,
}

/// What was watched; what cannot be understood (another version wrote it) is forgotten.
pub fn watched(state: &State) -> Result<Vec<Watched>> {
    state.with(|db| {
        let mut rows = db.prepare("select body from alert order by key")?;
        let bodies = rows.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        Ok(bodies.iter().filter_map(|body| serde_json::from_str(body).ok()).collect())
    })
}

/// What waits, in the order in which it happened.
pub fn undelivered(state: &State) -> Result<Vec<Undelivered>> {
    state.with(|db| {
        let mut rows = db.prepare("select id, sink, body from alert_outbox order by id")?;
        let all = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
        let all = all.collect::<Result<Vec<(i64, String, String)>, _>>()?;
        let parsed = all.into_iter().filter_map(|(id, sink, body)| {
            Some(Undelivered { id, sink, notice: serde_json::from_str(&body).ok()? })
        });
        Ok(parsed.collect())
    })
}

/// The new state of affairs and the notices that come of it, both or neither; the notices' ids in their order.
pub fn record(state: &State, watched: &[Watched], notices: &[(String, Notice)]) -> Result<Vec<i64>> {
    state.with(|db| {
        let change = db.transaction()?;
        change.execute("delete from alert", [])?;
        for one in watched {
            let body = serde_json::to_string(one).unwrap_or_default();
            change.execute("insert into alert (key, body) values (?1, ?2)", params![one.alert.key, body])?;
        }
        let mut ids = Vec::new();
        for (sink, notice) in notices {
            let body = serde_json::to_string(notice).unwrap_or_default();
            change.execute("insert into alert_outbox (sink, body) values (?1, ?2)", params![sink, body])?;
            ids.push(change.last_insert_rowid());
        }
        change.commit()?;
        Ok(ids)
    })
}

/// It was taken, or given up.
pub fn settled(state: &State, id: i64) -> Result<()> {
    state.with(|db| db.execute("delete from alert_outbox where id = ?1", [id]).map(drop))
}
