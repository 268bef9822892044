//! The recovery kit: what a person needs to restore from nothing, in one directory or tar file that can lie in a safe.
//!
//! It holds the configuration without secrets, the identity encrypted to a passphrase, the public keys of the hosts whose
//! backups are believed, instructions with the runbooks that matter, and checksums. What it does not hold is named in it,
//! with where it goes: the stores' keys above all.
//!
//! Promises: the identity in a kit really opens the newest backups (their headers are unlocked with it before anything is
//! written), and never touches the disk in the clear; no signing key, no store's key and no receiver's secret is in it; a
//! kit is whole or not there.
//!
//! Order: [`configuration`] strips (pure) → [`proof`] tries the identity → [`instructions`] (pure) → [`files`] writes under a
//! temporary name, reads all of it again, and gives it its name → [`record`] says in the repositories what the kit holds, so
//! that `check` knows when it has become too old.

pub mod configuration;
pub mod files;
pub mod instructions;
pub mod make;
pub mod proof;
pub mod record;

use serde::{Deserialize, Serialize};

use crate::config::{Config, EncryptionConfig};
use crate::model::{BackupId, ClusterName, Digest, PgMajor, RepoName, Timestamp};

pub use crate::codec::LOCKED_IDENTITY as IDENTITY;
pub use files::Kit;

pub const FORMAT: u32 = 1;

/// The kit's own description of itself.
pub const CONTENTS: &str = "kit.json";
pub const CONFIGURATION: &str = "pgkeep.toml";
pub const INSTRUCTIONS: &str = "INSTRUCTIONS.md";
pub const CHECKSUMS: &str = "SHA256SUMS";
/// Where the instructions put things.
pub const HOME: &str = "/etc/pgkeep";
/// As the kit's configuration names it.
pub const IDENTITY_FILE: &str = "/etc/pgkeep/identity.txt";

/// `kit.json`: what the kit was made of. No secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub format: u32,
    pub made_at: Timestamp,
    pub host: String,
    pub pgkeep_version: String,
    pub clusters: Vec<KitCluster>,
    pub repositories: Vec<KitRepository>,
    /// What the configuration encrypts to; empty where it encrypts nothing.
    pub recipients: Vec<String>,
    /// Of these recipients.
    pub fingerprint: String,
    /// What the identity in the kit opens; empty where there is none.
    pub opens: Vec<String>,
    /// Whose backups are believed.
    pub trusted_hosts: Vec<String>,
    /// Backups that the identity was seen to open.
    pub proved: Vec<Proved>,
    /// Certificates of the kit, and where the configuration looks for them.
    pub certificates: Vec<Certificate>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitCluster {
    pub name: ClusterName,
    /// Of its newest backup.
    pub postgres: Option<PgMajor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitRepository {
    pub name: RepoName,
    pub url: String,
    pub endpoint: Option<String>,
    /// From `pgkeep.json`; None where it was not reached.
    pub id: Option<String>,
    /// The environment variables that its keys are read from.
    pub variables: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proved {
    pub repository: RepoName,
    pub cluster: ClusterName,
    pub backup: BackupId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub file: String,
    pub installed: String,
}

impl Contents {
    /// Whether anybody could restore with it.
    pub fn is_complete(&self) -> bool {
        self.recipients.is_empty() || !self.opens.is_empty()
    }
    /// One line for people.
    pub fn words(&self) -> String {
        format!("made {} on {}, recipients {}", self.made_at.human(), self.host, self.fingerprint)
    }
}

/// What data is encrypted to.
pub fn recipients(config: &Config) -> Vec<String> {
    match &config.encryption {
        EncryptionConfig::Recipients { recipients, .. } => recipients.clone(),
        EncryptionConfig::Unset | EncryptionConfig::None => Vec::new(),
    }
}

/// Tells sets of recipients apart, whatever their order: the first digits of a SHA-256.
pub fn fingerprint(recipients: &[String]) -> String {
    if recipients.is_empty() {
        return "none (nothing is encrypted)".to_owned();
    }
    let mut sorted: Vec<&str> = recipients.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let digest = Digest::of(sorted.join("\n").as_bytes()).to_string();
    digest[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_depends_on_the_recipients_alone() {
        let of = |list: &[&str]| fingerprint(&list.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["age1a", "age1b"]), of(&["age1b", "age1a", "age1a"]));
        assert_ne!(of(&["age1a"]), of(&["age1b"]));
        assert_eq!(of(&["age1a"]).len(), 16);
        assert!(of(&[]).starts_with("none"));
    }
}
