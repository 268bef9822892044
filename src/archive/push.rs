//! `wal push`: one WAL file into every repository, and a true answer.
//!
//! Promises kept here: success only when every required repository has confirmed the file durable, with the right
//! length and digest (1); a damaged segment is shipped with its mark and never stops archiving (11); a name that is
//! taken by other content is refused on every try, and nothing is overwritten (4); nothing leaves in the clear unless
//! the user said so (5).
//!
//! Order: configuration and recipients → `pg_control` (which cluster is this?) → the file, while the repositories are
//! opened and asked → decision → mark → upload → a second look, which confirms the length and finds a writer who was
//! as fast with other content. The first failure ends it; PostgreSQL keeps the file and asks again.
//!
//! Optional repositories go along in the background and never hold up the answer by more than the configured grace.
//! The whole has a deadline: a push that hangs fills the primary's disk unseen.

use std::path::Path;
use std::time::Duration;

use crate::config::{ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, RepoName, Timestamp, WalFileName};
use crate::postgres::control_file::ControlFile;
use crate::repository::wal_object::blocking;

pub(super) mod file;
pub(super) mod lane;
mod lanes;
mod presence;

pub use file::Fingerprint;
pub use presence::{Presence, presence};

/// One call of `archive_command`.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub config: &'a Config,
    pub cluster: &'a ClusterConfig,
    /// `--repo`: only this one.
    pub only: Option<&'a RepoName>,
    /// PostgreSQL's working directory.
    pub data_directory: &'a Path,
    /// `%p`, relative to it.
    pub path: &'a Path,
    pub now: Timestamp,
}

/// What was done; the file is durable in every required repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub name: WalFileName,
    /// False: it was there before.
    pub shipped: bool,
    /// Where its records end to be readable, and why.
    pub damage: Option<(Lsn, String)>,
    /// What somebody should look at: other contents of this name, optional repositories that were left behind.
    pub warnings: Vec<String>,
}

/// Archives one file within the configured deadline.
pub async fn run(request: Request<'_>) -> Result<Report> {
    let deadline = request.config.archive.push_deadline;
    tokio::time::timeout(deadline, push(request)).await.unwrap_or_else(|_| Err(too_slow(deadline)))
}

/// A push that took longer than its deadline.
pub fn too_slow(deadline: Duration) -> Error {
    let within = humantime::format_duration(deadline);
    Error::new(Code::StoreUnavailable, format!("the file was not archived within {within}")).hint(
        "PostgreSQL keeps it and asks again; look at the network and at the store, or set a longer push_deadline in \
         [archive]",
    )
}

async fn push(request: Request<'_>) -> Result<Report> {
    // Before anything is read: nothing may leave without a decision about encryption.
    let sealer = lanes::sealer(&request)?;
    let name = file::name_of(request.path)?;
    let control = ControlFile::read(request.data_directory)?;
    let (size, system) = (control.wal_segment_size, control.system);
    let path = request.data_directory.join(request.path);
    let local = blocking(move || file::read(&path, size, system, &file::Keep::Plain(file::IN_MEMORY)));
    let mut lanes = lanes::Lanes::open(&request, name, system, size)?;
    let (local, looked) = tokio::join!(local, lanes.look());
    // A file that is not what its name says is that whatever the stores answer.
    let local = local?;
    looked?;
    lanes.ship(local, sealer).await
}
