//! Asks PostgreSQL how it is, and the disk of its pg_wal, every few seconds: `ServerFacts` on the board.
//!
//! Order: server and disk are asked at the same time and neither waits for the other; the forecast follows. One
//! connection per cluster is kept, and made anew after any failure. It only reads and leaves no transaction open, so an
//! idle server writes no WAL because of it.
//!
//! Bounds: [`ASK_WITHIN`] for a round's questions, `disk`'s own for the disk. Cancellation: at once. A server that does
//! not answer is a fact, never an error of this task.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::Hub;
use super::board::{ClusterFacts, ServerFacts};
use super::readiness;
use super::supervisor::Task;
use crate::config::ClusterConfig;
use crate::error::{Code, Error, Result};
use crate::model::{PgMajor, Timestamp};
use crate::postgres::vitals::Vitals;
use crate::postgres::{self, Session};
use disk::{Disk, Seen};
use forecast::{Room, Sample};

mod disk;
pub mod forecast;

/// Connecting included.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// The databases' size changes slowly, and asking looks at every file.
const SIZE_EVERY: Duration = Duration::from_hours(1);
/// A round that is late by so much hangs.
const LATE: Duration = Duration::from_mins(5);

/// A task for each cluster.
pub fn tasks(hub: &Hub) -> Vec<Task> {
    let task = |cluster: &ClusterConfig| {
        let (hub, cluster) = (hub.clone(), cluster.clone());
        Task::new(format!("server {}", cluster.name), move || watch(hub.clone(), cluster.clone()))
    };
    hub.config.clusters.iter().map(task).collect()
}

async fn watch(hub: Hub, cluster: ClusterConfig) -> Result<()> {
    let mut watcher = Watcher {
        server: Server { connection: cluster.connection.clone(), session: None, sized_at: None },
        disk: Disk::new(cluster.clone()),
        said: Said::default(),
        hub: hub.clone(),
        cluster,
    };
    let name = format!("server {}", watcher.cluster.name);
    let interval = hub.config.agent.server_interval;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let rounds = async {
        loop {
            ticks.tick().await;
            hub.pulse.beat(&name, interval + LATE);
            watcher.round().await;
        }
    };
    tokio::select! {
        () = hub.shutdown.cancelled() => {}
        () = rounds => {}
    }
    hub.pulse.rest(&name);
    Ok(())
}

struct Watcher {
    hub: Hub,
    cluster: ClusterConfig,
    server: Server,
    disk: Disk,
    said: Said,
}

/// What the log has been told, so that it is told once.
#[derive(Default)]
struct Said {
    server: bool,
    disk: bool,
}

impl Watcher {
    async fn round(&mut self) {
        // Of before the question: what the server commits meanwhile is not in its answer.
        let at = self.hub.clock.now();
        let (answer, seen) = tokio::join!(self.server.ask(), self.disk.look());
        self.tell(&answer, &seen);
        let instant = self.hub.clock.instant();
        self.hub.board.cluster(&self.cluster.name, |facts| {
            note_server(&mut facts.server, answer, at);
            note_disk(facts, seen.ok(), instant, self.hub.clock.now());
        });
        if let Some(bytes) = self.server.size_when_due().await {
            self.hub.board.cluster(&self.cluster.name, |facts| facts.server.data_bytes = Some(bytes));
        }
    }

    fn tell(&mut self, answer: &Result<Answer>, seen: &Result<Seen>) {
        let cluster = self.cluster.name.as_str();
        match answer {
            Err(error) if !self.said.server => tracing::warn!(cluster, %error, "PostgreSQL does not answer"),
            Ok(_) if self.said.server => tracing::info!(cluster, "PostgreSQL answers again"),
            _ => {}
        }
        match seen {
            Err(error) if !self.said.disk => tracing::warn!(cluster, %error, "pg_wal's size is not known"),
            Ok(_) if self.said.disk => tracing::info!(cluster, "pg_wal's size is known again"),
            _ => {}
        }
        self.said = Said { server: answer.is_err(), disk: seen.is_err() };
    }
}

fn note_server(server: &mut ServerFacts, answer: Result<Answer>, at: Timestamp) {
    match answer {
        Ok(Answer { vitals, major }) => {
            server.asked_at = Some(at);
            server.error = None;
            server.in_recovery = vitals.in_recovery;
            server.archiving_off = vitals.archiving_off;
            server.major = u16::try_from(major.0).ok();
            server.flush_lsn = vitals.flush;
            server.timeline = Some(vitals.timeline);
            server.wal_target_bytes = vitals.wal_target_bytes;
        }
        Err(error) => server.error = Some(error.with_hint()),
    }
}

fn note_disk(facts: &mut ClusterFacts, seen: Option<Seen>, at: Instant, now: Timestamp) {
    let held = readiness::archiving_holds(&facts.archive, now);
    let server = &mut facts.server;
    let Some(seen) = seen else {
        server.wal_disk_full_in_seconds = None;
        return;
    };
    server.pg_wal_bytes = seen.pg_wal;
    server.wal_disk_bytes = seen.disk;
    server.wal_disk_free_bytes = seen.free;
    server.wal_growth.add(Sample { at, bytes: seen.pg_wal });
    let room = Room { free: seen.free, target: server.wal_target_bytes, held };
    server.wal_disk_full_in_seconds = server.wal_growth.full_in(&room).map(|left| left.as_secs());
}

/// The server of one cluster, over one kept connection.
struct Server {
    connection: String,
    session: Option<Session>,
    sized_at: Option<Instant>,
}

struct Answer {
    vitals: Vitals,
    major: PgMajor,
}

impl Server {
    async fn ask(&mut self) -> Result<Answer> {
        let asked = tokio::time::timeout(ASK_WITHIN, self.asked()).await;
        let answer = asked.unwrap_or_else(|_| {
            let what = format!("PostgreSQL does not answer within {} s", ASK_WITHIN.as_secs());
            Err(Error::new(Code::Connect, what))
        });
        if answer.is_err() {
            self.session = None;
        }
        answer
    }

    async fn asked(&mut self) -> Result<Answer> {
        // A kept connection that ended since then, as after a restart of the server, is no failure.
        if let Some(session) = self.session.take_if(|session| !session.is_lost())
            && let Ok(vitals) = session.vitals().await
        {
            let major = session.major();
            self.session = Some(session);
            return Ok(Answer { vitals, major });
        }
        let session = postgres::connect(&self.connection).await?;
        let (vitals, major) = (session.vitals().await?, session.major());
        self.session = Some(session);
        Ok(Answer { vitals, major })
    }

    /// Of all databases, once an hour; None in between, and where it cannot be told.
    async fn size_when_due(&mut self) -> Option<u64> {
        let session = self.session.as_ref()?;
        if self.sized_at.is_some_and(|at| at.elapsed() < SIZE_EVERY) {
            return None;
        }
        self.sized_at = Some(Instant::now());
        let sized = session.databases_bytes().await;
        sized.inspect_err(|error| tracing::debug!(%error, "the databases' size is not known")).ok()
    }
}
