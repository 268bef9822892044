//! Opening and creating repositories.
//!
//! A root without `pgkeep.json` is refused; only [`create`] makes one. Several are opened at once, and one that is
//! down is kept with its error: who needs it says so, who does not works without it.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::documents::{self, ClusterDocument, FORMAT, RepositoryDocument, SystemDocument};
use super::{Repository, keys};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, RepoName, SystemId, Timestamp};
use crate::storage::{self, Storage};

/// What is said of a root without `pgkeep.json`.
pub const NO_REPOSITORY: &str = "there is no pgkeep repository here";

const LARGEST_DOCUMENT: u64 = 1 << 20;

impl Repository {
    /// Reads `pgkeep.json` and refuses a root that has none, or one of a newer format.
    pub async fn open(name: RepoName, required: bool, storage: Arc<dyn Storage>) -> Result<Self> {
        let place = format!("{}/{}", storage.location(), keys::ROOT);
        let bytes = match storage::get_bytes(&*storage, keys::ROOT, LARGEST_DOCUMENT).await {
            Ok(bytes) => bytes,
            Err(e) if e.code() == Code::ObjectMissing => {
                return Err(Error::new(Code::NotARepository, NO_REPOSITORY).at(storage.location()).hint(
                    "an unmounted disk or the wrong bucket looks like this; to make a new repository: \
                         `pgkeep init`",
                ));
            }
            Err(e) => return Err(e.while_doing(format!("cannot open the repository {name}"))),
        };
        let document: RepositoryDocument = documents::parse_versioned(&bytes, &place)?;
        Ok(Self { name, required, storage, id: document.id })
    }
}

/// Makes a root a repository. When it is one already, its document comes back and nothing is written.
pub async fn create(storage: &dyn Storage, id: &str, now: Timestamp) -> Result<RepositoryDocument> {
    let place = format!("{}/{}", storage.location(), keys::ROOT);
    let document = RepositoryDocument { format: FORMAT, id: id.to_owned(), created: now };
    match storage.put(keys::ROOT, Bytes::from(documents::to_bytes(&document)?)).await {
        Ok(_) => Ok(document),
        Err(e) if e.code() == Code::ObjectExists => {
            let bytes = storage::get_bytes(storage, keys::ROOT, LARGEST_DOCUMENT).await?;
            documents::parse_versioned(&bytes, &place)
        }
        Err(e) => Err(e.while_doing("cannot make the repository")),
    }
}

/// Names a cluster in a repository, if it is not there yet.
pub async fn add_cluster(repository: &Repository, cluster: &ClusterName) -> Result<()> {
    let document = ClusterDocument { name: cluster.clone() };
    put_once(repository, &keys::cluster(cluster), &document).await
}

/// Lists a system identifier, so that its WAL and backups are accepted. An entry that says something else is an
/// error.
pub async fn add_system(
    repository: &Repository,
    cluster: &ClusterName,
    document: &SystemDocument,
) -> Result<()> {
    put_once(repository, &keys::system(cluster, document.system_identifier), document).await
}

async fn put_once<T>(repository: &Repository, key: &str, document: &T) -> Result<()>
where
    T: serde::Serialize + for<'de> serde::Deserialize<'de> + PartialEq,
{
    let bytes = Bytes::from(documents::to_bytes(document)?);
    match repository.storage.put(key, bytes).await {
        Ok(_) => Ok(()),
        Err(e) if e.code() == Code::ObjectExists => {
            let place = repository.place(key);
            let there = storage::get_bytes(&*repository.storage, key, LARGEST_DOCUMENT).await?;
            if documents::parse::<T>(&there, &place)? == *document {
                return Ok(());
            }
            Err(Error::new(Code::ObjectExists, "the repository says something else about this").at(place).hint(
                "two clusters may have been given one name; give one of them another, or another repository",
            ))
        }
        Err(e) => Err(e),
    }
}

/// The system identifiers of a cluster that a repository accepts.
pub async fn systems(repository: &Repository, cluster: &ClusterName) -> Result<Vec<SystemDocument>> {
    let objects = repository.storage.list(&keys::systems(cluster), None).await?;
    let mut found = Vec::new();
    for object in objects {
        if let Some(id) = keys::parse_system(cluster, &object.key) {
            found.push(read_system(repository, cluster, id).await?);
        }
    }
    Ok(found)
}

/// The entry of one system identifier; refused with the way out when it is not listed.
pub async fn system(repository: &Repository, cluster: &ClusterName, id: SystemId) -> Result<SystemDocument> {
    read_system(repository, cluster, id).await.map_err(|e| match e.code() {
        Code::ObjectMissing => Error::new(
            Code::UnknownSystem,
            format!("the repository does not list system identifier {id} for cluster {cluster}"),
        )
        .at(repository.place(&keys::system(cluster, id)))
        .hint(
            "after pg_upgrade or a new initdb run `pgkeep init` again; else this is another cluster's server",
        ),
        _ => e,
    })
}

async fn read_system(repository: &Repository, cluster: &ClusterName, id: SystemId) -> Result<SystemDocument> {
    let key = keys::system(cluster, id);
    let bytes = storage::get_bytes(&*repository.storage, &key, LARGEST_DOCUMENT).await?;
    let place = repository.place(&key);
    let document: SystemDocument = documents::parse(&bytes, &place)?;
    if document.system_identifier != id {
        return Err(Error::new(Code::Damaged, "the document names another system identifier").at(place));
    }
    Ok(document)
}

/// One that is not available, and why.
pub type Unavailable = (RepoName, Error);

/// One configured repository before it is opened.
pub struct Candidate {
    pub name: RepoName,
    pub required: bool,
    /// The opened store, or why there is none.
    pub storage: Result<Arc<dyn Storage>>,
}

/// The configured repositories, each opened or with the reason why not.
pub struct Repositories {
    opened: Vec<Repository>,
    failed: Vec<(RepoName, bool, Error)>,
}

impl Repositories {
    /// Opens all at once.
    pub async fn open(candidates: Vec<Candidate>) -> Self {
        let tries = candidates.into_iter().map(|c| async move {
            let opened = match c.storage {
                Ok(storage) => Repository::open(c.name.clone(), c.required, storage).await,
                Err(e) => Err(e),
            };
            (c.name, c.required, opened)
        });
        Self::from_results(join_all(tries).await)
    }

    /// From the results of opening each: name, whether it is required, what came of it.
    pub fn from_results(results: Vec<(RepoName, bool, Result<Repository>)>) -> Self {
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        for (name, required, result) in results {
            match result {
                Ok(repository) => opened.push(repository),
                Err(e) => failed.push((name, required, e)),
            }
        }
        Self { opened, failed }
    }

    /// Those that answered.
    pub fn available(&self) -> &[Repository] {
        &self.opened
    }
    /// Those that did not: name, whether it is required, why.
    pub fn unavailable(&self) -> &[(RepoName, bool, Error)] {
        &self.failed
    }
    /// Both, to keep.
    pub fn into_parts(self) -> (Vec<Repository>, Vec<(RepoName, bool, Error)>) {
        (self.opened, self.failed)
    }
    /// The required ones, all of them; the error of the first that is not available.
    pub fn required(mut self) -> Result<(Vec<Repository>, Vec<Unavailable>)> {
        if let Some(at) = self.failed.iter().position(|(_, required, _)| *required) {
            let (name, _, error) = self.failed.swap_remove(at);
            return Err(error.while_doing(format!("the required repository {name} is not available")));
        }
        Ok((self.opened, self.failed.into_iter().map(|(name, _, e)| (name, e)).collect()))
    }
    pub fn by_name(&self, name: &RepoName) -> Option<&Repository> {
        self.opened.iter().find(|r| &r.name == name)
    }
}
