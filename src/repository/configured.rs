//! From the configuration to opened repositories and keys: the one place where `config` and the stores meet.

use std::sync::Arc;
use std::time::Duration;

use super::open::{Candidate, Repositories};
use crate::codec::{Identities, Protection, Recipients};
use crate::config::{ChecksumMode, Config, EncryptionConfig, RepositoryConfig};
use crate::error::Result;
use crate::model::RepoName;
use crate::storage::{self, Checksum, Storage, StoreSettings};

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
    let store = &config.store;
    let defaults = StoreSettings::default();
    let operation = store.operation_deadline.unwrap_or(defaults.operation_deadline);
    Ok(StoreSettings {
        url: store.url.clone(),
        region: store.region.clone(),
        endpoint: store.endpoint.clone(),
        path_style: store.path_style,
        ca_file: store.ca_file.clone(),
        storage_class: store.storage_class.clone(),
        checksum: match store.checksum {
            ChecksumMode::WhenRequired => Checksum::WhenRequired,
            ChecksumMode::WhenSupported => Checksum::WhenSupported,
        },
        conditional_writes: store.conditional_writes,
        profile: store.profile.clone(),
        part_size: store.part_size.unwrap_or(defaults.part_size),
        connect_timeout: store.connect_timeout.unwrap_or(defaults.connect_timeout),
        attempt_timeout: patience
            .attempt
            .map_or(defaults.attempt_timeout, |a| a.min(defaults.attempt_timeout)),
        operation_deadline: patience.operation.map_or(operation, |o| o.min(operation)),
        concurrency: store.concurrency.unwrap_or(defaults.concurrency),
        upload_bandwidth: store.upload_bandwidth,
        download_bandwidth: store.download_bandwidth,
        ..defaults
    })
}

/// Opens the store of a configured repository; nothing is read from it yet. Needs a runtime.
pub async fn open_store(config: &RepositoryConfig, patience: Patience) -> Result<Arc<dyn Storage>> {
    storage::open(&store_settings(config, patience)?).await
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
    let mut candidates = Vec::with_capacity(repositories.len());
    for repository in repositories {
        candidates.push(Candidate {
            name: repository.name.clone(),
            required: repository.required,
            storage: open_store(repository, patience).await,
        });
    }
    Repositories::open(candidates).await
}

/// What is done to data before it leaves; refused when the configuration does not say.
pub fn protection(config: &Config) -> Result<Protection> {
    match config.require_encryption()? {
        EncryptionConfig::Recipients { recipients, .. } => {
            Ok(Protection::Age(Recipients::parse(recipients)?))
        }
        EncryptionConfig::None | EncryptionConfig::Unset => Ok(Protection::Plain),
    }
}

/// The identities that open data, where the configuration names a file; a file that cannot be used is an error.
pub fn identities(config: &Config) -> Result<Option<Identities>> {
    match &config.encryption {
        EncryptionConfig::Recipients { identity_file: Some(path), .. } => Identities::load(path).map(Some),
        _ => Ok(None),
    }
}
