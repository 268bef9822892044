//! What is at the place of a restore, as facts: gathered by [`super::survey`], judged by [`refuse`] and the plan.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::request::{Place, Request};
use crate::error::{Code, Error, Result};
use crate::model::{PgMajor, SystemId};

/// What a data directory was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectoryState {
    Absent,
    Empty,
    /// What an earlier, unfinished restore of pgkeep left; it cannot be started.
    Leftover {
        plan: String,
        filled: Vec<PathBuf>,
    },
    Cluster {
        system: SystemId,
        major: PgMajor,
        role: Role,
        bytes: u64,
    },
    /// `PG_VERSION` is there, and `pg_control` cannot be read: whose it is cannot be told.
    Unreadable {
        why: String,
    },
    /// Something is there, and it is no cluster.
    Other {
        example: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Primary,
    /// A standby, or in a recovery that has not ended.
    InRecovery,
}

/// A tablespace of the cluster that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldTablespace {
    pub oid: u32,
    pub location: PathBuf,
}

/// A file system that something is restored to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The directory that was asked about; it or its parents exist.
    pub path: PathBuf,
    pub device: u64,
    pub available: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceFacts {
    pub host: String,
    /// Whose the files will be.
    pub owner: String,
    pub data_directory: PathBuf,
    pub state: DirectoryState,
    /// The running server, for people: `PostgreSQL (pid 4711)`.
    pub running: Option<String>,
    /// Who stops and starts it.
    pub service: String,
    /// Where `pg_wal` links to, when it is a link.
    pub wal_directory: Option<PathBuf>,
    pub old_tablespaces: Vec<OldTablespace>,
    /// `PG_<major>_<catalog>` directories that exist in the places of tablespaces, old and new.
    pub version_directories: Vec<PathBuf>,
    /// What earlier incidents left beside all these; their names are taken.
    pub earlier_incidents: Vec<PathBuf>,
    pub disks: Vec<Disk>,
    /// Of the packs' members, by tablespace oid; 0 for the data directory itself.
    pub member_bytes: Vec<(u32, u64)>,
}

/// Refuses what must not be touched, whatever was confirmed (promise 12).
pub fn refuse(request: &Request, system: SystemId, major: PgMajor, facts: &PlaceFacts) -> Result<()> {
    let place = facts.data_directory.display();
    let in_place = request.place == Place::InPlace;
    match &facts.state {
        DirectoryState::Absent | DirectoryState::Empty => {}
        DirectoryState::Leftover { .. } if facts.running.is_none() => {}
        _ if !in_place && facts.running.is_some() => {
            return Err(Error::new(Code::ServerRunning, "a server runs in the target directory")
                .at(place)
                .hint("choose another directory; a side instance that pgkeep made is removed with `pgkeep restore discard --target-dir DIR`"));
        }
        _ if !in_place => {
            return Err(Error::new(Code::NotEmpty, "the target directory is not empty")
                .at(place)
                .hint("choose a directory that is empty or does not exist; a side instance that pgkeep made is removed with `pgkeep restore discard --target-dir DIR`"));
        }
        DirectoryState::Cluster { system: found, .. } if *found != system => {
            return Err(Error::new(
                Code::ForeignCluster,
                format!("the data directory belongs to another cluster: its system identifier is {found}, the backup's is {system}"),
            )
            .at(place)
            .hint("check the host and `data_directory`; to look at the backup, restore it with --target-dir DIR"));
        }
        DirectoryState::Cluster { major: found, .. } if *found != major => {
            return Err(Error::new(
                Code::ForeignCluster,
                format!("the data directory is of PostgreSQL {found}, the backup of {major}"),
            )
            .at(place)
            .hint("restore the backup with --target-dir DIR"));
        }
        DirectoryState::Other { example } => {
            return Err(Error::new(
                Code::NotEmpty,
                format!("the data directory is no PostgreSQL cluster and not empty: it holds `{example}`"),
            )
            .at(place)
            .hint("check `data_directory`; if this is the place, move what is there away"));
        }
        DirectoryState::Unreadable { why } if request.overwrite => {
            return Err(Error::new(
                Code::Refused,
                format!("whose data directory this is cannot be told ({why}), so it is not overwritten"),
            )
            .at(place)
            .hint("leave out --overwrite: it is then moved aside and kept"));
        }
        DirectoryState::Leftover { .. } => {
            return Err(Error::new(Code::ServerRunning, "a server runs on what an unfinished restore left")
                .at(place)
                .hint("stop it, then try again"));
        }
        DirectoryState::Cluster { .. } | DirectoryState::Unreadable { .. } => {}
    }
    Ok(())
}
