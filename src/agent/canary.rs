//! The canary's task: writes one row a minute into `pgkeep.canary`, where `[canary]` says so, and makes the table when it is
//! missing.
//!
//! Order of a round: what the server is and what stands there → schema and table, if there are none → the row. On a standby
//! nothing is written, and after its promotion the numbers go on. Two agents that reach one primary write one row, for each
//! sees the other's.
//!
//! It never disturbs: one connection, one short statement, limits of its own, no wait for a synchronous standby.
//!
//! Failure: a fact on the board, told once in the log; the next round tries again, over a new connection where the old one is
//! lost. Cancellation: at once; a row is committed or not there.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Hub;
use super::board::{CanaryFacts, Failure};
use super::supervisor::Task;
use crate::config::ClusterConfig;
use crate::error::{Code, Error, Result};
use crate::postgres::canary::{self, CanaryPlace, CanaryRow};
use crate::postgres::{ConnInfo, Session, connect_to};

/// Connecting and both statements. A server that hangs is a failure of this round.
const ROUND_WITHIN: Duration = Duration::from_secs(25);

/// A task for each cluster; none where it is off.
pub fn tasks(hub: &Hub) -> Vec<Task> {
    let config = hub.config.clone();
    let task = |cluster: &ClusterConfig| {
        let (hub, cluster) = (hub.clone(), cluster.clone());
        Task::new(format!("canary {}", cluster.name), move || keep(hub.clone(), cluster.clone()))
    };
    for cluster in &config.clusters {
        hub.board.cluster(&cluster.name, |facts| {
            let rows_total = facts.canary.rows_total;
            facts.canary =
                CanaryFacts { enabled: config.canary.enabled, rows_total, ..CanaryFacts::default() };
        });
    }
    if config.canary.enabled { config.clusters.iter().map(task).collect() } else { Vec::new() }
}

async fn keep(hub: Hub, cluster: ClusterConfig) -> Result<()> {
    let mut ticks = tokio::time::interval(hub.config.canary.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writer = Writer { hub: hub.clone(), cluster, session: None, failing: false };
    loop {
        tokio::select! {
            () = hub.shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = hub.shutdown.cancelled() => return Ok(()),
            () = writer.round() => {}
        }
    }
}

/// What a round came to.
enum Done {
    Standby,
    Row { row: CanaryRow, ours: bool },
}

struct Writer {
    hub: Hub,
    cluster: ClusterConfig,
    session: Option<Session>,
    failing: bool,
}

impl Writer {
    async fn round(&mut self) {
        let done = tokio::time::timeout(ROUND_WITHIN, self.write()).await;
        let done = done.unwrap_or_else(|_| Err(Error::new(Code::Sql, "PostgreSQL does not take the canary")));
        let (name, at) = (&self.cluster.name, self.hub.clock.now());
        if let Err(error) = &done {
            self.session = None;
            if !self.failing {
                let hint = error.hint_text().unwrap_or_default();
                tracing::warn!(cluster = %name, %error, hint, "the canary is not written");
            }
        } else if self.failing {
            tracing::info!(cluster = %name, "the canary is written again");
        }
        self.failing = done.is_err();
        self.hub.board.cluster(name, |facts| {
            let canary = &mut facts.canary;
            match done {
                Err(error) => canary.failure = Some(Failure::of(&error, at)),
                Ok(Done::Standby) => (canary.failure, canary.standby) = (None, true),
                Ok(Done::Row { row, ours }) => {
                    (canary.failure, canary.standby) = (None, false);
                    (canary.number, canary.written_at) = (Some(row.number), Some(row.written));
                    canary.rows_total += u64::from(ours);
                }
            }
        });
    }

    async fn write(&mut self) -> Result<Done> {
        // A kept connection that ended since then, as after a restart of the server, is no failure.
        if self.session.as_ref().is_none_or(Session::is_lost) {
            let database = &self.hub.config.canary.database;
            let info = ConnInfo::resolve(&self.cluster.connection)?.with_dbname(database);
            let session = connect_to(&info).await?;
            session.prepare_for_canary().await?;
            self.session = Some(session);
        }
        let Some(session) = &self.session else { return Err(Error::internal("a connection went away")) };
        let place = session.canary_place().await?;
        if place.in_recovery {
            return Ok(Done::Standby);
        }
        let config = &self.hub.config.canary;
        usable(&place, session.user(), &config.database)?;
        let denied = |e: Error| match e.code() {
            Code::NotReady => e.hint(give(&place, session.user(), &config.database)),
            _ => e,
        };
        if place.table.is_none() {
            session.make_canary(place.schema.is_some()).await.map_err(denied)?;
            tracing::info!(
                cluster = %self.cluster.name,
                database = config.database,
                "the canary's table is made: pgkeep.canary (DROP SCHEMA pgkeep CASCADE removes it)"
            );
        }
        let (row, ours) = session.write_canary(config.rows(), config.interval / 2).await.map_err(denied)?;
        Ok(Done::Row { row, ours })
    }
}

/// Whether the role may write there, and it is ours what stands there. `check` says the same.
pub fn usable(place: &CanaryPlace, role: &str, database: &str) -> Result<()> {
    let wrong = |what: String| Error::new(Code::NotReady, what).at(format!("database {database}"));
    let give = || give(place, role, database);
    if let Some(publications) = &place.published_by {
        let what =
            format!("the canary cannot be in a database whose tables are all published ({publications})");
        let hint = "its subscribers lack the table, and their replication would stop: name another `database` in [canary]";
        return Err(wrong(what).hint(hint));
    }
    let stranger = place.schema.iter().chain(&place.table).find(|keeper| !keeper.trusted);
    if let Some(stranger) = stranger {
        let what = format!("the canary's schema or table belongs to role {}, not to {role}", stranger.role);
        return Err(wrong(what).hint(give()));
    }
    match (&place.schema, &place.table) {
        (None, _) if !place.may_create => {
            Err(wrong("the role may not make the canary's schema".to_owned()).hint(give()))
        }
        (_, Some(_)) if !place.plain => {
            let what = "what stands at pgkeep.canary is not the canary's table";
            Err(wrong(what.to_owned()).hint("rename it, or name another `database` in [canary]"))
        }
        _ => Ok(()),
    }
}

/// What a superuser has to say so that the role may.
fn give(place: &CanaryPlace, role: &str, database: &str) -> String {
    let statements = canary::grant(role, place.schema.is_some(), place.table.is_some());
    format!("as a superuser, in database {database}: {}", statements.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::canary::Keeper;

    fn place() -> CanaryPlace {
        let own = || Some(Keeper { role: "pgkeep".to_owned(), trusted: true });
        CanaryPlace {
            in_recovery: false,
            schema: own(),
            table: own(),
            plain: true,
            may_create: false,
            published_by: None,
        }
    }
    fn said(place: &CanaryPlace) -> String {
        let error = usable(place, "pgkeep", "postgres").unwrap_err();
        format!("{error} {}", error.hint_text().unwrap())
    }

    #[test]
    fn it_writes_into_what_is_its_own_or_what_it_may_make() {
        assert!(usable(&place(), "pgkeep", "postgres").is_ok());
        let nothing = CanaryPlace { schema: None, table: None, plain: false, may_create: true, ..place() };
        assert!(usable(&nothing, "pgkeep", "postgres").is_ok());
        let prepared = CanaryPlace { table: None, plain: false, ..place() };
        assert!(usable(&prepared, "pgkeep", "postgres").is_ok());
    }

    #[test]
    fn what_is_missing_or_in_the_way_is_said_with_what_to_do() {
        let nothing = CanaryPlace { schema: None, table: None, plain: false, ..place() };
        assert!(said(&nothing).contains("CREATE SCHEMA pgkeep AUTHORIZATION \"pgkeep\""));
        let stranger = Some(Keeper { role: "eve".to_owned(), trusted: false });
        let theirs = CanaryPlace { table: stranger, ..place() };
        assert!(said(&theirs).contains("role eve"));
        assert!(said(&theirs).contains("ALTER TABLE pgkeep.canary OWNER TO \"pgkeep\""));
        assert!(said(&CanaryPlace { plain: false, ..place() }).contains("not the canary's table"));
        let published = CanaryPlace { published_by: Some("all_of_it".to_owned()), ..place() };
        assert!(said(&published).contains("all_of_it"));
    }
}
