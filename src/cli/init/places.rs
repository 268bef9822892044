//! Files and directories that `init` makes, each for the right owner. As root this happens before root becomes that
//! owner, for `/etc`, `/var/lib` and `/srv` are root's.

use std::os::unix::fs::chown;
use std::path::Path;

use crate::codec::{GeneratedIdentity, Identities};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::postgres::privilege::Owner;
use crate::util::durable;

/// Makes places, and remembers which.
pub struct Places {
    /// As root: who gets what PostgreSQL's user must write.
    pub owner: Option<Owner>,
    pub made: Vec<String>,
}

impl Places {
    /// The configuration: everybody may read it, it holds no secret.
    pub fn configuration(&mut self, path: &Path, text: &str) -> Result<()> {
        parents(path)?;
        durable::write_new(path, text.as_bytes(), 0o644).map_err(use_sudo)?;
        self.made.push(format!("configuration {}", path.display()));
        Ok(())
    }

    /// A part of the agent's unit.
    pub fn drop_in(&mut self, path: &Path, text: &str) -> Result<()> {
        parents(path)?;
        durable::write_new(path, text.as_bytes(), 0o644).map_err(use_sudo)?;
        self.made.push(format!("drop-in {}", path.display()));
        Ok(())
    }

    /// A new identity, or the one that an earlier try left there; gives its recipient.
    pub fn identity(&mut self, path: &Path) -> Result<String> {
        if path.exists() {
            let recipient = Identities::load(path)?.recipients().into_iter().next();
            return recipient.ok_or_else(|| Error::internal("an identity file without an identity"));
        }
        let key = GeneratedIdentity::new();
        parents(path)?;
        crate::cli::key::write_identity(path, &key).map_err(use_sudo)?;
        self.give(path)?;
        self.made.push(format!("identity {}", path.display()));
        Ok(key.recipient().to_owned())
    }

    /// The state directory and the roots of repositories in directories.
    pub fn directories(&mut self, config: &Config) -> Result<()> {
        self.directory(&config.state_directory, "state directory")?;
        for repository in &config.repositories {
            if let Some(root) = repository.store.directory() {
                self.directory(&root, "repository directory")?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, what: &str) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        parents(path)?;
        durable::make_dirs(path, 0o700).map_err(use_sudo)?;
        self.give(path)?;
        self.made.push(format!("{what} {}", path.display()));
        Ok(())
    }

    fn give(&self, path: &Path) -> Result<()> {
        let Some(owner) = &self.owner else { return Ok(()) };
        chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
            .map_err(|e| Error::io(format!("cannot give it to {}", owner.label()), path, e))
    }
}

/// Directories on the way are for everybody to pass.
fn parents(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), |parent| durable::make_dirs(parent, 0o755)).map_err(use_sudo)
}

fn use_sudo(error: Error) -> Error {
    if error.hint_text().is_some() || crate::postgres::privilege::started_as_root() {
        error
    } else {
        error.hint("run `pgkeep init` as root, or choose places that you may write")
    }
}
