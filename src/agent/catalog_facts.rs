//! What backups there are, on the board: read from every required repository every [`INTERVAL`], as soon as a job has
//! ended, and when somebody says that there is news (`pgkeep backup` does, when it has published).
//!
//! A look costs two requests to each required repository ([`Watch`]). One that fails leaves what was known, with the
//! moment when it was seen, and is tried again after [`RETRY`]: a store that is away never makes a backup disappear.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::watch;

use super::Hub;
use super::board::{BackupFacts, Failure, LastBackup};
use super::services::Services;
use super::supervisor::Task;
use crate::config::{ClusterConfig, Config};
use crate::error::Result;
use crate::model::{BackupId, ClusterName, RepoName, SystemId, Timestamp};
use crate::repository::access;
use crate::repository::catalog::watch::{Brief, Watch};
use crate::repository::signature::Trust;

/// Between two looks when nothing is heard.
const INTERVAL: Duration = Duration::from_mins(5);
/// After one that failed.
const RETRY: Duration = Duration::from_secs(30);
/// How often the board is asked whether a job has ended.
const GLANCE: Duration = Duration::from_secs(2);
/// Earlier full backups that are told.
const EARLIER: usize = 8;

/// How the readers hear that there may be a new backup. Cheap to clone.
#[derive(Debug, Clone)]
pub struct News(watch::Sender<u64>);

impl Default for News {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl News {
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
    pub fn tell(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// One for each cluster.
pub fn tasks(services: &Services) -> Vec<Task> {
    let task = |cluster: &ClusterConfig| {
        let (services, cluster) = (services.clone(), cluster.name.clone());
        Task::new(format!("catalog {cluster}"), move || {
            let (services, cluster) = (services.clone(), cluster.clone());
            async move { Reader::new(services, cluster)?.run().await }
        })
    };
    services.hub.config.clusters.iter().map(task).collect()
}

/// Whose backups count: what not every one of these has is not safe yet.
pub fn asked(config: &Config) -> Vec<RepoName> {
    let all = || config.repositories.iter();
    let required: Vec<RepoName> = all().filter(|r| r.required).map(|r| r.name.clone()).collect();
    if required.is_empty() { all().map(|r| r.name.clone()).collect() } else { required }
}

struct Reader {
    services: Services,
    cluster: ClusterName,
    trust: Trust,
    watches: BTreeMap<RepoName, Watch>,
    /// Of the last look that succeeded: what each repository has.
    seen: Option<(Timestamp, Vec<Vec<Brief>>)>,
}

/// What makes the facts worth another thought.
#[derive(PartialEq)]
struct Signs {
    system: Option<SystemId>,
    /// The last end of each job of the cluster.
    ends: Vec<Option<Timestamp>>,
}

impl Reader {
    fn new(services: Services, cluster: ClusterName) -> Result<Self> {
        let config = &services.hub.config;
        let trust = access::trust(config)?;
        let watches = asked(config).into_iter().map(|name| (name, Watch::default())).collect();
        Ok(Self { services, cluster, trust, watches, seen: None })
    }

    fn hub(&self) -> &Hub {
        &self.services.hub
    }

    async fn run(mut self) -> Result<()> {
        let shutdown = self.hub().shutdown.clone();
        let mut news = self.services.news.subscribe();
        loop {
            news.mark_unchanged();
            let signs = self.signs();
            let looked = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                looked = self.look() => looked,
            };
            let pause = if looked.is_ok() { INTERVAL } else { RETRY };
            self.tell(looked);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
                _ = news.changed() => {}
                () = self.job_has_ended(signs) => {}
            }
        }
    }

    async fn look(&mut self) -> Result<Vec<Vec<Brief>>> {
        let mut all = Vec::with_capacity(self.watches.len());
        for (name, watch) in &mut self.watches {
            let repository = self.services.stores.one(name).await?;
            all.push(watch.look(&repository, &self.cluster, &self.trust).await?);
        }
        Ok(all)
    }

    fn tell(&mut self, looked: Result<Vec<Vec<Brief>>>) {
        let now = self.hub().clock.now();
        match looked {
            Ok(all) => {
                self.seen = Some((now, all));
                self.write();
            }
            Err(error) => {
                let new = self.hub().board.cluster(&self.cluster, |facts| {
                    let failure = Failure { at: now, text: error.to_string() };
                    facts.backups.failure.replace(failure).is_none()
                });
                if new {
                    tracing::warn!(cluster = %self.cluster, %error, "cannot read what backups there are");
                }
            }
        }
    }

    /// With what the server says of itself: after `pg_upgrade` the backups of before are no way back to it.
    fn write(&self) {
        let Some((at, all)) = &self.seen else { return };
        self.hub().board.cluster(&self.cluster, |cluster| {
            let proved_at = cluster.backups.proved_at;
            cluster.backups = BackupFacts { seen_at: Some(*at), proved_at, ..facts(all, cluster.system) };
        });
    }

    fn signs(&self) -> Signs {
        self.hub().board.read(|all| Signs {
            system: all.clusters.get(&self.cluster).and_then(|facts| facts.system),
            ends: {
                let mine = all.jobs.values().filter(|job| job.cluster == self.cluster);
                mine.map(|job| job.last.as_ref().map(|run| run.finished_at)).collect()
            },
        })
    }

    async fn job_has_ended(&self, mut before: Signs) {
        loop {
            tokio::time::sleep(GLANCE).await;
            let now = self.signs();
            if now.ends != before.ends {
                return;
            }
            if now != before {
                self.write();
                before = now;
            }
        }
    }
}

/// From what each required repository has, oldest first.
pub fn facts(all: &[Vec<Brief>], system: Option<SystemId>) -> BackupFacts {
    let Some((first, others)) = all.split_first() else { return BackupFacts::default() };
    let others: Vec<BTreeSet<&BackupId>> =
        others.iter().map(|one| one.iter().map(|brief| &brief.id).collect()).collect();
    let everywhere = first
        .iter()
        .filter(|brief| system.is_none_or(|system| brief.system == system))
        .filter(|brief| others.iter().all(|other| other.contains(&brief.id)));
    let mut found = BackupFacts::default();
    let mut fulls = Vec::new();
    for brief in everywhere {
        found.last.insert(brief.kind.to_string(), last(brief));
        if brief.kind.is_base() && !brief.damaged {
            fulls.push(brief);
        }
    }
    let mut newest_first = fulls.into_iter().rev().map(last);
    found.last_full = newest_first.next();
    found.earlier_fulls = newest_first.take(EARLIER).collect();
    found
}

fn last(brief: &Brief) -> LastBackup {
    LastBackup {
        id: brief.id.to_string(),
        finished_at: brief.finished_at,
        bytes_raw: brief.bytes_raw,
        bytes_stored: brief.bytes_stored,
        took_seconds: brief.finished_at.since(brief.started_at).as_secs(),
        damaged: brief.damaged,
        stop_lsn: brief.stop_lsn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BackupKind, Lsn};

    fn brief(id: &str, raw: u64) -> Brief {
        let id = BackupId::parse(id).unwrap();
        let at: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        Brief {
            kind: id.kind(),
            id,
            system: SystemId(7),
            started_at: at,
            finished_at: at.plus(Duration::from_secs(90)),
            moment: at,
            stop_lsn: Some(Lsn(raw)),
            bytes_raw: raw,
            bytes_stored: 1,
            damaged: false,
        }
    }

    #[test]
    fn the_last_backup_is_the_newest_that_every_required_repository_has_whole() {
        let (a, b, c) = (
            brief("20261121T020000Z-full-0001", 1),
            brief("20261122T020000Z-full-0002", 2),
            brief("20261123T020000Z-full-0003", 3),
        );
        let dump = brief("20261122T030000Z-dump-0004", 9);
        assert_eq!(dump.kind, BackupKind::Dump);
        let here = vec![a.clone(), b.clone(), dump.clone(), c.clone()];
        let there = vec![a.clone(), b.clone()];
        let found = facts(&[here.clone(), there], Some(SystemId(7)));
        assert_eq!(found.last_full.as_ref().unwrap().id, b.id.to_string());
        assert_eq!(found.last_full.as_ref().unwrap().took_seconds, 90);
        assert_eq!(found.earlier_fulls.iter().map(|l| l.bytes_raw).collect::<Vec<_>>(), [1]);
        assert!(!found.last.contains_key("dump"), "only one of the two has it");
        let bad = Brief { damaged: true, ..c };
        let found = facts(&[vec![a, b.clone(), dump, bad.clone()]], None);
        assert_eq!(found.last_full.unwrap().id, b.id.to_string());
        assert_eq!(found.last["full"].id, bad.id.to_string());
        assert!(found.last["full"].damaged && found.last.contains_key("dump"));
        assert_eq!(facts(&[here], Some(SystemId(8))), BackupFacts::default());
        assert_eq!(facts(&[], None), BackupFacts::default());
    }
}
