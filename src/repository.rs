//! What is kept in a store, and how it is named: FORMAT.md in code.
//!
//! Promises kept here: nothing in a repository is overwritten or edited (4); an object that names others is written
//! after them, `backup.json` last (3); a root without `pgkeep.json` is an unmounted disk or the wrong bucket and
//! reading it is an error; everything opens without pgkeep (10).
//!
//! A byte's way in: file → [`pack`] → `codec::SealWriter` → [`fanout`] → every repository's storage. Its way out:
//! storage → [`body_reader`] or [`ranged`] → `codec::open_*` → [`pack_read`].

pub mod access;
pub mod body_reader;
pub mod catalog;
pub mod configured;
pub mod continuity;
pub mod documents;
pub mod fanout;
pub mod host_keys;
pub mod index;
pub mod keys;
pub mod logical_index;
pub mod manifest;
pub mod open;
pub mod pack;
pub mod pack_read;
pub mod ranged;
pub mod record;
pub mod recovery_plan;
pub mod replaced;
pub mod reports;
pub mod signature;
pub mod signed;
mod tar_header;
#[cfg(test)]
mod tests;
pub mod usage;
pub mod wal_listing;
pub mod wal_object;
pub mod window;

use std::sync::Arc;

use crate::model::RepoName;
use crate::storage::Storage;

pub use documents::{ClusterDocument, RepositoryDocument, SystemDocument};
pub use open::{Repositories, add_cluster, add_system, create, systems};

/// An opened repository: its `pgkeep.json` has been read and its format is one that we know. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    pub name: RepoName,
    /// Exit status and acknowledgement depend on it.
    pub required: bool,
    pub storage: Arc<dyn Storage>,
    /// From `pgkeep.json`.
    pub id: String,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({}, {})", self.name, self.storage.location())
    }
}

impl Repository {
    /// A key's place for messages: `eu: s3://bucket/prefix/key`.
    pub fn place(&self, key: &str) -> String {
        format!("{}: {}/{key}", self.name, self.storage.location())
    }
}
