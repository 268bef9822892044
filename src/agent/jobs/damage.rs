//! Where WAL was archived damaged, or is lost, no older backup can be recovered past that place: a full backup is taken
//! that begins behind it (DESIGN, "The WAL path").
//!
//! Once for each place, and never in a loop: places are written down, a place is done with as soon as a trusted backup
//! behind it is in every required repository, whoever took it; between two backups that damage causes lies at least
//! [`APART`], however much WAL goes bad meanwhile; and after as many tries as the job has, it is left to the schedule.
//! The cluster's lock holds as for every base backup. A reload or a death leaves the place open, and it is seen again.

use std::time::Duration;

use super::{Order, find};
use crate::agent::board::{ArchiveFacts, RunOutcome};
use crate::agent::services::Services;
use crate::agent::state::damage::{self, Open, Place};
use crate::agent::state::runs::Cause;
use crate::agent::supervisor::Task;
use crate::config::{Config, JobConfig, JobWork, Schedule};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, JobName, SegmentName, SegmentSize, Timestamp};
use crate::repository::access;
use crate::repository::catalog::Catalog;
use crate::repository::record::BackupRecord;

/// Between two looks at the board.
const EVERY: Duration = Duration::from_secs(5);
/// Between two backups for damage.
const APART: Duration = Duration::from_hours(1);
/// While another backup of the cluster runs, here or elsewhere, or the stores are away.
const AGAIN: Duration = Duration::from_secs(30);

/// One for each cluster, unless `after_damage` is off.
pub fn tasks(services: &Services) -> Vec<Task> {
    let config = &services.hub.config;
    if !config.backup.after_damage {
        return Vec::new();
    }
    let task = |cluster: &ClusterName| {
        let (services, cluster) = (services.clone(), cluster.clone());
        Task::new(format!("damage {cluster}"), move || watch(services.clone(), cluster.clone()))
    };
    config.clusters.iter().map(|cluster| task(&cluster.name)).collect()
}

async fn watch(services: Services, cluster: ClusterName) -> Result<()> {
    let hub = &services.hub;
    let job = job(&hub.config, &cluster)?;
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = hub.shutdown.cancelled() => return Ok(()),
        }
        let archive = hub.board.snapshot().clusters.remove(&cluster).map(|facts| facts.archive);
        for place in archive.iter().flat_map(places) {
            if damage::note(&hub.state, &cluster, &place, hub.clock.now())? {
                tracing::warn!(%cluster, "{}: a full backup is needed that begins behind it", place.what);
            }
        }
        let now = hub.clock.now();
        let open = damage::open(&hub.state, &cluster)?;
        if open.iter().any(|open| open.next_at <= now || open.next_at > now.plus(2 * APART)) {
            tokio::select! {
                done = mend(&services, &cluster, &job, open) => done?,
                () = hub.shutdown.cancelled() => return Ok(()),
            }
        }
    }
}

/// What the archiver has found.
fn places(archive: &ArchiveFacts) -> Vec<Place> {
    let damaged = archive.damaged.iter().map(|segment| Place {
        last: *segment,
        what: format!("the WAL segment {segment} was archived damaged"),
    });
    let lost = archive.holes.iter().map(|hole| Place {
        last: hole.last,
        what: if hole.first == hole.last {
            format!("the WAL segment {} is missing in the archive", hole.first)
        } else {
            format!("the WAL segments {} to {} are missing in the archive", hole.first, hole.last)
        },
    });
    damaged.chain(lost).collect()
}

/// The full backup that the cluster has anyway, with its patience; else one with the defaults of every key.
fn job(config: &Config, cluster: &ClusterName) -> Result<JobConfig> {
    let full = config.jobs.iter().find(|job| job.cluster == *cluster && job.work == JobWork::Full);
    if let Some(job) = full {
        return Ok(job.clone());
    }
    let free = |name: &JobName| find(config, name).is_err();
    let name = ["after-damage", "after-damage-full"].into_iter().filter_map(JobName::parse).find(free);
    let never = Schedule::parse("@yearly", chrono_tz::Tz::UTC).ok();
    match (name, never) {
        (Some(name), Some(schedule)) => Ok(JobConfig::new(name, JobWork::Full, cluster.clone(), schedule)),
        _ => Err(Error::internal("the job for damaged WAL has no name left")),
    }
}

/// Ends what is covered, and takes a backup for the rest.
async fn mend(services: &Services, cluster: &ClusterName, job: &JobConfig, open: Vec<Open>) -> Result<()> {
    let (hub, now) = (&services.hub, services.hub.clock.now());
    let covered = match backups(services, cluster).await {
        Ok(backups) => backups,
        Err(error) => {
            tracing::debug!(%cluster, %error, "cannot see whether a backup begins behind the damage");
            return later(services, cluster, &open, now.plus(AGAIN));
        }
    };
    let mut rest = Vec::new();
    for open in open {
        match covered.iter().find(|record| begins_behind(record, open.place.last)) {
            Some(record) => {
                tracing::info!(%cluster, backup = %record.id, "{}: the backup begins behind it", open.place.what);
                damage::end(&hub.state, cluster, open.place.last, &record.id.to_string(), now)?;
            }
            None if open.tries > job.retries => {
                tracing::error!(%cluster, "{}: {} backups failed, the next one is left to the schedule", open.place.what, open.tries);
                damage::end(&hub.state, cluster, open.place.last, "given up", now)?;
            }
            None => rest.push(open),
        }
    }
    if rest.is_empty() {
        return Ok(());
    }
    let last = damage::last_done(&hub.state, &job.name)?;
    if let Some(begun) = last.filter(|begun| now.since(*begun) < APART) {
        return later(services, cluster, &rest, begun.plus(APART));
    }
    back_up(services, cluster, job, &rest).await
}

async fn back_up(services: &Services, cluster: &ClusterName, job: &JobConfig, rest: &[Open]) -> Result<()> {
    let hub = &services.hub;
    let order = Order { job: job.clone(), cause: Cause::Damage, slot: None, attempt: 1 };
    match services.jobs.start(hub, &services.stores, order) {
        Ok(_) => {}
        Err(error) if error.code() == Code::Busy => {
            return later(services, cluster, rest, hub.clock.now().plus(AGAIN));
        }
        Err(error) => return Err(error),
    }
    let Some((_, mut ended)) = services.jobs.ended(&job.name) else { return Ok(()) };
    let run = ended.wait_for(Option::is_some).await.ok().and_then(|run| run.clone());
    let now = hub.clock.now();
    match run.map(|run| run.outcome) {
        // The next look finds it in the catalog; if it does not, that was a try like a failed one.
        Some(RunOutcome::Done | RunOutcome::Finding) => {
            tried(services, cluster, job, rest, now, Duration::ZERO)
        }
        Some(RunOutcome::Elsewhere | RunOutcome::Skipped) => later(services, cluster, rest, now.plus(AGAIN)),
        Some(RunOutcome::Failed) | None => tried(services, cluster, job, rest, now, job.retry_after),
    }
}

/// The same number of tries, later.
fn later(services: &Services, cluster: &ClusterName, rest: &[Open], to: Timestamp) -> Result<()> {
    rest.iter()
        .try_for_each(|open| damage::postpone(&services.hub.state, cluster, open.place.last, open.tries, to))
}

/// One try more.
fn tried(
    services: &Services,
    cluster: &ClusterName,
    job: &JobConfig,
    rest: &[Open],
    now: Timestamp,
    pause: Duration,
) -> Result<()> {
    rest.iter().try_for_each(|open| {
        let pause = pause.saturating_mul(1 << open.tries.min(10)).min(APART.max(job.retry_after));
        let tries = open.tries + 1;
        damage::postpone(&services.hub.state, cluster, open.place.last, tries, now.plus(pause))
    })
}

/// The trusted, undamaged base backups that every required repository has.
async fn backups(services: &Services, cluster: &ClusterName) -> Result<Vec<BackupRecord>> {
    let trust = access::trust(&services.hub.config)?;
    let (available, _) = services.stores.get().await.required()?;
    let mut common: Option<Vec<BackupRecord>> = None;
    for repository in available.iter().filter(|repository| repository.required) {
        let catalog = Catalog::load(repository, cluster, &trust).await?;
        let good = catalog
            .backups
            .into_iter()
            .filter(|entry| entry.record.kind.is_base() && entry.is_trusted() && !entry.record.is_damaged());
        let here: Vec<BackupRecord> = good.map(|entry| entry.record).collect();
        common = Some(match common {
            None => here,
            Some(before) => before.into_iter().filter(|r| here.iter().any(|h| h.id == r.id)).collect(),
        });
    }
    Ok(common.unwrap_or_default())
}

/// Whether a recovery from this backup does not need that segment.
fn begins_behind(record: &BackupRecord, last: SegmentName) -> bool {
    let Some(base) = &record.base else { return false };
    let size: SegmentSize = base.wal_segment_bytes;
    base.wal_first.timeline >= last.timeline && base.wal_first.number(size) > last.number(size)
}
