//! Reports of drills, restore tests and restores: written for good, signed where this host has a key, read again for
//! what they measured and proved.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::fanout::{Outcome, PATIENCE, put_everywhere};
use super::keys::{self, marks};
use super::signature::{HostKey, Trust, Verdict};
use super::{Repository, documents};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, Timestamp};
use crate::storage;

/// A report with every finding is small; whoever writes a larger one has gone wrong.
const LARGEST: u64 = 16 << 20;
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

/// The newest reports of these kinds since a moment, newest first, `limit` of them at most.
pub async fn recent(
    repository: &Repository,
    cluster: &ClusterName,
    kinds: &[&str],
    since: Timestamp,
    limit: usize,
    trust: &Trust,
) -> Result<Vec<StoredReport>> {
    let before = marks::reports_before(cluster, since);
    let listed = repository.storage.list(&marks::all_reports(cluster), Some(&before)).await;
    let listed =
        listed.map_err(|e| e.while_doing(format!("cannot list the reports in {}", repository.name)))?;
    let names: BTreeSet<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    let mut wanted = Vec::new();
    for name in names.iter().rev() {
        if let Some((at, kind)) = marks::parse_report(cluster, name)
            && kinds.contains(&kind.as_str())
            && wanted.len() < limit
        {
            let signed = names.contains(keys::signature_of(name).as_str());
            wanted.push(((*name).to_owned(), signed, at, kind));
        }
    }
    let reads = wanted.into_iter().map(|(name, signed, at, kind)| async move {
        let bytes = storage::get_bytes(&*repository.storage, &name, LARGEST).await?;
        let signature = if signed {
            let text = storage::get_bytes(&*repository.storage, &keys::signature_of(&name), LARGEST).await?;
            Some(String::from_utf8_lossy(&text).into_owned())
        } else {
            None
        };
        let trust = trust.verify(&bytes, signature.as_deref());
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
