//! The signature, then the record: from then on a backup exists.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::archiving;
use super::targets::Targets;
use crate::error::{Error, Result};
use crate::model::{RepoName, SegmentName, TimelineId, Timestamp};
use crate::repository::Repository;
use crate::repository::fanout::{PATIENCE, put_everywhere};
use crate::repository::keys::backup;
use crate::repository::keys::wal::WalRoot;
use crate::repository::record::BackupRecord;
use crate::repository::signature::HostKey;
use crate::util::failpoint;

/// An optional repository gets so long for the backup's WAL after the required ones have it.
const OPTIONAL_WAL: Duration = Duration::from_secs(5);

/// What became of the backup in one repository.
#[derive(Debug)]
pub struct RepositoryResult {
    pub name: RepoName,
    /// The error says why it was not published there.
    pub published: Result<()>,
}

impl RepositoryResult {
    /// For `--json`.
    pub fn json(&self) -> serde_json::Value {
        match &self.published {
            Ok(()) => serde_json::json!({ "name": self.name, "published": true }),
            Err(e) => serde_json::json!({
                "name": self.name, "published": false, "code": e.code().as_str(), "why": e.to_string(),
            }),
        }
    }

    /// Of every repository that the run began with.
    pub(super) fn of(targets: &Targets) -> Vec<Self> {
        let published = targets.current().into_iter().map(|r| Self { name: r.name, published: Ok(()) });
        let dropped = targets.take_dropped().into_iter();
        published.chain(dropped.map(|(name, why)| Self { name, published: Err(why) })).collect()
    }
}

/// A backup that was published in every required repository.
#[derive(Debug)]
pub struct FullReport {
    pub record: BackupRecord,
    pub repositories: Vec<RepositoryResult>,
    pub warnings: Vec<String>,
    pub took: Duration,
    /// Files that PostgreSQL dropped while they were about to be copied.
    pub vanished: u64,
    pub files: usize,
}

/// For `--json`.
#[derive(Serialize)]
struct ReportJson<'r> {
    #[serde(flatten)]
    record: &'r BackupRecord,
    repositories: Vec<serde_json::Value>,
    warnings: &'r [String],
    seconds: f64,
    files: usize,
    files_dropped_meanwhile: u64,
}

impl FullReport {
    /// One document: the record and what the run adds.
    pub fn json(&self) -> Result<serde_json::Value> {
        let repositories = self.repositories.iter().map(RepositoryResult::json);
        let report = ReportJson {
            record: &self.record,
            repositories: repositories.collect(),
            warnings: &self.warnings,
            seconds: self.took.as_secs_f64(),
            files: self.files,
            files_dropped_meanwhile: self.vanished,
        };
        serde_json::to_value(report).map_err(|e| Error::internal("a report that is no JSON").because(e))
    }
}

/// Drops the optional repositories that lack WAL of the backup: it is not published where it cannot be restored.
pub(super) async fn drop_those_without_wal(
    targets: &Targets,
    root: &WalRoot,
    segments: &[SegmentName],
    histories: &[TimelineId],
) {
    let optional = targets.optional();
    let checks = optional.iter().map(|repository| async move {
        (repository, archiving::holds(repository, segments, histories, root, OPTIONAL_WAL).await)
    });
    for (repository, held) in futures::future::join_all(checks).await {
        if let Err(why) = held {
            targets.drop_out(&repository.name, why);
        }
    }
}

/// Publishes in all repositories that still take part.
pub(super) async fn publish(
    targets: &Targets,
    record: &BackupRecord,
    host_key: &HostKey,
    now: Timestamp,
) -> Result<()> {
    let bytes = Bytes::from(record.to_bytes()?);
    let signature = Bytes::from(host_key.sign(&bytes, backup::RECORD, now)?);
    failpoint::reach("backup-before-signature")?;
    put(targets, &backup::signature(&record.cluster, &record.id), &signature).await?;
    failpoint::reach("backup-before-publish")?;
    put(targets, &backup::record(&record.cluster, &record.id), &bytes).await?;
    failpoint::reach("backup-after-publish")
}

async fn put(targets: &Targets, key: &str, bytes: &Bytes) -> Result<()> {
    let current = targets.current();
    let all: Vec<&Repository> = current.iter().collect();
    let mut outcomes = put_everywhere(&all, key, bytes, PATIENCE).await;
    let required = |name: &RepoName| current.iter().any(|r| r.required && &r.name == name);
    if let Some(at) = outcomes.iter().position(|(name, result)| result.is_err() && required(name)) {
        let (name, result) = outcomes.swap_remove(at);
        return result.map(|_| ()).map_err(|e| e.while_doing(format!("cannot publish the backup in {name}")));
    }
    targets.take(outcomes);
    Ok(())
}
