//! A catalog that is looked at again and again, for who must know of new backups and may not cost much.
//!
//! What a published backup says never changes, so its record is read once and a few words of it are kept. A look costs one
//! delimiter listing and a `head` of the newest base backup, whatever the number of backups and of their objects; a
//! backup that is new, or not published yet, costs a `head`, and the new one two reads.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;

use super::{Repository, read_record};
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, BackupKind, ClusterName, Lsn, SystemId, Timestamp};
use crate::repository::keys::backup;
use crate::repository::record::BackupRecord;
use crate::repository::signature::{Trust, Verdict};

/// Records fetched at once.
const PARALLEL: usize = 4;

/// What is kept of a record that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brief {
    pub id: BackupId,
    pub kind: BackupKind,
    pub system: SystemId,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// What it holds, by the database's clock.
    pub moment: Timestamp,
    pub stop_lsn: Option<Lsn>,
    pub bytes_raw: u64,
    pub bytes_stored: u64,
    pub damaged: bool,
}

impl Brief {
    pub fn of(record: &BackupRecord) -> Self {
        let base = record.base.as_ref();
        let logical = record.logical.as_ref();
        let moment = base.map(|b| b.stop_time).or(logical.map(|l| l.snapshot_at));
        Self {
            id: record.id.clone(),
            kind: record.kind,
            system: record.system_identifier,
            started_at: record.started_at,
            finished_at: record.finished_at,
            moment: moment.unwrap_or(record.started_at),
            stop_lsn: base.map(|b| b.stop_lsn),
            bytes_raw: record.bytes_raw,
            bytes_stored: record.bytes_stored,
            damaged: record.is_damaged(),
        }
    }
}

/// One cluster in one repository.
#[derive(Debug, Default)]
pub struct Watch {
    /// None: it is published and not to be believed.
    known: BTreeMap<BackupId, Option<Brief>>,
}

/// What one candidate turned out to be.
enum Found {
    Published(Option<Brief>),
    /// Running, or the leftovers of a killed one, or unreadable: looked at again.
    NotYet,
}

impl Watch {
    /// The trusted backups, oldest first. An error leaves what was known, and never means "none".
    pub async fn look(
        &mut self,
        repository: &Repository,
        cluster: &ClusterName,
        trust: &Trust,
    ) -> Result<Vec<Brief>> {
        let names = repository.storage.list_dirs(&backup::all(cluster)).await;
        let names =
            names.map_err(|e| e.while_doing(format!("cannot list the backups in {}", repository.name)))?;
        let there: BTreeSet<BackupId> = names.iter().filter_map(|name| BackupId::parse(name)).collect();
        self.known.retain(|id, _| there.contains(id));
        let new: Vec<BackupId> = there.into_iter().filter(|id| !self.known.contains_key(id)).collect();
        let reads = new.into_iter().map(|id| async move {
            let found = find(repository, cluster, &id, trust).await;
            (id, found)
        });
        let mut reads = futures::stream::iter(reads).buffer_unordered(PARALLEL);
        while let Some((id, found)) = reads.next().await {
            if let Found::Published(brief) = found? {
                self.known.insert(id, brief);
            }
        }
        drop(reads);
        self.confirm_newest(repository, cluster).await?;
        let mut backups: Vec<Brief> = self.known.values().flatten().cloned().collect();
        backups.sort_by_key(|brief| (brief.moment, brief.stop_lsn));
        Ok(backups)
    }

    /// A backup ends with its record. The one that everything else leans on is not believed to be there, it is seen.
    async fn confirm_newest(&mut self, repository: &Repository, cluster: &ClusterName) -> Result<()> {
        loop {
            let bases = self.known.values().flatten().filter(|b| b.kind.is_base() && !b.damaged);
            let Some(newest) = bases.max_by_key(|b| (b.moment, b.stop_lsn)).map(|b| b.id.clone()) else {
                return Ok(());
            };
            if repository.storage.head(&backup::record(cluster, &newest)).await?.is_some() {
                return Ok(());
            }
            self.known.remove(&newest);
        }
    }
}

async fn find(repository: &Repository, cluster: &ClusterName, id: &BackupId, trust: &Trust) -> Result<Found> {
    if repository.storage.head(&backup::record(cluster, id)).await?.is_none() {
        return Ok(Found::NotYet);
    }
    match read_record(repository, cluster, id, true, trust).await {
        Ok((record, Verdict::Trusted)) => Ok(Found::Published(Some(Brief::of(&record)))),
        Ok(_) => Ok(Found::Published(None)),
        Err(e) if is_content(&e) => Ok(Found::NotYet),
        Err(e) => Err(e),
    }
}

/// The store has answered, and what is there is no trusted backup: damaged, of a newer format, without a signature.
fn is_content(error: &Error) -> bool {
    matches!(error.code(), Code::Damaged | Code::FormatTooNew | Code::ObjectMissing | Code::StoreLied)
}

#[cfg(test)]
mod tests;
