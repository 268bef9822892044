//! L1: the configuration file. TOML in, a checked value out; every fault is reported at once with its path and line.
//!
//! Order: read the file, parse it into a tree with spans, walk the tree with a typed reader that collects faults
//! (unknown key, wrong type, missing value), then check what only shows across sections (duplicates, a repository
//! inside a data directory), then the identity file's mode. Nothing is guessed: an unknown key is a fault, because a
//! misspelt `recipients` must stop the work and not upload in the clear (promise 5).
//!
//! Secrets never stand in the file; it may be readable by everyone. Nothing here opens a store, a key or a
//! connection: that is left to who needs it, so that `wal push` can load this on every call.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, RepoName, Timestamp};

mod across;
mod agent;
pub mod alerts;
mod canary;
mod dump;
pub mod jobs;
mod prefetch;
pub mod proof;
mod reader;
pub mod reference;
pub mod schedule;
mod secret;
mod sections;
mod tail;
pub mod value;
mod verify;

pub use agent::AgentConfig;
pub use alerts::{AlertsConfig, HeartbeatConfig, SinkConfig};
pub use canary::CanaryConfig;
pub use dump::DumpConfig;
pub use jobs::{JobConfig, JobWork, RunOn, VerifyWork};
pub use prefetch::PrefetchConfig;
pub use proof::{AssertionConfig, ProofConfig};
pub use schedule::Schedule;
pub use secret::{Guarded, Secret};
pub use tail::TailConfig;
pub use verify::VerifyConfig;

/// A configuration that has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it was read from, absolute.
    pub path: PathBuf,
    /// At least one, in the order of their names.
    pub clusters: Vec<ClusterConfig>,
    /// At least one, in the order of the file; at least one is required.
    pub repositories: Vec<RepositoryConfig>,
    pub encryption: EncryptionConfig,
    /// Minisign public keys (`RW…`) accepted besides the host's own.
    pub trust_hosts: Vec<String>,
    /// Keys and spool of this host.
    pub state_directory: PathBuf,
    pub backup: BackupConfig,
    pub archive: ArchiveConfig,
    pub restore: RestoreConfig,
    pub tail: TailConfig,
    pub prefetch: PrefetchConfig,
    pub verify: VerifyConfig,
    pub dump: DumpConfig,
    pub proof: ProofConfig,
    pub canary: CanaryConfig,
    /// In the order of the file; their names differ.
    pub assertions: Vec<AssertionConfig>,
    pub alerts: AlertsConfig,
    /// In the order of the file.
    pub alert_sinks: Vec<SinkConfig>,
    pub heartbeat: Option<HeartbeatConfig>,
    pub agent: AgentConfig,
    /// In the order of the file; their names differ.
    pub jobs: Vec<JobConfig>,
}

/// `[cluster.NAME]`
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    pub name: ClusterName,
    /// A libpq connection string; never a password.
    pub connection: String,
    /// The same for dumps and exports, where they have a role or a server of their own.
    pub dump_connection: Option<String>,
    /// None: asked of the server.
    pub data_directory: Option<PathBuf>,
    /// None: found through the running server and the usual places.
    pub bin_directory: Option<PathBuf>,
    /// On a standby: how to reach the primary.
    pub primary: Option<String>,
    pub service: ServiceCommands,
}

impl ClusterConfig {
    /// How dumps and exports reach the server.
    pub fn for_dumps(&self) -> &str {
        self.dump_connection.as_deref().unwrap_or(&self.connection)
    }
}

/// `[cluster.NAME.service]`: shell commands; None is detected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceCommands {
    pub stop: Option<String>,
    pub start: Option<String>,
    pub status: Option<String>,
}

/// `[[repository]]`
#[derive(Debug, Clone)]
pub struct RepositoryConfig {
    pub name: RepoName,
    /// A required repository holds up archiving when it fails; another is filled later.
    pub required: bool,
    pub store: StoreConfig,
}

/// How a store is reached. The keys for S3 are None or at their defaults for a directory.
#[derive(Debug, Clone, Default)]
pub struct StoreConfig {
    /// `file:///srv/pgkeep` or `s3://bucket/prefix`.
    pub url: String,
    pub region: Option<String>,
    pub endpoint: Option<String>,
    /// None: yes where an endpoint is given.
    pub path_style: Option<bool>,
    pub ca_file: Option<PathBuf>,
    pub storage_class: Option<String>,
    pub checksum: ChecksumMode,
    pub conditional_writes: bool,
    pub profile: Option<String>,
    pub credentials: Option<CredentialsConfig>,
    /// Bytes per second.
    pub upload_bandwidth: Option<u64>,
    /// Bytes per second.
    pub download_bandwidth: Option<u64>,
    /// None: the store's own default, for this and the following.
    pub concurrency: Option<usize>,
    pub part_size: Option<u64>,
    pub connect_timeout: Option<Duration>,
    pub operation_deadline: Option<Duration>,
    /// Bytes that it can hold.
    pub capacity: Option<u64>,
}

impl StoreConfig {
    /// The directory of a `file://` URL.
    pub fn directory(&self) -> Option<PathBuf> {
        let path = self.url.strip_prefix("file://")?;
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        Some(PathBuf::from(path.into_owned()))
    }
}

/// `[repository.credentials]`
#[derive(Debug, Clone)]
pub struct CredentialsConfig {
    pub access_key_id: Secret,
    pub secret_access_key: Secret,
    pub session_token: Option<Secret>,
    /// When the store takes them no longer: no store tells it of keys that are written down.
    pub expire_at: Option<Timestamp>,
}

/// `checksum = "…"`: whether requests to S3 carry checksum headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChecksumMode {
    #[default]
    WhenRequired,
    WhenSupported,
}

/// Who can read what is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncryptionConfig {
    /// Nothing was said: commands that write refuse.
    Unset,
    /// `encryption = "none"`, typed by the user.
    None,
    /// `[encryption]`
    Recipients {
        /// age public keys (`age1…`), at least one, syntactically right.
        recipients: Vec<String>,
        identity_file: Option<PathBuf>,
    },
}

/// `[backup]`
#[derive(Debug, Clone)]
pub struct BackupConfig {
    /// Packs written at once.
    pub workers: usize,
    /// zstd's level.
    pub compression: i32,
    /// Whether the agent takes a full backup by itself when WAL is damaged or lost.
    pub after_damage: bool,
}

/// `[archive]`
#[derive(Debug, Clone)]
pub struct ArchiveConfig {
    /// `wal push` gives up (and PostgreSQL asks again) after this.
    pub push_deadline: Duration,
    /// `wal fetch` gives up after this.
    pub fetch_deadline: Duration,
    /// How long an optional repository may take after the required ones are done.
    pub optional_grace: Duration,
    /// zstd's level.
    pub compression: i32,
    /// Files that the agent ships at once.
    pub workers: usize,
}

/// `[restore]`
#[derive(Debug, Clone)]
pub struct RestoreConfig {
    /// Packs read at once.
    pub workers: usize,
    /// WAL segments kept ready ahead of the replay.
    pub look_ahead: usize,
    /// Where side instances for single tables are made; None: in the state directory.
    pub scratch_directory: Option<PathBuf>,
}

impl Config {
    /// Reads and checks the file. All faults are in the one error, with path and line.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let missing = e.kind() == std::io::ErrorKind::NotFound;
            let error =
                Error::new(Code::Config, "cannot read the configuration").at(path.display()).because(e);
            error.hint(if missing {
                "`pgkeep init` makes one; --config FILE or PGKEEP_CONFIG names another place"
            } else {
                "run pgkeep as a user who may read it, for example with sudo"
            })
        })?;
        let config = Self::parse(path, &text)?;
        config.check_identity_mode()?;
        Ok(config)
    }

    /// The same from a text, without looking at the identity file.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let faults = reader::Faults::new(path, text);
        let config = sections::read(path, text, &faults);
        if let Some(config) = &config {
            across::check(config, &faults);
        }
        match (faults.into_error(), config) {
            (Some(error), _) => Err(error),
            (None, Some(config)) => Ok(config),
            (None, None) => Err(Error::internal("a configuration without faults could not be read")),
        }
    }

    /// The cluster of this name; without a name the only one there is.
    pub fn cluster(&self, name: Option<&ClusterName>) -> Result<&ClusterConfig> {
        let names = || {
            let names: Vec<&str> = self.clusters.iter().map(|c| c.name.as_str()).collect();
            names.join(", ")
        };
        match (name, self.clusters.as_slice()) {
            (Some(name), all) => all.iter().find(|c| c.name == *name).ok_or_else(|| {
                Error::new(Code::Usage, format!("the configuration has no cluster `{name}`"))
                    .at(self.path.display())
                    .hint(format!("it has: {}", names()))
            }),
            (None, [only]) => Ok(only),
            (None, _) => Err(Error::new(Code::Usage, "several clusters are configured, and none was named")
                .at(self.path.display())
                .hint(format!("add --cluster NAME; there are: {}", names()))),
        }
    }

    /// The repository of this name.
    pub fn repository(&self, name: &RepoName) -> Result<&RepositoryConfig> {
        self.repositories.iter().find(|r| r.name == *name).ok_or_else(|| {
            let names: Vec<&str> = self.repositories.iter().map(|r| r.name.as_str()).collect();
            Error::new(Code::Usage, format!("the configuration has no repository `{name}`"))
                .at(self.path.display())
                .hint(format!("it has: {}", names.join(", ")))
        })
    }

    /// What every command that writes asks first: nothing leaves the host in the clear by accident (promise 5).
    pub fn require_encryption(&self) -> Result<&EncryptionConfig> {
        if self.encryption == EncryptionConfig::Unset {
            return Err(Error::new(
                Code::EncryptionUnset,
                "the configuration does not say who can read the backups",
            )
            .at(self.path.display())
            .hint(
                "add `[encryption]` with `recipients = [\"age1…\"]` (`pgkeep key new` makes a key), or write \
                     `encryption = \"none\"` to store everything in the clear",
            ));
        }
        Ok(&self.encryption)
    }

    /// Where the private keys are for who has them; an error that says what to do for who has not.
    pub fn require_identity(&self) -> Result<&Path> {
        match &self.encryption {
            EncryptionConfig::Recipients { identity_file: Some(path), .. } => Ok(path),
            _ => Err(Error::new(Code::Key, "this needs the identity, and the configuration names none")
                .at(self.path.display())
                .hint("bring the identity file to this host and set `identity_file` under `[encryption]`")),
        }
    }

    /// A repository must not lie in what it keeps, nor the reverse: the data directory as the server names it.
    pub fn refuse_roots_inside(&self, data_directory: &Path) -> Result<()> {
        across::roots_apart(self, data_directory, "the data directory").map_or(
            Ok(()),
            |(repository, what)| {
                Err(Error::new(Code::Config, format!("repository.{repository}.url: {what}"))
                    .at(self.path.display())
                    .hint("choose a directory on another disk, or at least outside the data directory"))
            },
        )
    }

    fn check_identity_mode(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let EncryptionConfig::Recipients { identity_file: Some(path), .. } = &self.encryption else {
            return Ok(());
        };
        // A host that only backs up has no identity, and a user who may not even see it cannot leak it.
        let Ok(meta) = std::fs::metadata(path) else { return Ok(()) };
        let mode = meta.permissions().mode() & 0o777;
        if mode.trailing_zeros() >= 6 {
            // Nothing for group and others.
            return Ok(());
        }
        Err(Error::new(Code::Key, format!("the identity file is readable by others (mode {mode:04o})"))
            .at(path.display())
            .hint(format!("chmod 0600 {}", path.display())))
    }
}

#[cfg(test)]
mod tests;
