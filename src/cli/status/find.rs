//! What can be found without an agent: every server and every store is asked at once, each for a few seconds. It only
//! reads. What does not answer in time is said to be down, and nothing is concluded from its silence.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{join, join_all};

use super::WITHIN;
use crate::agent::board::{ArchiveFacts, BackupFacts, Board, Failure, Objectives, ServerFacts, Snapshot};
use crate::agent::catalog_facts;
use crate::config::{ClusterConfig, Config, RepositoryConfig};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, RepoName, SegmentName, SystemId, Timestamp};
use crate::postgres::{self, ArchiverState, as_owner};
use crate::repository::catalog::watch::Watch;
use crate::repository::configured::{self, Patience};
use crate::repository::signature::Trust;
use crate::repository::{Repository, access};
use crate::restore::past::{self, Past};
use crate::util::clock;

pub async fn snapshot(config: &Config) -> Snapshot {
    if let Some(cluster) = config.clusters.first() {
        // As root: as the one whom the server lets in. What cannot be is seen at the questions.
        let _ = as_owner::become_owner(&cluster.connection, cluster.data_directory.as_deref());
    }
    let board = Board::new(clock::now());
    let (stores, servers) = join(
        join_all(config.repositories.iter().map(|one| store(&board, one))),
        join_all(config.clusters.iter().map(|one| server(&board, one))),
    )
    .await;
    let opened: BTreeMap<RepoName, Repository> =
        stores.into_iter().flatten().map(|repository| (repository.name.clone(), repository)).collect();
    for (cluster, system) in config.clusters.iter().zip(servers) {
        let read = match access::trust(config) {
            Ok(trust) => backups(config, &cluster.name, system, &opened, &trust).await,
            Err(error) => Err(error),
        };
        board.cluster(&cluster.name, |facts| match read {
            Ok(found) => facts.backups = found,
            Err(error) => facts.backups.failure = Some(failure(&error)),
        });
        let known = proofs(config, &cluster.name, &opened).await;
        board.cluster(&cluster.name, |facts| {
            facts.objectives = Objectives::of(config);
            facts.backups.proved_at = known.proved_at;
            facts.measured = known.measured;
        });
    }
    board.snapshot()
}

fn failure(error: &Error) -> Failure {
    Failure { at: clock::now(), text: error.to_string() }
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(WITHIN, work).await.unwrap_or_else(|_| {
        Err(Error::new(Code::StoreUnavailable, format!("no answer within {} s", WITHIN.as_secs())))
    })
}

async fn store(board: &Board, config: &RepositoryConfig) -> Option<Repository> {
    // Sooner than `within`, so that its own words are heard.
    let patience = Some(WITHIN.saturating_sub(Duration::from_secs(1)));
    let patience = Patience { operation: patience, attempt: patience };
    let opened = within(Box::pin(async {
        let storage = configured::open_store(config, patience).await?;
        Repository::open(config.name.clone(), config.required, storage).await
    }))
    .await;
    board.repository(&config.name, |facts| {
        facts.required = config.required;
        match &opened {
            Ok(_) => facts.answered_at = Some(clock::now()),
            Err(error) => facts.failure = Some(failure(error)),
        }
    });
    opened.ok()
}

/// The newest backups that each required repository has; nothing is said unless all of them answer.
async fn backups(
    config: &Config,
    cluster: &ClusterName,
    system: Option<SystemId>,
    opened: &BTreeMap<RepoName, Repository>,
    trust: &Trust,
) -> Result<BackupFacts> {
    let mut all = Vec::new();
    for name in catalog_facts::asked(config) {
        let Some(repository) = opened.get(&name) else {
            return Err(Error::new(Code::StoreUnavailable, format!("the repository {name} does not answer")));
        };
        all.push(within(Watch::default().look(repository, cluster, trust)).await?);
    }
    Ok(BackupFacts { seen_at: Some(clock::now()), ..catalog_facts::facts(&all, system) })
}

/// What restores have proved and measured; nothing of a store that does not say so in time.
async fn proofs(config: &Config, cluster: &ClusterName, opened: &BTreeMap<RepoName, Repository>) -> Past {
    let Ok(trust) = access::trust(config) else { return Past::default() };
    let repositories: Vec<Repository> = opened.values().cloned().collect();
    let read = past::read(config, &repositories, cluster, &trust, clock::now());
    tokio::time::timeout(WITHIN, read).await.map(|(past, _)| past).unwrap_or_default()
}

async fn server(board: &Board, cluster: &ClusterConfig) -> Option<SystemId> {
    let at = clock::now();
    let asked = tokio::time::timeout(WITHIN, ask(cluster, at)).await.unwrap_or_else(|_| {
        Err(Error::new(Code::Connect, format!("no answer within {} s", WITHIN.as_secs())))
    });
    board.cluster(&cluster.name, |facts| match asked {
        Ok((system, server, archive)) => {
            facts.system = Some(system);
            facts.server = server;
            facts.archive = archive;
        }
        Err(error) => facts.server.error = Some(error.to_string()),
    });
    board.read(|all| all.clusters.get(&cluster.name).and_then(|facts| facts.system))
}

async fn ask(cluster: &ClusterConfig, at: Timestamp) -> Result<(SystemId, ServerFacts, ArchiveFacts)> {
    let session = postgres::connect(&cluster.connection).await?;
    let facts = session.facts().await?;
    let archiving_off = facts.archive_mode() == "off"
        || (facts.archive_command().is_empty() && facts.archive_library().is_empty());
    let server = ServerFacts {
        asked_at: Some(at),
        in_recovery: facts.in_recovery,
        archiving_off: archiving_off && !facts.in_recovery,
        major: u16::try_from(facts.major.0).ok(),
        flush_lsn: if facts.in_recovery { None } else { Some(session.flush_position().await?) },
        timeline: Some(facts.timeline),
        ..ServerFacts::default()
    };
    let said = session.archiver().await?;
    let segment = said.last_archived_wal.as_deref().and_then(SegmentName::parse);
    let archive = ArchiveFacts {
        archived_to: segment.filter(|_| !archiving_off).map(|name| name.end(facts.wal_segment_size)),
        archived_at: said.last_archived_at.filter(|_| !archiving_off),
        failure: failing(&said).map(|(at, text)| Failure { at, text }),
        ..ArchiveFacts::default()
    };
    Ok((facts.system_identifier, server, archive))
}

/// PostgreSQL's last try failed.
fn failing(said: &ArchiverState) -> Option<(Timestamp, String)> {
    let at = said.last_failed_at.filter(|failed| said.last_archived_at.is_none_or(|done| done < *failed))?;
    let file = said.last_failed_wal.as_deref().unwrap_or("a file");
    Some((at, format!("archive_command failed for {file}; PostgreSQL's log says why")))
}
