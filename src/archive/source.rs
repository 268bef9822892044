//! The archive as a recovery sees it: the repositories, opened when they are first needed, and what those that answer
//! hold of a file.
//!
//! A required repository that does not answer is remembered with every answer: as long as there is one, nothing is known
//! to be absent. An optional one never holds up an answer by more than the grace, and not at all when a required one has
//! the file.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::spool::Incoming;
use crate::codec::Identities;
use crate::config::{Config, EncryptionConfig, RepositoryConfig};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, RepoName, SegmentName, SystemId, WalFileName};
use crate::repository::Repository;
use crate::repository::configured::{self, Patience};
use crate::repository::keys::wal::WalRoot;
use crate::repository::wal_listing::{StoredCopy, WalListing, WalObject};
use crate::repository::wal_object::{WalObjects, blocking};

/// The repositories of one recovery, with the keys that open them.
#[derive(Debug)]
pub struct Source {
    slots: Vec<Slot>,
    identities: Option<Identities>,
    pub root: WalRoot,
    patience: Patience,
    grace: Duration,
}

#[derive(Debug)]
struct Slot {
    name: RepoName,
    required: bool,
    config: Option<RepositoryConfig>,
    opened: OnceCell<Repository>,
}

/// What the repositories that answered hold.
#[derive(Debug, Default)]
pub struct Found {
    pub listing: WalListing,
    /// Required repositories that did not answer.
    pub silent: Vec<(RepoName, Error)>,
}

/// The identity, which every fetch needs before it can say anything: a missing key must never look like a missing file.
pub fn identities(config: &Config) -> Result<Option<Identities>> {
    if matches!(config.encryption, EncryptionConfig::Recipients { .. }) {
        config.require_identity()?;
    }
    configured::identities(config)
}

impl Source {
    /// The configured repositories; nothing is opened yet.
    pub fn configured(
        config: &Config,
        only: Option<&RepoName>,
        cluster: &ClusterName,
        system: SystemId,
        identities: Option<Identities>,
        patience: Patience,
    ) -> Result<Self> {
        let slots = configured::selected(config, only)?.into_iter().map(|config| Slot {
            name: config.name.clone(),
            required: config.required,
            config: Some(config),
            opened: OnceCell::new(),
        });
        let (root, grace) = (WalRoot::new(cluster, system), config.archive.optional_grace);
        Ok(Self { slots: slots.collect(), identities, root, patience, grace })
    }

    /// Repositories that are open already.
    pub fn opened(
        repositories: &[Repository],
        cluster: &ClusterName,
        system: SystemId,
        identities: Option<Identities>,
        grace: Duration,
    ) -> Self {
        let slots = repositories.iter().map(|repository| Slot {
            name: repository.name.clone(),
            required: repository.required,
            config: None,
            opened: OnceCell::new_with(Some(repository.clone())),
        });
        let (root, patience) = (WalRoot::new(cluster, system), Patience::default());
        Self { slots: slots.collect(), identities, root, patience, grace }
    }

    /// Lists one file everywhere.
    pub async fn find(&self, file: WalFileName) -> Found {
        let prefix = self.root.file_prefix(file);
        self.list(&prefix, None, &|listing| !listing.objects(file).is_empty()).await
    }
    /// Everything that comes after `segment` on its timeline. Normally nothing.
    pub async fn find_after(&self, segment: SegmentName) -> Found {
        // `~` comes after every character of a key: nothing of the segment itself is listed.
        let after = format!("{}~", self.root.file_prefix(WalFileName::Segment(segment)));
        let prefix = self.root.timeline_prefix(segment.timeline);
        self.list(&prefix, Some(&after), &|listing| !listing.is_empty()).await
    }
    /// A segment and everything after it in its log directory.
    pub async fn find_from(&self, segment: SegmentName) -> Found {
        // Every key of the segment goes on from its prefix.
        let from = self.root.file_prefix(WalFileName::Segment(segment));
        let enough = |listing: &WalListing| !listing.objects(WalFileName::Segment(segment)).is_empty();
        self.list(&self.root.log_prefix(segment), Some(&from), &enough).await
    }
    /// Everything below a prefix.
    pub async fn find_prefix(&self, prefix: &str) -> Found {
        self.list(prefix, None, &|listing| !listing.is_empty()).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        enough: &(dyn Fn(&WalListing) -> bool + Sync),
    ) -> Found {
        let look = |slot: &'_ Slot, repository: Repository| {
            let (name, root) = (slot.name.clone(), &self.root);
            async move {
                let mut listing = WalListing::default();
                for info in repository.storage.list(prefix, after).await? {
                    listing.add(&name, root, info);
                }
                Ok(listing)
            }
        };
        let mut running = FuturesUnordered::new();
        for slot in &self.slots {
            running.push(async move {
                let answer = match self.open(slot).await {
                    Ok(repository) => look(slot, repository).await,
                    Err(e) => Err(e),
                };
                (slot, answer)
            });
        }
        let mut found = Found::default();
        let mut required = self.slots.iter().filter(|s| s.required).count();
        let mut deadline = None;
        while let Some((slot, answer)) = next(&mut running, deadline).await {
            required -= usize::from(slot.required);
            match answer {
                Ok(listing) => found.listing.merge(listing),
                Err(e) if slot.required => found.silent.push((slot.name.clone(), e)),
                Err(e) => {
                    tracing::warn!(repository = %slot.name, error = %e, "an optional repository does not answer");
                }
            }
            if required == 0 && enough(&found.listing) {
                break;
            }
            // While a required repository is missing, the optional ones may be all there is.
            if required == 0 && found.silent.is_empty() && deadline.is_none() {
                deadline = Some(Instant::now() + self.grace);
            }
        }
        found
    }

    async fn open(&self, slot: &Slot) -> Result<Repository> {
        let open = || async {
            let Some(config) = &slot.config else {
                return Err(Error::internal("a repository that is neither open nor configured"));
            };
            let storage = configured::open_store(config, self.patience).await?;
            Repository::open(config.name.clone(), config.required, storage).await
        };
        slot.opened.get_or_try_init(open).await.cloned()
    }

    /// The repositories that these copies lie in, required ones first; the first that opens is enough. Copies are read in
    /// this order, so that a slow optional region is only the last resort.
    async fn objects_for(&self, copies: &[StoredCopy]) -> Result<WalObjects> {
        let mut failed = None;
        let mut opened = Vec::new();
        let holds = |slot: &&Slot| copies.iter().any(|copy| copy.repo == slot.name);
        let mut slots: Vec<&Slot> = self.slots.iter().filter(holds).collect();
        slots.sort_by_key(|slot| !slot.required);
        for slot in slots {
            if slot.opened.initialized() || opened.is_empty() {
                match self.open(slot).await {
                    Ok(repository) => opened.push(repository),
                    Err(e) => failed = Some(e),
                }
            }
        }
        match failed {
            Some(error) if opened.is_empty() => Err(error),
            _ => Ok(WalObjects::new(&opened, self.identities.clone())),
        }
    }

    /// A small file in memory.
    pub async fn bytes(&self, object: &WalObject) -> Result<Vec<u8>> {
        let objects = self.objects_for(&object.copies).await?;
        Ok(objects.bytes(&object.copies, object.digest).await?.0)
    }

    /// Works on an object in a blocking thread.
    pub async fn with<T: Send + 'static>(
        &self,
        copies: &[StoredCopy],
        work: impl FnOnce(WalObjects) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let objects = self.objects_for(copies).await?;
        blocking(move || work(objects)).await
    }

    /// A whole file, received under `destination`. `length`: what it must have.
    pub async fn receive(
        &self,
        object: &WalObject,
        length: Option<u64>,
        destination: &Path,
        mode: u32,
    ) -> Result<Incoming> {
        let (object, destination) = (object.clone(), destination.to_path_buf());
        let copies = object.copies.clone();
        self.with(&copies, move |objects| {
            let mut incoming = Incoming::create(&destination, mode)?;
            let read = objects.read_into(&object.copies, object.digest, &mut incoming)?;
            if length.is_none_or(|expected| expected == read.bytes) {
                return Ok(incoming);
            }
            Err(Error::new(Code::Damaged, format!("the archived file has {} bytes", read.bytes))
                .at(object.copies.first().map_or("", |c| c.key.as_str()))
                .hint("it is no segment of this cluster's size"))
        })
        .await
    }
}

/// The next answer; none when all have come, or at the deadline.
async fn next<S: futures::Stream + Unpin>(running: &mut S, deadline: Option<Instant>) -> Option<S::Item> {
    match deadline {
        None => running.next().await,
        Some(deadline) => timeout_at(deadline, running.next()).await.ok().flatten(),
    }
}
