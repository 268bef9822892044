//! The lanes: each takes the newest look when it is done with the one before.

use tokio::sync::watch;

use super::Sight;
use crate::agent::Hub;
use crate::agent::board::Failure;
use crate::agent::services::Services;
use crate::agent::stores::Stores;
use crate::archive::tail::Lane;
use crate::archive::tail::lane::Counts;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, RepoName};
use crate::repository::Repository;

/// The repositories of one lane.
#[derive(Debug, Clone)]
pub(super) enum Targets {
    /// All required ones: what the board says is true of each of them.
    Required(Vec<RepoName>),
    Optional(RepoName),
}

impl Targets {
    pub(super) fn all(config: &Config) -> Vec<Self> {
        let (required, optional): (Vec<_>, Vec<_>) = config.repositories.iter().partition(|r| r.required);
        let names =
            |all: Vec<&crate::config::RepositoryConfig>| all.into_iter().map(|r| r.name.clone()).collect();
        let mut lanes = vec![Self::Required(names(required))];
        lanes.extend(optional.into_iter().map(|r| Self::Optional(r.name.clone())));
        lanes
    }
    fn names(&self) -> &[RepoName] {
        match self {
            Self::Required(names) => names,
            Self::Optional(name) => std::slice::from_ref(name),
        }
    }
    async fn open(&self, stores: &Stores) -> Result<Vec<Repository>> {
        let mut opened = Vec::with_capacity(self.names().len());
        for name in self.names() {
            opened.push(stores.one(name).await?);
        }
        Ok(opened)
    }
}

/// Works until the sender of looks is gone.
pub(super) async fn run(
    services: Services,
    cluster: ClusterName,
    targets: Targets,
    mut sights: watch::Receiver<Option<Sight>>,
) {
    let mut worker = Worker { services, cluster, targets, lane: None, failing: false };
    while sights.changed().await.is_ok() {
        let Some(sight) = sights.borrow_and_update().clone() else { continue };
        worker.work(&sight).await;
    }
}

struct Worker {
    services: Services,
    cluster: ClusterName,
    targets: Targets,
    lane: Option<(Sight, Lane)>,
    failing: bool,
}

impl Worker {
    async fn work(&mut self, sight: &Sight) {
        let before = self.lane.as_ref().map_or(Counts::default(), |(_, lane)| lane.counts);
        let done = self.ship(sight).await;
        let after = self.lane.as_ref().map_or(before, |(_, lane)| lane.counts);
        let shipped_to = self.lane.as_ref().and_then(|(_, lane)| lane.shipped_to());
        match &done {
            Ok(backlog) if *backlog > 0 => {
                tracing::debug!(cluster = %self.cluster, backlog, "the tail waits for the archiver");
            }
            Ok(_) if self.failing => {
                tracing::info!(cluster = %self.cluster, to = ?self.targets, "the tail goes on");
            }
            Err(error) if !self.failing => {
                tracing::warn!(cluster = %self.cluster, %error, to = ?self.targets, "the end of WAL was not shipped");
            }
            Ok(_) | Err(_) => {}
        }
        self.failing = done.is_err();
        if let Err(error) = &done {
            self.reopen(error).await;
        }
        if matches!(self.targets, Targets::Optional(_)) {
            return;
        }
        let hub = &self.services.hub;
        hub.board.cluster(&self.cluster, |facts| {
            let tail = &mut facts.tail;
            tail.heads_total += after.heads - before.heads;
            tail.plain_bytes_total += after.plain_bytes - before.plain_bytes;
            tail.stored_bytes_total += after.stored_bytes - before.stored_bytes;
            tail.shipped_to = shipped_to;
            if done.is_ok() {
                tail.failure = None;
            }
            if done.is_ok() && shipped_to.is_some_and(|to| to >= sight.look.flush) {
                tail.current_at = Some(sight.look.at);
            }
        });
        if let Err(error) = &done {
            note_failure(hub, &self.cluster, error);
        }
    }

    /// Bytes of a backlog come back.
    async fn ship(&mut self, sight: &Sight) -> Result<u64> {
        let same = |known: &Sight| {
            (&known.place.pg_wal, known.place.system, known.place.size)
                == (&sight.place.pg_wal, sight.place.system, sight.place.size)
        };
        if self.lane.as_ref().is_none_or(|(known, _)| !same(known)) {
            let repositories = self.targets.open(&self.services.stores).await?;
            self.lane = Some((sight.clone(), Lane::new(sight.place.clone(), repositories)));
        }
        match &mut self.lane {
            Some((_, lane)) => Ok(lane.follow(&sight.look).await?.backlog),
            None => Err(Error::internal("a lane without repositories")),
        }
    }

    /// Some failures end only when the store is opened anew: other credentials, a disk that is mounted again.
    async fn reopen(&mut self, error: &Error) {
        if matches!(error.code(), Code::StoreDenied | Code::NotARepository | Code::Key) {
            self.lane = None;
            for name in self.targets.names() {
                self.services.stores.close(name).await;
            }
        }
    }
}

/// What the board says of a tail that fails.
pub(super) fn note_failure(hub: &Hub, cluster: &ClusterName, error: &Error) {
    let failure = Failure::of(error, hub.clock.now());
    hub.board.cluster(cluster, |facts| {
        facts.tail.failures_total += 1;
        facts.tail.failure = Some(failure);
    });
}
