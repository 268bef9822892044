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

use super::access::KeyFiles;
use super::signature::{HostKey, PublicHostKey};
use crate::codec::{GeneratedIdentity, Identities};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::util::durable;

/// Makes what is missing, durably and for the owner alone; says which files were made.
pub fn make_missing(files: &KeyFiles) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    durable::make_dirs(&files.directory, 0o700)?;
    let (host, public, metadata) = (files.host_key(), files.host_public(), files.metadata_key());
    if !there(&host)? {
        let texts = HostKey::generate()?.files()?;
        durable::write_new(&host, texts.secret.as_bytes(), 0o600)?;
        made.push(host.clone());
    }
    if !there(&public)? {
        let text = HostKey::load(&host)?.files()?.public;
        durable::write_new(&public, text.as_bytes(), 0o644)?;
        made.push(public);
    }
    if !there(&metadata)? {
        let text = GeneratedIdentity::new().file_text();
        durable::write_new(&metadata, text.as_bytes(), 0o600)?;
        made.push(metadata);
    }
    Ok(made)
}

/// This host's public key, where it has one.
pub fn own_public_key(config: &Config) -> Result<Option<PublicHostKey>> {
    let path = KeyFiles::of(config).host_public();
    if !there(&path)? {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Error::io("cannot read this host's public key", &path, e))?;
    PublicHostKey::parse(&text).map(Some)
}

/// What opens this host's metadata objects; None on a host where `init` never ran.
fn metadata_identity(config: &Config) -> Result<Option<Identities>> {
    let path = KeyFiles::of(config).metadata_key();
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
    use crate::error::Code;
    use crate::repository::access;
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
        let files = KeyFiles::of(&config(&dir.path().join("state"), ""));
        assert_eq!(make_missing(&files).unwrap().len(), 3);
        let before = std::fs::read(files.host_key()).unwrap();
        assert!(make_missing(&files).unwrap().is_empty());
        assert_eq!(std::fs::read(files.host_key()).unwrap(), before);
        for secret in [files.host_key(), files.metadata_key()] {
            assert_eq!(std::fs::metadata(secret).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::metadata(&files.directory).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_host_believes_itself_and_those_it_was_told_to_believe() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        make_missing(&KeyFiles::of(&config(&a, ""))).unwrap();
        make_missing(&KeyFiles::of(&config(&b, ""))).unwrap();
        let at = "2026-11-21T02:00:00Z".parse().unwrap();
        let signed = access::host_key(&config(&a, "")).unwrap().sign(b"x", "x", at).unwrap();
        let verdict = |config: &Config| access::trust(config).unwrap().verify(b"x", Some(&signed));
        assert_eq!(verdict(&config(&a, "")), Verdict::Trusted);
        assert_ne!(verdict(&config(&b, "")), Verdict::Trusted);
        let line = own_public_key(&config(&a, "")).unwrap().unwrap().line();
        assert_eq!(verdict(&config(&b, &format!("[trust]\nhosts = [\"{line}\"]\n"))), Verdict::Trusted);
    }

    #[test]
    fn a_host_without_keys_cannot_sign_and_says_who_makes_them() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "");
        let error = access::host_key(&config).err().unwrap();
        assert_eq!(error.code(), Code::Key);
        assert!(error.hint_text().unwrap().contains("pgkeep init"));
        assert!(metadata_recipient(&config).unwrap().is_none());
        make_missing(&KeyFiles::of(&config)).unwrap();
        assert!(metadata_recipient(&config).unwrap().unwrap().starts_with("age1"));
    }
}
