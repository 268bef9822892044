//! From the configuration to what work needs: the protection of what is written, the keys of this host, the
//! repositories.
//!
//! The host's own keys lie in `<state directory>/keys`: `host.key` and `host.pub` sign records, `metadata.key` opens
//! manifests and indexes. `init` makes them; nothing else does.

use std::path::PathBuf;

use super::open::Candidate;
use super::signature::{HostKey, PublicHostKey, Trust};
use super::{Repositories, Repository};
use crate::codec::{Identities, Protection, Recipients};
use crate::config::{ChecksumMode, Config, EncryptionConfig, RepositoryConfig};
use crate::error::{Code, Error, Result};
use crate::model::RepoName;
use crate::storage::{self, Checksum, StaticCredentials, StoreSettings};

/// Where this host's keys lie.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    pub directory: PathBuf,
}

impl KeyFiles {
    pub fn of(config: &Config) -> Self {
        Self { directory: config.state_directory.join("keys") }
    }
    /// minisign's secret key, 0600.
    pub fn host_key(&self) -> PathBuf {
        self.directory.join("host.key")
    }
    /// minisign's public key.
    pub fn host_public(&self) -> PathBuf {
        self.directory.join("host.pub")
    }
    /// An age identity, 0600.
    pub fn metadata_key(&self) -> PathBuf {
        self.directory.join("metadata.key")
    }
}

/// What data is encrypted to; refused when the configuration does not say.
pub fn protection(config: &Config) -> Result<Protection> {
    match config.require_encryption()? {
        EncryptionConfig::Recipients { recipients, .. } => {
            Ok(Protection::Age(Recipients::parse(recipients)?))
        }
        EncryptionConfig::None => Ok(Protection::Plain),
        EncryptionConfig::Unset => Err(Error::internal("an unset encryption was let through")),
    }
}

/// What manifests and indexes are encrypted to: the data's recipients and this host's metadata key. Without that key
/// the recipients alone, and the second value is true.
pub fn metadata_protection(config: &Config) -> Result<(Protection, bool)> {
    let protection = protection(config)?;
    let path = KeyFiles::of(config).metadata_key();
    if matches!(protection, Protection::Plain) {
        return Ok((protection, false));
    }
    if !path.exists() {
        return Ok((protection, true));
    }
    let recipients = Identities::load(&path)?.recipients();
    let mut with = protection;
    for recipient in recipients {
        with = with.with(&recipient)?;
    }
    Ok((with, false))
}

/// The identities that the configuration names; none where it names no file.
pub fn identities(config: &Config) -> Result<Option<Identities>> {
    match &config.encryption {
        EncryptionConfig::Recipients { identity_file: Some(path), .. } => Identities::load(path).map(Some),
        _ => Ok(None),
    }
}

/// What opens manifests and indexes: the identities, this host's metadata key where there is one, and those that were
/// `given` (loaded before root was given up).
pub fn metadata_identities(config: &Config, given: Option<&Identities>) -> Result<Option<Identities>> {
    let own = KeyFiles::of(config).metadata_key();
    let own = if own.exists() { Some(Identities::load(&own)?) } else { None };
    let configured = identities(config)?;
    Ok([own.as_ref(), given]
        .into_iter()
        .flatten()
        .fold(configured, |all, more| Some(all.map_or_else(|| more.clone(), |all| all.and(more)))))
}

/// The key that signs what this host writes.
pub fn host_key(config: &Config) -> Result<HostKey> {
    HostKey::load(&KeyFiles::of(config).host_key())
}

/// The signers that are believed: this host, and those of `[trust] hosts`.
pub fn trust(config: &Config) -> Result<Trust> {
    let mut keys = Vec::new();
    let own = KeyFiles::of(config).host_public();
    match std::fs::read_to_string(&own) {
        Ok(text) => keys.push(PublicHostKey::parse(&text).map_err(|e| e.at(own.display()))?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => {
            return Err(Error::new(Code::Key, "cannot read the host's public key")
                .at(own.display())
                .because(e));
        }
    }
    for line in &config.trust_hosts {
        keys.push(PublicHostKey::parse(line)?);
    }
    Ok(Trust::new(keys))
}

/// The same, and those that are given besides (`--trust`).
pub fn trust_with(config: &Config, given: &[PublicHostKey]) -> Result<Trust> {
    Ok(given.iter().fold(trust(config)?, |trust, key| trust.and(key.clone())))
}

/// How a configured store is opened.
pub fn store_settings(repository: &RepositoryConfig) -> Result<StoreSettings> {
    let store = &repository.store;
    let mut settings = StoreSettings::new(store.url.clone());
    let credentials = match &store.credentials {
        None => None,
        Some(given) => Some(StaticCredentials {
            access_key_id: given.access_key_id.resolve()?.to_string(),
            secret_access_key: given.secret_access_key.resolve()?,
            session_token: given.session_token.as_ref().map(crate::config::Secret::resolve).transpose()?,
        }),
    };
    settings.credentials = credentials;
    settings.region.clone_from(&store.region);
    settings.endpoint.clone_from(&store.endpoint);
    settings.path_style = store.path_style;
    settings.ca_file.clone_from(&store.ca_file);
    settings.storage_class.clone_from(&store.storage_class);
    settings.checksum = match store.checksum {
        ChecksumMode::WhenRequired => Checksum::WhenRequired,
        ChecksumMode::WhenSupported => Checksum::WhenSupported,
    };
    settings.conditional_writes = store.conditional_writes;
    settings.profile.clone_from(&store.profile);
    settings.upload_bandwidth = store.upload_bandwidth;
    settings.download_bandwidth = store.download_bandwidth;
    if let Some(concurrency) = store.concurrency {
        settings.concurrency = concurrency;
    }
    if let Some(bytes) = store.part_size {
        settings.part_size = bytes;
    }
    if let Some(timeout) = store.connect_timeout {
        settings.connect_timeout = timeout;
    }
    if let Some(deadline) = store.operation_deadline {
        settings.operation_deadline = deadline;
    }
    Ok(settings)
}

/// Opens the configured repositories, all or the one that is named (which is then the only one, and required).
/// `adjust` may tighten a store's settings, for deadlines and memory.
pub async fn open_repositories(
    config: &Config,
    only: Option<&RepoName>,
    adjust: impl Fn(&mut StoreSettings),
) -> Result<Repositories> {
    let chosen: Vec<&RepositoryConfig> = match only {
        Some(name) => vec![config.repository(name)?],
        None => config.repositories.iter().collect(),
    };
    let mut candidates = Vec::with_capacity(chosen.len());
    for repository in chosen {
        let settings = store_settings(repository).map(|mut settings| {
            adjust(&mut settings);
            settings
        });
        let storage = match settings {
            Ok(settings) => storage::open(&settings).await,
            Err(e) => Err(e),
        };
        let required = repository.required || only.is_some();
        candidates.push(Candidate { name: repository.name.clone(), required, storage });
    }
    Ok(Repositories::open(candidates).await)
}

/// One repository alone.
pub async fn open_repository(config: &Config, name: &RepoName) -> Result<Repository> {
    let (mut opened, _) = open_repositories(config, Some(name), |_| {}).await?.required()?;
    opened.pop().ok_or_else(|| Error::internal("an opened repository is gone"))
}
