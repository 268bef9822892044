//! The small documents of a repository and the records of its backups: readable, signed by a trusted host, and every
//! object that they name there with its length. Listings and small reads alone.
//!
//! What looks wrong here is looked at a second time before it counts: backups are published and expire meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::finding::Kind;
use super::leaving::Leaving;
use super::reading::Trouble;
use super::run::Cx;
use super::wal::Content;
use crate::error::{Code, Result};
use crate::model::{BackupId, ClusterName, SegmentName, SystemId, Timestamp};
use crate::repository::catalog::{Catalog, CatalogEntry};
use crate::repository::documents::{self, ClusterDocument, SystemDocument};
use crate::repository::keys::backup;
use crate::repository::signature::Verdict;
use crate::repository::{keys, open};
use crate::storage::{self, ObjectInfo};

const LARGEST_DOCUMENT: u64 = 1 << 20;

/// Something wrong, before it is known for whom it matters.
#[derive(Debug, Clone)]
pub(super) struct Wrong {
    pub(super) kind: Kind,
    pub(super) key: String,
    pub(super) about: About,
    pub(super) what: String,
}

/// What it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About {
    Repository,
    /// The whole backup, or an object by its relative key.
    Backup(BackupId, Option<String>),
    Mark,
    System(SystemId),
    Wal(SystemId, Content),
    DamageMark(SystemId, SegmentName),
}

/// What a repository says that it holds.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) systems: Vec<SystemDocument>,
    /// Every record that can be read, trusted or not.
    pub(super) entries: Vec<CatalogEntry>,
    /// Objects of backups, with their lengths.
    pub(super) listed: BTreeMap<String, u64>,
    /// Of trusted backups: objects that are not there as they were stored.
    pub(super) absent: BTreeSet<String>,
    /// Backups whose signature is listed, and since when.
    pub(super) signed: BTreeMap<BackupId, Option<Timestamp>>,
    /// Backups without a record, and the bytes that are there of them.
    pub(super) unpublished: BTreeMap<BackupId, u64>,
    pub(super) leaving: Leaving,
    /// Backups that are being removed: something of them is gone already, or all.
    pub(super) swept: BTreeSet<BackupId>,
    pub(super) wrong: Vec<Wrong>,
    pub(super) notes: Vec<String>,
}

impl Survey {
    pub(super) fn by_id(&self, id: &BackupId) -> Option<&CatalogEntry> {
        self.entries.iter().find(|entry| entry.record.id == *id)
    }
    pub(super) fn trusted(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.entries.iter().filter(|entry| entry.is_trusted())
    }
    /// The trusted backups that restores can count on: those that do not expire.
    pub(super) fn kept(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.trusted().filter(|entry| !self.leaving.has(&entry.record.id))
    }
    /// The trusted backups of which everything should be there: nobody has begun to remove them.
    pub(super) fn whole(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.trusted().filter(|entry| !self.swept.contains(&entry.record.id))
    }
    /// The backups on their way out that are not gone yet.
    pub(super) fn expiring(&self, cluster: &ClusterName) -> impl Iterator<Item = &BackupId> {
        self.leaving.ids().filter(|id| self.has_objects_of(cluster, id))
    }
    pub(super) fn has_objects_of(&self, cluster: &ClusterName, id: &BackupId) -> bool {
        let directory = backup::directory(cluster, id);
        let next = self.listed.range(directory.clone()..).next();
        next.is_some_and(|(key, _)| key.starts_with(&directory))
    }
    /// Whether what is missing of a backup is missing because it expires.
    pub(super) async fn goes(&mut self, cx: &Cx<'_>, id: &BackupId) -> Result<bool> {
        let goes = self.leaving.has_by_now(cx, id).await?;
        if goes {
            self.swept.insert(id.clone());
        }
        Ok(goes)
    }
    /// Keys of the store that belong to one backup.
    pub(super) fn keys_of(&self, directory: &str) -> BTreeSet<String> {
        let from = self.listed.range(directory.to_owned()..);
        from.map(|(key, _)| key).take_while(|key| key.starts_with(directory)).cloned().collect()
    }

    fn add(&mut self, key: &str, about: About, trouble: Trouble) -> Result<()> {
        match trouble {
            Trouble::Store(error) => Err(error),
            Trouble::Wrong(kind, what) => {
                self.wrong.push(Wrong { kind, key: key.to_owned(), about, what });
                Ok(())
            }
        }
    }
}

pub(super) async fn survey(cx: &Cx<'_>, leaving: Leaving) -> Result<Survey> {
    let mut survey = Survey { leaving, ..Survey::default() };
    cluster_document(cx, &mut survey).await?;
    let mut catalog = catalog(cx).await?;
    let objects = cx.repository.storage.list(&backup::all(cx.cluster), None).await?;
    survey.listed = objects.iter().map(|object| (object.key.clone(), object.bytes)).collect();
    let signature = |object: &ObjectInfo| {
        let (id, relative) = backup::parse(cx.cluster, &object.key)?;
        (relative == backup::SIGNATURE).then_some((id, object.modified))
    };
    survey.signed = objects.iter().filter_map(signature).collect();
    unbelieved(cx, &mut catalog, &mut survey).await?;
    survey.entries = catalog.backups;
    systems(cx, &mut survey).await?;
    let entries = std::mem::take(&mut survey.entries);
    for entry in entries.iter().filter(|entry| entry.is_trusted() && cx.scope.has(&entry.record.id)) {
        objects_of(cx, entry, &mut survey).await?;
        if !survey.leaving.has(&entry.record.id) {
            parents(cx, entry, &entries, &mut survey);
        }
    }
    survey.entries = entries;
    Ok(survey)
}

async fn cluster_document(cx: &Cx<'_>, survey: &mut Survey) -> Result<()> {
    let key = keys::cluster(cx.cluster);
    let place = cx.repository.place(&key);
    let read = storage::get_bytes(&*cx.repository.storage, &key, LARGEST_DOCUMENT).await;
    let parsed = read.and_then(|bytes| documents::parse::<ClusterDocument>(&bytes, &place));
    match parsed {
        Ok(document) if document.name == *cx.cluster => Ok(()),
        Ok(document) => survey.add(
            &key,
            About::Repository,
            Trouble::wrong(Kind::Foreign, format!("it names the cluster {}", document.name)),
        ),
        Err(error) => survey.add(&key, About::Repository, error.into()),
    }
}

/// The records. What cannot be read or believed is asked for a second time.
async fn catalog(cx: &Cx<'_>) -> Result<Catalog> {
    let first = Catalog::load(cx.repository, cx.cluster, cx.trust).await?;
    let doubtful = |catalog: &Catalog| {
        !catalog.unreadable.is_empty() || catalog.backups.iter().any(|entry| !entry.is_trusted())
    };
    if doubtful(&first) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        return Catalog::load(cx.repository, cx.cluster, cx.trust).await;
    }
    Ok(first)
}

/// Records that cannot be read or believed, and backups without one.
async fn unbelieved(cx: &Cx<'_>, catalog: &mut Catalog, survey: &mut Survey) -> Result<()> {
    for (key, error) in std::mem::take(&mut catalog.unreadable) {
        let Some((id, _)) = backup::parse(cx.cluster, &key) else { continue };
        if error.code() != Code::ObjectMissing && cx.scope.has(&id) {
            survey.add(&key, About::Backup(id, None), error.into())?;
        }
    }
    for entry in &catalog.backups {
        let id = &entry.record.id;
        let Verdict::Untrusted(why) = &entry.trust else { continue };
        // A signature that goes before its record; a wrong one is no sweep's doing.
        let unsigned = !survey.listed.contains_key(&backup::signature(cx.cluster, id));
        if cx.scope.has(id) && !(unsigned && survey.goes(cx, id).await?) {
            let key = backup::record(cx.cluster, id);
            survey.add(&key, About::Backup(id.clone(), None), Trouble::wrong(Kind::Untrusted, why))?;
        }
    }
    survey.unpublished = std::mem::take(&mut catalog.unpublished);
    Ok(())
}

/// The documents of system identifiers; where one is lost, what the signed records say stands for it.
async fn systems(cx: &Cx<'_>, survey: &mut Survey) -> Result<()> {
    let mut known: BTreeMap<SystemId, SystemDocument> = BTreeMap::new();
    let listed = cx.repository.storage.list(&keys::systems(cx.cluster), None).await?;
    for id in listed.iter().filter_map(|object| keys::parse_system(cx.cluster, &object.key)) {
        match open::system(cx.repository, cx.cluster, id).await {
            Ok(document) => _ = known.insert(id, document),
            Err(error) if error.code() == Code::UnknownSystem => {}
            Err(error) => survey.add(&keys::system(cx.cluster, id), About::System(id), error.into())?,
        }
    }
    let said: Vec<SystemDocument> = survey.kept().filter_map(|entry| by_record(&entry.record)).collect();
    for document in said {
        let id = document.system_identifier;
        let key = keys::system(cx.cluster, id);
        let there = known.get(&id).map(|known| (known.wal_segment_bytes, known.pg_major));
        if there == Some((document.wal_segment_bytes, document.pg_major)) {
            continue;
        }
        if !survey.wrong.iter().any(|wrong| wrong.key == key) {
            let trouble = match there {
                None => {
                    Trouble::wrong(Kind::Missing, "the document is not there, and backups are of this system")
                }
                Some(_) => Trouble::wrong(Kind::Inconsistent, "it contradicts the signed records of backups"),
            };
            survey.add(&key, About::System(id), trouble)?;
        }
        known.insert(id, document);
    }
    for name in cx.repository.storage.list_dirs(&keys::wal::all(cx.cluster)).await? {
        let id = name.parse::<u64>().ok().map(SystemId);
        if let Some(id) = id.filter(|id| !known.contains_key(id)) {
            let key = keys::system(cx.cluster, id);
            if !survey.wrong.iter().any(|wrong| wrong.key == key) {
                let what = "there is WAL of this system identifier, and the repository does not list it";
                survey.add(&key, About::System(id), Trouble::wrong(Kind::Missing, what))?;
            }
        }
    }
    survey.systems = known.into_values().collect();
    Ok(())
}

fn by_record(record: &crate::repository::record::BackupRecord) -> Option<SystemDocument> {
    Some(SystemDocument {
        system_identifier: record.system_identifier,
        pg_major: record.major()?,
        wal_segment_bytes: record.base.as_ref()?.wal_segment_bytes,
    })
}

/// Every object that the record names is there, as long as it was stored.
async fn objects_of(cx: &Cx<'_>, entry: &CatalogEntry, survey: &mut Survey) -> Result<()> {
    let record = &entry.record;
    for object in &record.objects {
        let key = backup::object(cx.cluster, &record.id, &object.key);
        let fits = |bytes: Option<&u64>| bytes == Some(&object.bytes);
        let healed = backup::healed(&key, object.sha256);
        if fits(survey.listed.get(&key)) || fits(survey.listed.get(&healed)) {
            continue;
        }
        let trouble = match cx.repository.storage.head(&key).await? {
            Some(info) if info.bytes == object.bytes => continue,
            Some(info) => {
                let what = format!("it has {} bytes, and {} were stored", info.bytes, object.bytes);
                Trouble::wrong(Kind::WrongLength, what)
            }
            None => {
                let record_key = backup::record(cx.cluster, &record.id);
                if survey.goes(cx, &record.id).await? {
                    return Ok(());
                }
                if cx.repository.storage.head(&record_key).await?.is_none() {
                    survey.swept.insert(record.id.clone());
                    survey.notes.push(format!("{} was removed meanwhile", record.id));
                    return Ok(());
                }
                Trouble::wrong(Kind::Missing, "the object is not there")
            }
        };
        survey.absent.insert(key.clone());
        survey.add(&key, About::Backup(record.id.clone(), Some(object.key.clone())), trouble)?;
    }
    Ok(())
}

/// What a backup needs besides its own objects.
fn parents(cx: &Cx<'_>, entry: &CatalogEntry, entries: &[CatalogEntry], survey: &mut Survey) {
    let Some(base) = &entry.record.base else { return };
    for id in base.requires.iter().chain(&base.parent).collect::<BTreeSet<_>>() {
        if !entries.iter().any(|other| other.record.id == *id && other.is_trusted()) {
            survey.wrong.push(Wrong {
                kind: Kind::Missing,
                key: backup::record(cx.cluster, id),
                about: About::Backup(entry.record.id.clone(), None),
                what: format!("{} needs this backup, and it is not there", entry.record.id),
            });
        } else if survey.leaving.has(id) {
            survey.notes.push(format!("{} needs {id}, which is marked as expiring", entry.record.id));
        }
    }
}
