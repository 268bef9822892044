//! As whom the agent works: the owner of the data directories, who may read `pg_wal` and is let in by `peer`.
//!
//! Started as root it makes its directories and becomes that user for good. Clusters of several owners would need
//! root for as long as the agent lives, so they are refused: an agent each, with its own configuration.

use std::os::unix::fs::chown;
use std::path::Path;

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::postgres::as_owner;
use crate::postgres::privilege::{self, Owner};
use crate::util::durable;

/// Becomes the one owner of all clusters, if this process is root; as anybody else nothing changes.
pub fn take_on(config: &Config) -> Result<()> {
    let owner = common_owner(config)?;
    if !privilege::started_as_root() {
        return Ok(());
    }
    make_own(&config.state_directory, 0o700, &owner)?;
    if let Some(directory) = config.agent.socket.parent() {
        make_own(directory, 0o755, &owner)?;
    }
    privilege::become_owner_for_good(&owner)
}

/// Makes a directory of the owner's. One that is there stays as it is.
fn make_own(path: &Path, mode: u32, owner: &Owner) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    durable::make_dirs(path, mode)?;
    chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
        .map_err(|e| Error::io(format!("cannot give the directory to {}", owner.label()), path, e))
}

fn common_owner(config: &Config) -> Result<Owner> {
    let mut found: Option<(&str, Owner)> = None;
    for cluster in &config.clusters {
        let owner = as_owner::owner(&cluster.connection, cluster.data_directory.as_deref())?;
        match &found {
            Some((first, other)) if other.uid != owner.uid => {
                return Err(Error::new(
                    Code::Config,
                    format!(
                        "the cluster {first} belongs to {}, and {} to {}: one agent works as one user",
                        other.label(),
                        cluster.name,
                        owner.label()
                    ),
                )
                .at(config.path.display())
                .hint(
                    "give each owner's clusters a configuration of their own, with its own `state_directory` and \
                     `socket` under [agent], and run an agent for each",
                ));
            }
            Some(_) => {}
            None => found = Some((cluster.name.as_str(), owner)),
        }
    }
    found.map(|(_, owner)| owner).ok_or_else(|| Error::internal("a configuration without a cluster"))
}
