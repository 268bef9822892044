//! This host's own keys in the state directory, made by `init` and by nothing else:
//!
//! ```text
//! <state_directory>/keys/host.key       signs backups and marks (minisign, 0600)
//! <state_directory>/keys/host.pub       its public half, for `[trust] hosts` elsewhere and for `minisign -V`
//! <state_directory>/keys/metadata.key   opens manifests and indexes (age identity, 0600); no rows, no WAL
//! ```
//!
//! A host that lost them makes new ones: old backups stay readable with the identity, and are believed again once
//! `[trust] hosts` names the old host's public key. Nothing is ever overwritten.

use std::path::{Path, PathBuf};

use super::signature::{HostKey, PublicHostKey, Trust};
use crate::codec::{GeneratedIdentity, Identities};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::util::durable;

/// Where the keys lie.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    pub directory: PathBuf,
    pub host: PathBuf,
    pub host_public: PathBuf,
    pub metadata: PathBuf,
}

impl KeyFiles {
    pub fn of(state_directory: &Path) -> Self {
        let directory = state_directory.join("keys");
        Self {
            host: directory.join("host.key"),
            host_public: directory.join("host.pub"),
            metadata: directory.join("metadata.key"),
            directory,
        }
    }

    /// Makes what is missing, durably and for the owner alone; says which files were made.
    pub fn make_missing(&self) -> Result<Vec<PathBuf>> {
        let mut made = Vec::new();
        durable::make_dirs(&self.directory, 0o700)?;
        if !there(&self.host)? {
            let files = HostKey::generate()?.files()?;
            durable::write_new(&self.host, files.secret.as_bytes(), 0o600)?;
            made.push(self.host.clone());
        }
        if !there(&self.host_public)? {
            let public = HostKey::load(&self.host)?.files()?.public;
            durable::write_new(&self.host_public, public.as_bytes(), 0o644)?;
            made.push(self.host_public.clone());
        }
        if !there(&self.metadata)? {
            let text = GeneratedIdentity::new().file_text();
            durable::write_new(&self.metadata, text.as_bytes(), 0o600)?;
            made.push(self.metadata.clone());
        }
        Ok(made)
    }
}

/// The key that signs what this host writes.
pub fn signer(config: &Config) -> Result<HostKey> {
    HostKey::load(&KeyFiles::of(&config.state_directory).host)
}

/// This host's public key, where it has one.
pub fn own_public_key(config: &Config) -> Result<Option<PublicHostKey>> {
    let path = KeyFiles::of(&config.state_directory).host_public;
    if !there(&path)? {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Error::io("cannot read this host's public key", &path, e))?;
    PublicHostKey::parse(&text).map(Some)
}

/// Whose records are believed: this host's own and those of `[trust] hosts`.
pub fn trust(config: &Config) -> Result<Trust> {
    let listed = config.trust_hosts.iter().map(|line| PublicHostKey::parse(line));
    let listed = Trust::new(listed.collect::<Result<Vec<_>>>()?);
    Ok(match own_public_key(config)? {
        Some(own) => listed.and(own),
        None => listed,
    })
}

/// What opens this host's metadata objects; None on a host where `init` never ran.
pub fn metadata_identity(config: &Config) -> Result<Option<Identities>> {
    let path = KeyFiles::of(&config.state_directory).metadata;
    if there(&path)? { Identities::load(&path).map(Some) } else { Ok(None) }
}

/// The metadata key's public half, an additional recipient of manifests and indexes.
pub fn metadata_recipient(config: &Config) -> Result<Option<String>> {
    Ok(metadata_identity(config)?.and_then(|identity| identity.recipients().into_iter().next()))
}

/// A key that cannot be seen is not a key that is missing.
fn there(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| {
        Error::io("cannot look for the key", path, e)
            .hint("run pgkeep as root or as the owner of the data directory")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::signature::Verdict;
    use std::os::unix::fs::PermissionsExt;

    fn config(state: &Path, more: &str) -> Config {
        let text = format!(
            "state_directory = \"{}\"\n[cluster.main]\nconnection = \"host=/tmp\"\n[[repository]]\nname = \"r\"\n\
             url = \"file:///srv/pgkeep\"\n{more}",
            state.display()
        );
        Config::parse(Path::new("/etc/pgkeep/pgkeep.toml"), &text).unwrap()
    }

    #[test]
    fn keys_are_made_once_and_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = KeyFiles::of(&dir.path().join("state"));
        assert_eq!(files.make_missing().unwrap().len(), 3);
        let before = std::fs::read(&files.host).unwrap();
        assert!(files.make_missing().unwrap().is_empty());
        assert_eq!(std::fs::read(&files.host).unwrap(), before);
        for secret in [&files.host, &files.metadata] {
            assert_eq!(std::fs::metadata(secret).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::metadata(&files.directory).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_host_believes_itself_and_those_it_was_told_to_believe() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        KeyFiles::of(&a).make_missing().unwrap();
        KeyFiles::of(&b).make_missing().unwrap();
        let at = "2026-11-21T02:00:00Z".parse().unwrap();
        let signed = signer(&config(&a, "")).unwrap().sign(b"x", "x", at).unwrap();
        assert_eq!(trust(&config(&a, "")).unwrap().verify(b"x", Some(&signed)), Verdict::Trusted);
        assert_ne!(trust(&config(&b, "")).unwrap().verify(b"x", Some(&signed)), Verdict::Trusted);
        let line = own_public_key(&config(&a, "")).unwrap().unwrap().line();
        let told = config(&b, &format!("[trust]\nhosts = [\"{line}\"]\n"));
        assert_eq!(trust(&told).unwrap().verify(b"x", Some(&signed)), Verdict::Trusted);
    }

    #[test]
    fn a_host_without_keys_cannot_sign_and_says_who_makes_them() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "");
        assert!(signer(&config).err().unwrap().hint_text().unwrap().contains("pgkeep init"));
        assert!(metadata_recipient(&config).unwrap().is_none());
        KeyFiles::of(dir.path()).make_missing().unwrap();
        assert!(metadata_recipient(&config).unwrap().unwrap().starts_with("age1"));
    }
}
