//! What backups a repository holds: one listing, then every record at once.
//!
//! A record that cannot be read is reported beside the others, never dropped; one without a trusted signature is
//! listed as untrusted and chosen by nothing. A listing that fails is an error, never an empty catalog.

pub mod watch;

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;

use super::keys::{backup, marks};
use super::record::{BackupRecord, PageErrors};
use super::signature::{Trust, Verdict};
use super::{Repository, keys};
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, BackupKind, ClusterName, Timestamp};
use crate::storage::{self, ObjectInfo};

/// Records fetched at once.
const PARALLEL: usize = 16;
/// No honest record is larger.
const LARGEST_RECORD: u64 = 64 << 20;

/// A mark as far as its key tells; its content is read by who needs it.
pub type Mark = marks::MarkName;

/// One published backup.
#[derive(Debug, Clone)]
pub struct CatalogEntry {
    pub record: BackupRecord,
    pub trust: Verdict,
    /// In order of time.
    pub marks: Vec<Mark>,
}

impl CatalogEntry {
    pub fn is_trusted(&self) -> bool {
        self.trust == Verdict::Trusted
    }
    pub fn page_errors(&self) -> &[PageErrors] {
        self.record.base.as_ref().map_or(&[], |b| &b.page_errors)
    }
}

/// A cluster's backups in one repository, oldest first.
#[derive(Debug, Default)]
pub struct Catalog {
    pub backups: Vec<CatalogEntry>,
    /// Records that exist and cannot be read or believed to be one, with their keys.
    pub unreadable: Vec<(String, Error)>,
    /// Objects without a record: running backups, or the leftovers of killed ones. With their stored bytes.
    pub unpublished: BTreeMap<BackupId, u64>,
}

impl Catalog {
    pub async fn load(repository: &Repository, cluster: &ClusterName, trust: &Trust) -> Result<Self> {
        let (backups_prefix, marks_prefix) = (backup::all(cluster), marks::all(cluster));
        let (objects, mark_objects) = futures::try_join!(
            repository.storage.list(&backups_prefix, None),
            repository.storage.list(&marks_prefix, None),
        )
        .map_err(|e| e.while_doing(format!("cannot list the backups in {}", repository.name)))?;

        let Survey { published, signed, unpublished, healed } = Survey::of(cluster, &objects);
        let reads = published.into_iter().map(|id| {
            let signed = signed.contains(&id);
            let healed = healed.get(&id).cloned().unwrap_or_default();
            async move {
                let read = read_record(repository, cluster, &id, signed, trust).await;
                let read = read_healed(repository, cluster, &id, &healed, trust, read).await;
                (id, read)
            }
        });
        let mut catalog = Self { unpublished, ..Self::default() };
        let mut reads = futures::stream::iter(reads).buffered(PARALLEL);
        while let Some((id, read)) = reads.next().await {
            match read {
                Ok((record, trust)) => {
                    catalog.backups.push(CatalogEntry { record, trust, marks: Vec::new() });
                }
                // A store that does not answer is not a damaged record: the catalog would be a guess.
                Err(e) if matches!(e.code(), Code::StoreUnavailable | Code::StoreDenied) => return Err(e),
                Err(e) => catalog.unreadable.push((backup::record(cluster, &id), e)),
            }
        }
        catalog.attach(mark_objects.iter().filter_map(|o| marks::parse(cluster, &o.key)));
        Ok(catalog)
    }

    fn attach(&mut self, marks: impl Iterator<Item = Mark>) {
        for mark in marks {
            if let Some(entry) = self.backups.iter_mut().find(|e| e.record.id == mark.backup) {
                entry.marks.push(mark);
            }
        }
        for entry in &mut self.backups {
            entry.marks.sort_by_key(|mark| mark.at);
        }
    }

    pub fn by_id(&self, id: &BackupId) -> Option<&CatalogEntry> {
        self.backups.iter().find(|e| &e.record.id == id)
    }
    /// The base backups, oldest first.
    pub fn bases(&self) -> impl DoubleEndedIterator<Item = &CatalogEntry> {
        self.backups.iter().filter(|e| e.record.kind.is_base())
    }
    /// The newest base backup that is trusted, undamaged and fits.
    pub fn newest_base(&self, fits: impl Fn(&BackupRecord) -> bool) -> Option<&CatalogEntry> {
        self.bases()
            .filter(|e| e.is_trusted() && !e.record.is_damaged() && fits(&e.record))
            // By the database's clock, never by name: hosts' clocks differ.
            .max_by_key(|e| e.record.base.as_ref().map(|b| (b.stop_time, b.stop_lsn)))
    }
}

/// What a listing of the backups tells by itself.
struct Survey {
    published: BTreeSet<BackupId>,
    signed: BTreeSet<BackupId>,
    unpublished: BTreeMap<BackupId, u64>,
    /// Replacements of records and signatures, by their relative keys.
    healed: BTreeMap<BackupId, Vec<String>>,
}

impl Survey {
    fn of(cluster: &ClusterName, objects: &[ObjectInfo]) -> Self {
        let mut unpublished: BTreeMap<BackupId, u64> = BTreeMap::new();
        let mut healed: BTreeMap<BackupId, Vec<String>> = BTreeMap::new();
        let (mut published, mut signed) = (BTreeSet::new(), BTreeSet::new());
        for object in objects {
            let Some((id, relative)) = backup::parse(cluster, &object.key) else { continue };
            match relative {
                backup::RECORD => _ = published.insert(id.clone()),
                backup::SIGNATURE => _ = signed.insert(id.clone()),
                _ if backup::is_healed_record(relative) => {
                    healed.entry(id.clone()).or_default().push(relative.to_owned());
                }
                _ => {}
            }
            *unpublished.entry(id).or_default() += object.bytes;
        }
        unpublished.retain(|id, _| !published.contains(id));
        Self { published, signed, unpublished, healed }
    }
}

/// Backups without a record, from one listing: running ones, or the leftovers of killed ones. With their bytes.
pub async fn unpublished(repository: &Repository, cluster: &ClusterName) -> Result<BTreeMap<BackupId, u64>> {
    let objects = repository.storage.list(&backup::all(cluster), None).await?;
    Ok(Survey::of(cluster, &objects).unpublished)
}

/// The trusted, undamaged backups of one kind that were begun at or after `since`, oldest first. One listing, and only
/// their records are read. A store that fails is an error, never "none".
pub async fn trusted_since(
    repository: &Repository,
    cluster: &ClusterName,
    kind: BackupKind,
    since: Timestamp,
    trust: &Trust,
) -> Result<Vec<BackupRecord>> {
    let objects = repository.storage.list(&backup::all(cluster), None).await?;
    let Survey { published, signed, .. } = Survey::of(cluster, &objects);
    let first = since.compact_seconds();
    // An id begins with its second: older ones are not read.
    let recent = published.into_iter().filter(|id| id.kind() == kind && id.as_str() >= first.as_str());
    let mut found = Vec::new();
    for id in recent {
        match read_record(repository, cluster, &id, signed.contains(&id), trust).await {
            Ok((record, Verdict::Trusted)) if record.started_at >= since && !record.is_damaged() => {
                found.push(record);
            }
            Err(e) if matches!(e.code(), Code::StoreUnavailable | Code::StoreDenied) => return Err(e),
            // What cannot be read is no backup.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(found)
}

/// A record that is damaged, or whose signature is: with its replacements, if one of them makes it a trusted one.
async fn read_healed(
    repository: &Repository,
    cluster: &ClusterName,
    id: &BackupId,
    healed: &[String],
    trust: &Trust,
    read: Result<(BackupRecord, Verdict)>,
) -> Result<(BackupRecord, Verdict)> {
    let fine = match &read {
        Ok((_, verdict)) => *verdict == Verdict::Trusted,
        Err(e) => matches!(e.code(), Code::StoreUnavailable | Code::StoreDenied),
    };
    if fine || healed.is_empty() {
        return read;
    }
    let with = |own: &str| {
        let replacements = healed.iter().filter(move |key| backup::replaces(key, own)).cloned();
        replacements.chain([own.to_owned()]).collect::<Vec<_>>()
    };
    for record in with(backup::RECORD) {
        for signature in with(backup::SIGNATURE) {
            let place = |relative: &str| backup::object(cluster, id, relative);
            let (record, signature) = (place(&record), Some(place(&signature)));
            let tried = read_record_at(repository, cluster, id, &record, signature, trust).await;
            if let Ok((_, Verdict::Trusted)) = tried {
                return tried;
            }
        }
    }
    read
}

async fn read_record(
    repository: &Repository,
    cluster: &ClusterName,
    id: &BackupId,
    signed: bool,
    trust: &Trust,
) -> Result<(BackupRecord, Verdict)> {
    let key = backup::record(cluster, id);
    let signature = signed.then(|| keys::signature_of(&key));
    read_record_at(repository, cluster, id, &key, signature, trust).await
}

async fn read_record_at(
    repository: &Repository,
    cluster: &ClusterName,
    id: &BackupId,
    key: &str,
    signature: Option<String>,
    trust: &Trust,
) -> Result<(BackupRecord, Verdict)> {
    let place = repository.place(key);
    let bytes = storage::get_bytes(&*repository.storage, key, LARGEST_RECORD).await?;
    let signature = match signature {
        Some(key) => {
            let bytes = storage::get_bytes(&*repository.storage, &key, LARGEST_RECORD).await?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        None => None,
    };
    let record = BackupRecord::parse(&bytes, &place)?;
    if &record.id != id || &record.cluster != cluster {
        return Err(Error::new(Code::Damaged, format!("this is the record of {}", record.id)).at(place));
    }
    Ok((record, trust.verify(&bytes, signature.as_deref())))
}
