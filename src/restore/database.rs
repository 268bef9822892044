//! `restore database`: one database of a dump, made anew, beside or in place of the one that has its name.
//!
//! Promises kept here: nothing of the dump touches this host's disk in the clear (5); what cannot be done is refused before
//! anything is touched (12); the plan that was shown runs (8); a restore that fails or is killed has changed nothing that
//! anybody uses (9).
//!
//! Order, and why:
//! 1. [`prepare`]: which dump, which server, may it be done at all. The archive is opened with the identity, so a wrong
//!    key or a cut object is found here.
//! 2. One restore of databases at a time, by a lock: so everything under a name of ours is a leftover, and is removed
//!    ([`leftovers`]).
//! 3. The database is made under a name of ours, with what else was made for it in its comment. Until the very end nobody
//!    else sees it as what it will be.
//! 4. [`load`]: before the data, data, indexes, the rest, grants: several `pg_restore`, each reading its own stream of the
//!    archive from a pipe. ([`lists`] says who does what.)
//! 5. [`count`]: every table's rows, held against the dump's index.
//! 6. [`publish`]: owner, settings, grants and names in one transaction. If the counts differ, the old database stays, and
//!    the new one gets a name beside it.
//!
//! `pg_restore` itself does the work, for it alone knows every kind of object of every major. What it cannot do is to read
//! a pipe with `-j`: a pipe has no places to jump to. So each program has a list of its own and an archive that holds the
//! blocks of that list alone. A further stream costs decryption and decompression again, up to its last table, which is
//! several times cheaper than COPY; with little data there is one. One table is always one stream: its rows keep their
//! order.
//!
//! Failure and cancellation: whatever fails, the unfinished database and the roles and tablespaces that were made for it are
//! removed; the programs die with the future. Killed, all of it is a leftover, known by its name and comment.

mod count;
mod execute;
pub(super) mod globals;
pub mod leftovers;
pub(super) mod lists;
pub(super) mod load;
pub mod plan;
pub mod prepare;
mod publish;
pub mod report;
pub mod request;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use self::execute::run as execute;
pub use self::prepare::{Prepared, run as prepare};
pub use self::request::DatabaseRequest;
use crate::codec::Identities;
use crate::config::{ClusterConfig, Config};
use crate::model::{RepoName, Timestamp};
use crate::repository::signature::PublicHostKey;
use crate::util::priority::Priority;
use crate::util::progress::Progress;

/// What the work is given.
pub struct DatabaseTask<'a> {
    pub config: &'a Config,
    pub cluster: &'a ClusterConfig,
    /// Only this repository.
    pub only: Option<&'a RepoName>,
    pub request: &'a DatabaseRequest,
    /// Signers that are believed for this once.
    pub trusted: Vec<PublicHostKey>,
    /// Open data.
    pub identities: Option<Identities>,
    pub now: Timestamp,
    pub progress: Arc<dyn Progress>,
    pub cancel: CancellationToken,
    /// Of PostgreSQL's programs.
    pub priority: Priority,
}
