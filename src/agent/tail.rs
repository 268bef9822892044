//! The live tail's task: asks the server every few seconds how far WAL is flushed, and has the difference shipped
//! (`archive::tail`).
//!
//! Order: the server is asked over one kept connection → what it says goes to every lane → each lane ships in its own
//! time and always works on the newest look, so a slow store joins what it has missed into longer heads. The required
//! repositories are one lane, whose progress is the board's; each optional one is a lane of its own.
//!
//! Nothing is shipped of a server in recovery, of one that does not archive, and of one whose data directory is not
//! here: a connection that leads to another host's primary must not make us ship what lies in our `pg_wal`.
//!
//! Failure: what fails is tried again at the next look, from what the repositories are known to hold. Cancellation: at
//! the end of a generation uploads are dropped, which leaves whole heads or none.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::board::TailFacts;
use super::services::Services;
use super::supervisor::Task;
use crate::archive::tail::{Look, Place};
use crate::config::ClusterConfig;
use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::postgres::control_file::{ClusterState, ControlFile};
use crate::postgres::{Session, Written};
use crate::repository::configured;

mod lanes;

/// The server may hang; the next look tries a new connection.
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// A task for each cluster.
pub fn tasks(services: &Services) -> Vec<Task> {
    let config = services.hub.config.clone();
    let task = |cluster: &ClusterConfig| {
        let (services, cluster) = (services.clone(), cluster.clone());
        Task::new(format!("tail {}", cluster.name), move || follow(services.clone(), cluster.clone()))
    };
    config.clusters.iter().map(task).collect()
}

/// What the lanes are to ship; None while there is nothing to ship.
#[derive(Debug, Clone)]
struct Sight {
    look: Look,
    place: Place,
}

async fn follow(services: Services, cluster: ClusterConfig) -> Result<()> {
    let hub = services.hub.clone();
    hub.board.cluster(&cluster.name, |facts| {
        // The totals go on; what is true now is found out.
        facts.tail = TailFacts {
            enabled: false,
            shipped_to: None,
            current_at: None,
            failure: None,
            ..facts.tail.clone()
        };
    });
    if !hub.config.tail.enabled {
        return Ok(());
    }
    let (sender, sights) = watch::channel(None);
    let mut lanes = JoinSet::new();
    for targets in lanes::Targets::all(&hub.config) {
        lanes.spawn(lanes::run(services.clone(), cluster.name.clone(), targets, sights.clone()));
    }
    let mut server =
        Server { cluster: &cluster, services: &services, connected: None, proved: false, connections: 0 };
    let mut ticks = tokio::time::interval(hub.config.tail.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = hub.shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
            Some(ended) = lanes.join_next() => {
                return Err(Error::internal("a lane of the tail ended").at(format!("{ended:?}")));
            }
        }
        let at = hub.clock.now();
        let sight = tokio::select! {
            () = hub.shutdown.cancelled() => return Ok(()),
            sight = server.look(at) => sight,
        };
        let sight = sight.unwrap_or_else(|error| {
            lanes::note_failure(&hub, &cluster.name, &error);
            None
        });
        let archives = sight.is_some();
        hub.board.cluster(&cluster.name, |facts| {
            facts.tail.enabled = archives || facts.tail.enabled && server.connected.is_none();
            if !facts.tail.enabled {
                (facts.tail.shipped_to, facts.tail.current_at) = (None, None);
            }
        });
        // The lanes are told only what they can work on; what they know stays true meanwhile.
        if sight.is_some() {
            sender.send_replace(sight);
        }
    }
}

/// The server of one cluster, over one kept connection.
struct Server<'a> {
    cluster: &'a ClusterConfig,
    services: &'a Services,
    connected: Option<(Session, Place)>,
    /// The primary that answers is the one whose files are here.
    proved: bool,
    connections: u64,
}

impl Server<'_> {
    /// What is there to be shipped; None where nothing is to be.
    async fn look(&mut self, at: Timestamp) -> Result<Option<Sight>> {
        let asked = tokio::time::timeout(ASK_WITHIN, self.ask(at)).await;
        let answer = asked.unwrap_or_else(|_| {
            Err(Error::new(Code::Connect, "PostgreSQL does not say how far WAL is flushed")
                .at(&self.cluster.name))
        });
        if answer.is_err() {
            self.connected = None;
        }
        answer
    }

    async fn ask(&mut self, at: Timestamp) -> Result<Option<Sight>> {
        if self.connected.is_none() {
            self.connected = Some(self.connect().await?);
            self.proved = false;
            self.connections += 1;
        }
        let Some((session, place)) = &self.connected else { return Ok(None) };
        match session.written().await? {
            Written::InRecovery | Written::NotArchived => {
                // After a promotion everything is looked at anew.
                self.connections += 1;
                self.proved = false;
                Ok(None)
            }
            Written::Primary { timeline, flush } => {
                if !self.proved {
                    is_here(place).await?;
                    self.proved = true;
                }
                let archived_to = self.services.hub.board.cluster(&self.cluster.name, |facts| {
                    facts.archive.archived_to.filter(|_| facts.archive.timeline == Some(timeline))
                });
                let look = Look { at, timeline, flush, archived_to, session: self.connections };
                Ok(Some(Sight { look, place: place.clone() }))
            }
        }
    }

    async fn connect(&self) -> Result<(Session, Place)> {
        let config = &self.services.hub.config;
        let session = crate::postgres::connect(&self.cluster.connection).await?;
        let facts = session.facts().await?;
        let data_directory =
            self.cluster.data_directory.clone().unwrap_or_else(|| facts.data_directory.clone());
        let place = Place {
            cluster: self.cluster.name.clone(),
            system: facts.system_identifier,
            size: facts.wal_segment_size,
            pg_wal: data_directory.join("pg_wal"),
            protection: configured::protection(config)?,
            level: config.archive.compression,
        };
        Ok((session, place))
    }
}

/// The primary that answers is the one whose files are here.
async fn is_here(place: &Place) -> Result<()> {
    let data_directory = place.pg_wal.parent().unwrap_or(&place.pg_wal).to_owned();
    let elsewhere = |what: String| {
        Error::new(Code::WalMismatch, what)
            .at(data_directory.display())
            .hint("`connection` must lead to the server of this host whose data directory this is")
    };
    let read = data_directory.clone();
    let read = tokio::task::spawn_blocking(move || ControlFile::read(&read)).await;
    let control = read.map_err(|e| Error::internal("a reader died").because(e))??;
    if control.system != place.system {
        return Err(elsewhere(format!("the server that answers is another cluster ({})", place.system)));
    }
    if control.state != ClusterState::InProduction {
        return Err(elsewhere(format!("a primary answers, and this data directory is {}", control.state)));
    }
    Ok(())
}
