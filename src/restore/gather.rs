//! What the repositories hold for a restore: the catalog, then the WAL of one system identifier with its histories.
//!
//! A required repository that does not answer completely ends it here: what it does not say might be the newest backup
//! or the timeline that counts. With `--repo` that one is the only required one.

use std::collections::BTreeMap;

use crate::codec::{Identities, Opened, open_sealed};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, BackupKind, ClusterName, RepoName, ShortDigest, SystemId, TimelineId};
use crate::postgres::history::History;
use crate::repository::body_reader::BodyReader;
use crate::repository::catalog::Catalog;
use crate::repository::configured::{self, Patience};
use crate::repository::keys::backup;
use crate::repository::keys::wal::WalRoot;
use crate::repository::record::BackupRecord;
use crate::repository::replaced;
use crate::repository::signature::{PublicHostKey, Verdict};
use crate::repository::wal_listing::{WalListing, WalObject};
use crate::repository::wal_object::{WalObjects, settle_heads};
use crate::repository::{Repository, access};

use super::choose::Candidate;

/// A backup, and where it is.
#[derive(Debug, Clone)]
pub struct Held {
    pub record: BackupRecord,
    pub trust: Verdict,
    pub repositories: Vec<RepoName>,
}

/// The repositories that answered, and their backups of the kinds that were asked for.
pub struct Archive {
    pub cluster: ClusterName,
    pub repositories: Vec<Repository>,
    pub backups: BTreeMap<BackupId, Held>,
    /// What a person should know: optional repositories that are down, records that cannot be read.
    pub notes: Vec<String>,
}

/// The WAL of one system identifier.
pub struct Wal {
    pub root: WalRoot,
    pub listing: WalListing,
    pub histories: BTreeMap<TimelineId, History>,
    pub history_digests: BTreeMap<TimelineId, ShortDigest>,
    pub objects: WalObjects,
}

impl Archive {
    /// With the base backups, of which there is at least one.
    pub async fn load(
        config: &Config,
        cluster: &ClusterName,
        only: Option<&RepoName>,
        trusted: &[PublicHostKey],
    ) -> Result<Self> {
        let archive = Self::load_kinds(config, cluster, only, trusted, BackupKind::is_base).await?;
        if archive.backups.is_empty() {
            return Err(archive.without("base backup"));
        }
        Ok(archive)
    }

    /// With the backups of some kinds, if there are any.
    pub async fn load_kinds(
        config: &Config,
        cluster: &ClusterName,
        only: Option<&RepoName>,
        trusted: &[PublicHostKey],
        wanted: impl Fn(BackupKind) -> bool,
    ) -> Result<Self> {
        let trust = access::trust_with(config, trusted)?;
        let opened = configured::open_all(config, only, Patience::default()).await?;
        let (repositories, down) = opened.required().map_err(|e| needs_all(e, only))?;
        let mut archive = Self {
            cluster: cluster.clone(),
            repositories: Vec::new(),
            backups: BTreeMap::new(),
            notes: Vec::new(),
        };
        for (name, error) in down {
            archive.notes.push(format!("optional repository {name} is left out: {error}"));
        }
        for repository in repositories {
            match Catalog::load(&repository, cluster, &trust).await {
                Ok(catalog) => archive.take(repository, catalog, &wanted),
                Err(error) if repository.required => return Err(needs_all(error, only)),
                Err(error) => {
                    archive
                        .notes
                        .push(format!("optional repository {} is left out: {error}", repository.name));
                }
            }
        }
        Ok(archive)
    }

    /// There is none of what was looked for.
    pub fn without(&self, what: &str) -> Error {
        let names: Vec<_> = self.repositories.iter().map(|r| r.storage.location().to_owned()).collect();
        Error::new(Code::NoBackup, format!("there is no {what} of cluster {}", self.cluster))
            .at(names.join(", "))
            .hint("`pgkeep list` shows what there is; check --cluster and the repositories")
    }

    fn take(&mut self, repository: Repository, catalog: Catalog, wanted: &impl Fn(BackupKind) -> bool) {
        for entry in catalog.backups.into_iter().filter(|e| wanted(e.record.kind)) {
            let id = entry.record.id.clone();
            let held = self.backups.entry(id).or_insert_with(|| Held {
                record: entry.record,
                trust: entry.trust.clone(),
                repositories: Vec::new(),
            });
            if entry.trust == Verdict::Trusted {
                // The copy that is read must be the one that is believed.
                if held.trust != Verdict::Trusted {
                    held.repositories.clear();
                }
                held.trust = Verdict::Trusted;
                held.repositories.push(repository.name.clone());
            } else if held.trust != Verdict::Trusted {
                held.repositories.push(repository.name.clone());
            }
        }
        for (key, error) in catalog.unreadable {
            self.notes
                .push(format!("a backup's record in {} cannot be read: {key}: {error}", repository.name));
        }
        self.repositories.push(repository);
    }

    pub fn candidates(&self) -> Vec<Candidate> {
        self.backups.values().filter_map(candidate).collect()
    }

    /// Of the newest backup, by the database's clock.
    pub fn newest_system(&self) -> Option<SystemId> {
        let newest = self.backups.values().max_by_key(|h| h.record.base.as_ref().map(|b| b.stop_time));
        newest.map(|h| h.record.system_identifier)
    }

    pub fn repository(&self, name: &RepoName) -> Result<&Repository> {
        self.repositories
            .iter()
            .find(|r| r.name == *name)
            .ok_or_else(|| Error::internal(format!("repository {name} was not opened")))
    }

    /// The index of a backup, from the first repository that gives it whole. `identities` open metadata; `decode` is the
    /// reader of that kind's index, with a place for messages.
    pub async fn index<T: Send + 'static>(
        &self,
        held: &Held,
        identities: Option<&Identities>,
        decode: fn(Opened<BodyReader>, &str) -> Result<T>,
    ) -> Result<T> {
        let record = &held.record;
        let entry = record.objects.iter().find(|entry| backup::is_index(&entry.key));
        let entry =
            entry.ok_or_else(|| Error::new(Code::Damaged, "the backup names no index").at(&record.id))?;
        let key = backup::object(&self.cluster, &record.id, &entry.key);
        let mut failed = None;
        for name in &held.repositories {
            let repository = self.repository(name)?.clone();
            let key = replaced::place(&repository, &key, entry.sha256).await;
            let identities = identities.cloned();
            let runtime = tokio::runtime::Handle::current();
            let read = tokio::task::spawn_blocking(move || {
                let body = BodyReader::open_on(&runtime, &repository, &key, None);
                decode(open_sealed(body, &key, identities.as_ref())?, &repository.place(&key))
            });
            match read.await.map_err(|e| Error::internal("a reader died").because(e))? {
                Ok(index) => return Ok(index),
                Err(e) => failed = Some(e),
            }
        }
        Err(failed
            .unwrap_or_else(|| Error::internal("a backup without a repository"))
            .while_doing(format!("cannot read the index of backup {}", record.id)))
    }

    /// The WAL of `system`, from all repositories that answered.
    pub async fn wal(&self, system: SystemId, identities: Option<Identities>) -> Result<Wal> {
        let root = WalRoot::new(&self.cluster, system);
        let mut listing = WalListing::default();
        let mut answered = Vec::new();
        for repository in &self.repositories {
            match WalListing::load(&repository.name, &*repository.storage, &root).await {
                Ok(found) => {
                    listing.merge(found);
                    answered.push(repository.clone());
                }
                Err(error) if repository.required => {
                    let error = error.while_doing(format!("cannot list the WAL in {}", repository.name));
                    return Err(needs_all(error, None));
                }
                Err(error) => tracing::warn!(repository = %repository.name, %error, "left out"),
            }
        }
        let objects = WalObjects::new(&answered, identities);
        for note in settle_heads(&objects, &mut listing).await? {
            tracing::warn!("{note}");
        }
        let mut wal =
            Wal { root, listing, histories: BTreeMap::new(), history_digests: BTreeMap::new(), objects };
        wal.read_histories().await?;
        Ok(wal)
    }
}

impl Wal {
    async fn read_histories(&mut self) -> Result<()> {
        for (timeline, contents) in self.listing.histories() {
            let mut found: Option<(ShortDigest, History)> = None;
            for content in contents {
                let history = self.read_history(timeline, content).await?;
                match &found {
                    None => found = Some((content.digest, history)),
                    Some((_, other)) if same_way(other, &history) => {}
                    Some(_) => return Err(two_histories(timeline)),
                }
            }
            if let Some((digest, history)) = found {
                self.history_digests.insert(timeline, digest);
                self.histories.insert(timeline, history);
            }
        }
        Ok(())
    }

    async fn read_history(&self, timeline: TimelineId, content: &WalObject) -> Result<History> {
        let (bytes, _) = self
            .objects
            .bytes(&content.copies, content.digest)
            .await
            .map_err(|e| e.while_doing(format!("cannot read the history of timeline {timeline}")))?;
        History::parse(timeline, &bytes)
    }
}

/// The reasons in a history file are for people and may differ.
fn same_way(a: &History, b: &History) -> bool {
    a.path() == b.path()
}

fn two_histories(timeline: TimelineId) -> Error {
    Error::new(Code::WalConflict, "the archive holds two histories of one timeline")
        .at(format!("{}.history", timeline.hex()))
        .hint(
            "two servers were promoted with the same timeline id and archive into one place; restore along another \
             timeline with --timeline, or from one repository with --repo",
        )
}

/// What a repository does not say might be the newest backup: never taken for "there is none".
fn needs_all(error: Error, only: Option<&RepoName>) -> Error {
    if only.is_some() {
        return error;
    }
    let first = error.hint_text().map_or_else(|| "bring it back".to_owned(), str::to_owned);
    error.while_doing("a restore needs every required repository to answer").hint(format!(
        "{first}; or restore from another one alone with `--repo NAME`: its plan says how far that one reaches"
    ))
}

fn candidate(held: &Held) -> Option<Candidate> {
    let base = held.record.base.as_ref()?;
    Some(Candidate {
        id: held.record.id.clone(),
        system: held.record.system_identifier,
        timeline: base.timeline,
        start: base.start_lsn,
        stop: base.stop_lsn,
        stop_time: base.stop_time,
        page_errors: base.page_errors.iter().map(|e| e.blocks.len() as u64).sum(),
        untrusted: match &held.trust {
            Verdict::Trusted => None,
            Verdict::Untrusted(reason) => Some(reason.clone()),
        },
    })
}
