//! Reports of verifications, drills, restore tests and restores: written for good, signed where this host has a key, read
//! again for what they measured and proved.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::fanout::{Outcome, PATIENCE, put_everywhere};
use super::keys::{self, marks};
use super::signature::{HostKey, Trust, Verdict};
use super::{Repository, documents, signed};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, Timestamp};

/// How far back the newest of a kind is looked for, one after the other: as a rule it is near the end of the listing.
pub const LOOK_BACK: [Option<Duration>; 3] =
    [Some(Duration::from_hours(3 * 24)), Some(Duration::from_hours(60 * 24)), None];
/// Reports read at once.
const PARALLEL: usize = 8;

/// A report as a repository has it.
#[derive(Debug, Clone)]
pub struct StoredReport {
    pub at: Timestamp,
    pub kind: String,
    pub bytes: Bytes,
    pub trust: Verdict,
}

/// Writes it into each repository, its signature first. What became of it in each.
pub async fn put(
    repositories: &[&Repository],
    cluster: &ClusterName,
    at: Timestamp,
    kind: &str,
    bytes: &Bytes,
    key: Option<&HostKey>,
) -> Result<Vec<Outcome>> {
    let name = marks::report(cluster, at, kind);
    let mut refused = Vec::new();
    let mut targets = repositories.to_vec();
    if let Some(key) = key {
        let signature = Bytes::from(key.sign(bytes, &name, at)?);
        let signed = put_everywhere(&targets, &keys::signature_of(&name), &signature, PATIENCE).await;
        // Without its signature it would be taken for somebody else's.
        for (repository, stored) in signed {
            if let Err(e) = stored {
                targets.retain(|target| target.name != repository);
                refused.push((repository, Err(e)));
            }
        }
    }
    let mut outcomes = put_everywhere(&targets, &name, bytes, PATIENCE).await;
    outcomes.extend(refused);
    Ok(outcomes)
}

/// A report's key, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportName {
    pub key: String,
    pub at: Timestamp,
    pub kind: String,
}

/// The reports of these kinds since a moment, newest first, from one listing.
pub async fn names(
    repository: &Repository,
    cluster: &ClusterName,
    kinds: &[&str],
    since: Option<Timestamp>,
) -> Result<Vec<ReportName>> {
    let before = since.map(|since| marks::reports_before(cluster, since));
    let listed = repository.storage.list(&marks::all_reports(cluster), before.as_deref()).await;
    let listed =
        listed.map_err(|e| e.while_doing(format!("cannot list the reports in {}", repository.name)))?;
    let name = |key: String| {
        let (at, kind) = marks::parse_report(cluster, &key)?;
        kinds.contains(&kind.as_str()).then_some(ReportName { key, at, kind })
    };
    let mut names: Vec<ReportName> = listed.into_iter().filter_map(|object| name(object.key)).collect();
    names.sort_by(|a, b| b.key.cmp(&a.key));
    Ok(names)
}

/// The newest reports of these kinds since a moment, newest first, `limit` of them at most.
pub async fn recent(
    repository: &Repository,
    cluster: &ClusterName,
    kinds: &[&str],
    since: Timestamp,
    limit: usize,
    trust: &Trust,
) -> Result<Vec<StoredReport>> {
    let wanted = names(repository, cluster, kinds, Some(since)).await?.into_iter().take(limit);
    let reads = wanted.map(|ReportName { key, at, kind }| async move {
        let (bytes, trust) = signed::read(repository, &key, trust).await?;
        Ok(StoredReport { at, kind, bytes, trust })
    });
    futures::stream::iter(reads).buffered(PARALLEL).try_collect().await
}

impl StoredReport {
    /// Its content, if a trusted host has signed it; unknown fields are passed over.
    pub fn trusted<T: for<'de> serde::Deserialize<'de>>(&self) -> Result<T> {
        match &self.trust {
            Verdict::Trusted => documents::parse(&self.bytes, &self.kind),
            Verdict::Untrusted(why) => Err(Error::new(Code::Untrusted, why.clone())),
        }
    }
}
