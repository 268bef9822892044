//! One repository of a push: opened, asked about the file, written to, asked again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::file::{Content, LocalFile};
use super::lanes::Order;
use super::presence::{Presence, presence};
use crate::codec::Identities;
use crate::config::RepositoryConfig;
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, RepoName, SegmentSize, ShortDigest, SystemId, WalFileName};
use crate::repository::configured::{self, Patience};
use crate::repository::keys::wal::{WalObjectName, WalRoot};
use crate::repository::open::system;
use crate::repository::signature::HostKey;
use crate::repository::wal_listing::WalListing;
use crate::repository::wal_object::{self, DamageMark, Placed, Plain, Sealer, WalObjects, blocking};
use crate::repository::{Repositories, Repository};

/// What all repositories of a push share.
#[derive(Debug)]
pub(in crate::archive) struct Goal {
    pub cluster: ClusterName,
    pub root: WalRoot,
    pub system: SystemId,
    pub name: WalFileName,
    pub size: SegmentSize,
    pub state_directory: PathBuf,
    /// For one operation of a store; the push's deadline ends it earlier.
    pub patience: Duration,
}

/// A repository that was opened and asked about the file.
#[derive(Debug)]
pub(in crate::archive) struct Looked {
    pub repository: Repository,
    /// Of the file's name, and perhaps of others.
    pub listing: Arc<WalListing>,
}

/// The file, sealed, with all that is written beside it.
pub(in crate::archive) struct Cargo {
    pub name: WalObjectName,
    /// None when the file is streamed.
    pub sealed: Option<Bytes>,
    pub sealer: Sealer,
    pub mark: Option<DamageMark>,
}

/// Opens a repository, makes sure that it expects this cluster, and lists the file's name.
pub(in crate::archive) async fn look(config: &RepositoryConfig, goal: &Goal) -> Result<Looked> {
    let patience = Patience { operation: Some(goal.patience), attempt: None };
    let opened = configured::open_these(std::slice::from_ref(config), patience).await;
    let repository = only_one(opened, config)?;
    let (storage, root) = (&*repository.storage, &goal.root);
    let (expected, listing) = tokio::try_join!(
        expects(&repository, &goal.cluster, goal.system, goal.size),
        WalListing::load_file(&repository.name, storage, root, goal.name)
    )?;
    let () = expected;
    Ok(Looked { repository, listing: Arc::new(listing) })
}

/// Makes sure that the repository expects this cluster with segments of this size.
pub(in crate::archive) async fn expects(
    repository: &Repository,
    cluster: &ClusterName,
    id: SystemId,
    size: SegmentSize,
) -> Result<()> {
    let document = system(repository, cluster, id).await?;
    if document.wal_segment_bytes == size {
        return Ok(());
    }
    let (theirs, ours) = (document.wal_segment_bytes.bytes(), size.bytes());
    Err(Error::new(
        Code::WalMismatch,
        format!("the repository expects segments of {theirs} bytes, and this cluster's have {ours}"),
    )
    .at(&repository.name)
    .hint(
        "pg_resetwal --wal-segsize makes a new history of a cluster: give it another name and `pgkeep init`",
    ))
}

fn only_one(opened: Repositories, config: &RepositoryConfig) -> Result<Repository> {
    if let Some(repository) = opened.by_name(&config.name) {
        return Ok(repository.clone());
    }
    let name = &config.name;
    opened.required().map_or_else(Err, |(_, failed)| {
        let why = failed.into_iter().next().map(|(_, e)| e);
        Err(why
            .unwrap_or_else(|| Error::internal(format!("repository {name} was neither opened nor refused"))))
    })
}

/// An optional repository: looked at, told what to write, and its warnings. The looked-at repository comes back when it
/// is to join a stream.
pub(super) async fn go_along(
    config: RepositoryConfig,
    goal: &Goal,
    mut orders: watch::Receiver<Order>,
) -> Result<(Option<Looked>, Vec<String>)> {
    let looked = look(&config, goal).await?;
    let order = orders.wait_for(|order| !matches!(order, Order::Wait)).await.map(|order| order.clone());
    match order {
        Ok(Order::Write(cargo)) => {
            match presence(&looked.listing, goal.name, cargo.digest(), cargo.is_damaged()) {
                Presence::Absent => Ok((None, write(&looked, goal, &cargo).await?)),
                Presence::Present { others } => Ok((None, others_warning(&looked, &others))),
                Presence::Conflict { .. } => Err(taken(&looked.repository.place(&goal.name.to_string()))),
            }
        }
        Ok(Order::Join) => Ok((Some(looked), Vec::new())),
        // Nothing is to be written, or the push has ended.
        Ok(Order::Wait) | Err(_) => Ok((None, Vec::new())),
    }
}

impl Cargo {
    /// Seals what is in memory and is not sealed yet; the rest is sealed while it is streamed.
    pub(in crate::archive) async fn of(local: &LocalFile, sealer: Sealer) -> Result<Self> {
        let mark = local.damage.as_ref().map(|(lsn, reason)| DamageMark {
            lsn: *lsn,
            reason: reason.clone(),
            host: sealer.header.host.clone(),
            found_at: sealer.header.archived_at,
        });
        let sealed = match &local.content {
            Content::Memory(bytes) => Some(sealer.seal(bytes.clone()).await?),
            Content::Sealed(bytes) => Some(bytes.clone()),
            Content::Disk(_) => None,
        };
        Ok(Self { name: WalObjectName::of_file(local.name, local.digest.short()), sealed, sealer, mark })
    }
    pub(in crate::archive) fn digest(&self) -> ShortDigest {
        self.name.digest()
    }
    pub(in crate::archive) fn is_damaged(&self) -> bool {
        self.mark.is_some()
    }
}

/// Mark, file, second look. Warnings come back.
pub(in crate::archive) async fn write(looked: &Looked, goal: &Goal, cargo: &Cargo) -> Result<Vec<String>> {
    let (placed, mut warnings) = place(looked, goal, cargo).await?;
    warnings.extend(confirm(looked, goal, cargo, placed).await?);
    Ok(warnings)
}

/// Mark and file; nobody may be told yes before [`confirm`].
pub(in crate::archive) async fn place(
    looked: &Looked,
    goal: &Goal,
    cargo: &Cargo,
) -> Result<(Placed, Vec<String>)> {
    let warnings = mark(looked, goal, cargo).await?;
    let Some(sealed) = cargo.sealed.clone() else {
        return Err(Error::internal("a streamed file is written as a whole"));
    };
    let targets = [&looked.repository];
    let plain = Plain::Sealed(sealed);
    let placed =
        wal_object::store(&targets, &goal.root, cargo.name, plain, &cargo.sealer, goal.patience).await?;
    let Some((_, placed)) = placed.into_iter().next() else {
        return Err(Error::internal("a write without a result"));
    };
    Ok((placed?, warnings))
}

/// Writes the mark of a damaged segment, unless it is there from an earlier try.
pub(in crate::archive) async fn mark(looked: &Looked, goal: &Goal, cargo: &Cargo) -> Result<Vec<String>> {
    let (Some(mark), WalObjectName::Segment { segment, digest }) = (&cargo.mark, cargo.name) else {
        return Ok(Vec::new());
    };
    if looked.listing.damage_marks(segment).any(|known| known == digest) {
        return Ok(Vec::new());
    }
    let (key, warnings) = match HostKey::load(&goal.state_directory.join("keys/host.key")) {
        Ok(key) => (Some(key), Vec::new()),
        Err(e) => (None, vec![format!("the damage mark is not signed: {e}")]),
    };
    let targets = [&looked.repository];
    let root = &goal.root;
    let placed = wal_object::store_mark(&targets, root, segment, digest, mark, key.as_ref(), goal.patience);
    for (_, placed) in placed.await? {
        placed?;
    }
    Ok(warnings)
}

/// The second look: the store shows the object with the length that was sent, and whether somebody else has written
/// other content meanwhile.
pub(in crate::archive) async fn confirm(
    looked: &Looked,
    goal: &Goal,
    cargo: &Cargo,
    placed: Placed,
) -> Result<Vec<String>> {
    let repository = &looked.repository;
    let listing =
        WalListing::load_file(&repository.name, &*repository.storage, &goal.root, goal.name).await?;
    confirm_in(&listing, looked, goal, cargo, placed).await
}

/// The same from a listing that was begun after the write.
pub(in crate::archive) async fn confirm_in(
    listing: &WalListing,
    looked: &Looked,
    goal: &Goal,
    cargo: &Cargo,
    placed: Placed,
) -> Result<Vec<String>> {
    let repository = &looked.repository;
    let key = goal.root.key(cargo.name, cargo.sealer.sealing());
    let listed = listing
        .object(goal.name, cargo.digest())
        .and_then(|object| object.copies.iter().find(|copy| copy.key == key))
        .map(|copy| copy.bytes);
    let there = match listed {
        Some(bytes) => Some(bytes),
        // A listing may lag behind a write on some stores.
        None => repository.storage.head(&key).await?.map(|info| info.bytes),
    };
    let place = || repository.place(&key);
    match (there, placed) {
        (None, _) => {
            Err(Error::new(Code::StoreLied, "the store took the file and does not show it").at(place()))
        }
        (Some(bytes), Placed::Written(stored)) if bytes != stored.bytes => Err(Error::new(
            Code::StoreLied,
            format!("the store shows {bytes} bytes of {} that were sent", stored.bytes),
        )
        .at(place())),
        _ => match presence(listing, goal.name, cargo.digest(), cargo.is_damaged()) {
            Presence::Present { others } | Presence::Conflict { others } => {
                Ok(others_warning(looked, &others))
            }
            Presence::Absent => Ok(Vec::new()),
        },
    }
}

/// For a name that holds our content and others besides.
pub(in crate::archive) fn others_warning(looked: &Looked, others: &[ShortDigest]) -> Vec<String> {
    if others.is_empty() {
        return Vec::new();
    }
    let digests: Vec<String> = others.iter().map(ToString::to_string).collect();
    vec![format!(
        "repository {} holds other content under the same name ({}): two servers archive into one place",
        looked.repository.name,
        digests.join(", ")
    )]
}

pub(in crate::archive) fn taken(place: &str) -> Error {
    Error::new(Code::WalConflict, "the archive holds other content under this file's name").at(place)
}

/// The refusal, with the name of the host that wrote the other content where its header can be opened.
pub(in crate::archive) async fn conflict(
    looked: &Looked,
    goal: &Goal,
    others: &[ShortDigest],
    identities: Option<Identities>,
    our_host: &str,
) -> Error {
    let objects = WalObjects::new(std::slice::from_ref(&looked.repository), identities);
    let mut writers = Vec::new();
    for digest in others {
        let Some(object) = looked.listing.object(goal.name, *digest) else { continue };
        let (objects, copies) = (objects.clone(), object.copies.clone());
        let key = copies.first().map(|c| c.key.clone()).unwrap_or_default();
        let host = match blocking(move || objects.header(&copies)).await {
            Ok(Some(header)) => format!("host {} at {}", header.host, header.archived_at),
            _ => "an unknown host (its header cannot be opened here)".to_owned(),
        };
        writers.push(format!("{key}, written by {host}"));
    }
    let name = goal.name;
    taken(&looked.repository.place(&writers.join("; "))).hint(format!(
        "two servers archive into one place. This is host {our_host}; nothing was written. Find out which of the two is \
         the cluster: set archive_mode = off on the other, or give it a cluster name of its own. If this server is the \
         right one, its {name} stays in pg_wal until then"
    ))
}

/// What is said of an optional repository that did not come along.
pub(in crate::archive) fn behind(name: &RepoName, why: &str) -> String {
    format!("optional repository {name} was left behind: {why}")
}
