//! What drills, restore tests and restores have measured and proved, on the board: from the reports in the repositories and on
//! this host. Read every [`INTERVAL`], as soon as a job of the cluster has ended, and when a command says that there is news.
//!
//! A repository that fails leaves its reports out of one look, and what was known of the last proof stays.

use std::time::Duration;

use super::Hub;
use super::board::Objectives;
use super::services::Services;
use super::supervisor::Task;
use crate::config::{ClusterConfig, Config};
use crate::error::Result;
use crate::model::{ClusterName, Timestamp};
use crate::repository::access;
use crate::restore::{past, production, scratch};

/// Between two looks when no job has ended.
const INTERVAL: Duration = Duration::from_mins(30);
/// How often the board is asked whether a job has ended.
const GLANCE: Duration = Duration::from_secs(2);

/// One for each cluster, and one that cleans up once.
pub fn tasks(services: &Services) -> Vec<Task> {
    let task = |cluster: &ClusterConfig| {
        let (services, cluster) = (services.clone(), cluster.name.clone());
        Task::new(format!("proofs {cluster}"), move || watch(services.clone(), cluster.clone()))
    };
    let mut tasks: Vec<Task> = services.hub.config.clusters.iter().map(task).collect();
    let hub = services.hub.clone();
    tasks.push(Task::new("scratch", move || sweep(hub.clone())));
    tasks
}

/// What an agent (or anybody) that was killed has left: servers that nobody needs, and plain data.
async fn sweep(hub: Hub) -> Result<()> {
    let directory = production::scratch_directory(&hub.config, None);
    tokio::select! {
        removed = scratch::remove_leftovers(&directory) => {
            for left in removed? {
                tracing::warn!(directory = %left.display(), "removed what a killed drill, test or restore had left");
            }
        }
        () = hub.shutdown.cancelled() => {}
    }
    Ok(())
}

async fn watch(services: Services, cluster: ClusterName) -> Result<()> {
    let hub = &services.hub;
    let objectives = Objectives::of(&hub.config);
    hub.board.cluster(&cluster, |facts| facts.objectives = objectives);
    let trust = access::trust(&hub.config)?;
    let mut news = services.news.subscribe();
    loop {
        news.mark_unchanged();
        let ends = ends(hub, &cluster);
        let looked = async {
            let opened = services.stores.get().await;
            past::read(&hub.config, opened.available(), &cluster, &trust, hub.clock.now()).await
        };
        let (past, notes) = tokio::select! {
            looked = looked => looked,
            () = hub.shutdown.cancelled() => return Ok(()),
        };
        for note in notes {
            tracing::debug!(%cluster, "{note}");
        }
        hub.board.cluster(&cluster, |facts| {
            facts.backups.proved_at = facts.backups.proved_at.max(past.proved_at);
            facts.measured = past.measured;
        });
        let has_ended = async {
            while self::ends(hub, &cluster) == ends {
                tokio::time::sleep(GLANCE).await;
            }
        };
        tokio::select! {
            () = hub.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
            _ = news.changed() => {}
            () = has_ended => {}
        }
    }
}

/// The last end of each job of the cluster.
fn ends(hub: &Hub, cluster: &ClusterName) -> Vec<Option<Timestamp>> {
    hub.board.read(|all| {
        let mine = all.jobs.values().filter(|job| job.cluster == *cluster);
        mine.map(|job| job.last.as_ref().map(|run| run.finished_at)).collect()
    })
}

impl Objectives {
    pub fn of(config: &Config) -> Self {
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs());
        Self { rpo_seconds: seconds(config.proof.rpo), rto_seconds: seconds(config.proof.rto) }
    }
}
