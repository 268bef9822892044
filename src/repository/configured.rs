//! From the configuration to opened repositories and keys: the one place where `config` and the stores meet.

use std::sync::Arc;
use std::time::Duration;

use super::access;
pub use super::access::{identities, protection};
use super::open::{Candidate, Repositories};
use crate::config::{Config, RepositoryConfig};
use crate::error::Result;
use crate::model::RepoName;
use crate::storage::{self, Observer, Storage, StoreSettings};

/// How patient the stores are, where a command has a deadline of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    /// An operation with all its retries takes no longer; None leaves it to the configuration.
    pub operation: Option<Duration>,
    /// One request, and the silence between two pieces of a body.
    pub attempt: Option<Duration>,
}

/// The settings of a configured repository's store. Reads its secrets.
pub fn store_settings(config: &RepositoryConfig, patience: Patience) -> Result<StoreSettings> {
    let settings = access::store_settings(config)?;
    let attempt = settings.attempt_timeout;
    let operation = settings.operation_deadline;
    Ok(StoreSettings {
        attempt_timeout: patience.attempt.map_or(attempt, |limit| limit.min(attempt)),
        operation_deadline: patience.operation.map_or(operation, |limit| limit.min(operation)),
        ..settings
    })
}

/// Opens the store of a configured repository; nothing is read from it yet. Needs a runtime.
pub async fn open_store(config: &RepositoryConfig, patience: Patience) -> Result<Arc<dyn Storage>> {
    open_store_observed(config, patience, None).await
}

/// The same, with somebody who is told of every request.
pub async fn open_store_observed(
    config: &RepositoryConfig,
    patience: Patience,
    observer: Option<Arc<dyn Observer>>,
) -> Result<Arc<dyn Storage>> {
    storage::open_observed(&store_settings(config, patience)?, observer).await
}

/// The configured repositories that a command works with. `only` (`--repo`) is then the one required repository.
pub fn selected(config: &Config, only: Option<&RepoName>) -> Result<Vec<RepositoryConfig>> {
    match only {
        None => Ok(config.repositories.clone()),
        Some(name) => Ok(vec![RepositoryConfig { required: true, ..config.repository(name)?.clone() }]),
    }
}

/// Opens the selected repositories at once, each with its result.
pub async fn open_all(config: &Config, only: Option<&RepoName>, patience: Patience) -> Result<Repositories> {
    Ok(open_these(&selected(config, only)?, patience).await)
}

/// Opens these.
pub async fn open_these(repositories: &[RepositoryConfig], patience: Patience) -> Repositories {
    open_observed(repositories, patience, |_| None).await
}

/// Opens these, each with somebody who is told of every request to its store.
pub async fn open_observed(
    repositories: &[RepositoryConfig],
    patience: Patience,
    observer: impl Fn(&RepoName) -> Option<Arc<dyn Observer>>,
) -> Repositories {
    let mut candidates = Vec::with_capacity(repositories.len());
    for repository in repositories {
        let storage = open_store_observed(repository, patience, observer(&repository.name)).await;
        let (name, required) = (repository.name.clone(), repository.required);
        candidates.push(Candidate { name, required, storage });
    }
    Repositories::open(candidates).await
}
