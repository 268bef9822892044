//! Is everything in the catalog still what was stored? The work of `pgkeep verify` and of the job kind `verify`.
//!
//! Promises:
//! * **What would change a restore is found**: objects that are missing, cut, changed, exchanged or another cluster's;
//!   records and marks that no trusted host signed; WAL with holes; a base backup without its own WAL.
//! * **A repository at work is no fault**: what looks missing is looked for again before it is said, for backups are
//!   published, segments come out of order and expired backups go while this runs ([`leaving`]).
//! * **Nothing is passed that was not looked at**: without an identity WAL objects are unproved; what a budget leaves out
//!   is counted and comes first the next time.
//! * **Damage that was found stays found**: it is looked at again by every run until it is gone, whatever the budget.
//! * **Nothing is changed**: results are new signed objects, a damaged object is healed beside itself.
//!
//! Order, for each repository: records ([`records`]) → marks ([`marks`]) → what was checked when ([`memory`]) → what is
//! read now ([`plan`], pure) → every object ([`items`]: [`base`], [`logical`], [`wal`]) → WAL as a whole ([`gaps`]) →
//! healing ([`heal`]) → report and marks ([`publish`]).
//!
//! Memory: an object is read as a stream; of a base backup the names of its files are held, of WAL a listing.
//!
//! Failure: a store that goes away ends the look at its repository with its error; what was done until then is
//! remembered. Cancelled: the same, within one piece of an object.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{BackupId, ClusterName, RepoName, Timestamp};
use crate::repository::configured::{self, Patience};
use crate::repository::{Repository, access};
use crate::util::clock::Clock;
use crate::util::progress::Progress;

mod base;
mod finding;
mod gaps;
mod gone;
mod heads;
mod heal;
mod impact;
mod items;
mod keys;
mod leaving;
mod logical;
mod marks;
mod memory;
mod plan;
mod publish;
mod reading;
mod records;
mod remember;
mod run;
mod signed;
mod wal;
mod whole;

pub use finding::{Finding, Kind};
pub use heal::Healed;
pub use keys::Keys;
pub use publish::{REPORT_KIND, StoredReport};

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything in the catalog, and all WAL.
    All,
    /// WAL alone.
    Wal,
    /// These backups with the WAL that they need to be consistent.
    Backups { ids: Vec<BackupId>, wal: bool },
}

impl Scope {
    /// Whether this backup's objects are read.
    fn has(&self, id: &BackupId) -> bool {
        match self {
            Self::All => true,
            Self::Wal => false,
            Self::Backups { ids, .. } => ids.contains(id),
        }
    }
    /// Whether all WAL is read.
    fn has_wal(&self) -> bool {
        match self {
            Self::All | Self::Wal => true,
            Self::Backups { wal, .. } => *wal,
        }
    }
}

/// What is asked for.
pub struct Request<'a> {
    pub config: &'a Config,
    /// Loaded before root becomes somebody who may not read them.
    pub keys: Keys,
    pub cluster: &'a ClusterName,
    /// This repository alone.
    pub only: Option<&'a RepoName>,
    pub scope: Scope,
    /// Every record of WAL is checked, too.
    pub deep: bool,
    /// What is damaged or missing is brought from another repository.
    pub heal: bool,
    /// Stored bytes that may be read, of all repositories together.
    pub budget: Option<u64>,
    /// For the report.
    pub label: Option<String>,
    pub clock: Clock,
    pub progress: Arc<dyn Progress>,
    pub cancel: CancellationToken,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Backups of which every object was checked.
    pub backups: u64,
    pub backup_objects: u64,
    pub wal_objects: u64,
    /// Stored bytes that were read.
    pub bytes: u64,
}

/// Of one repository.
#[derive(Debug)]
pub struct RepositoryReport {
    pub name: RepoName,
    pub required: bool,
    pub counts: Counts,
    pub findings: Vec<Finding>,
    pub healed: Vec<Healed>,
    /// What could not be proved, a line each.
    pub unproved: Vec<String>,
    /// Objects and stored bytes that the budget left for the next time.
    pub left: (u64, u64),
    /// When the longest unchecked object was checked; None: some never were, or nothing is remembered.
    pub oldest: Option<Timestamp>,
    /// Backups that are marked as expiring and not gone yet.
    pub expiring: u64,
    /// Backups that were asked for and are not here.
    pub absent: Vec<BackupId>,
    pub notes: Vec<String>,
    /// Why it ended before its end.
    pub interrupted: Option<Error>,
}

/// Of all of them.
#[derive(Debug)]
pub struct Report {
    pub repositories: Vec<RepositoryReport>,
    /// Name, whether it is required, why.
    pub unavailable: Vec<(RepoName, bool, Error)>,
}

impl Report {
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.repositories.iter().flat_map(|repository| &repository.findings)
    }
    /// Whether everything that was asked for was looked at.
    pub fn is_complete(&self) -> bool {
        self.unavailable.is_empty() && self.repositories.iter().all(|r| r.interrupted.is_none())
    }
}

/// Looks at every repository that is asked for, one after the other. An error when none answers.
pub async fn verify(request: &Request<'_>) -> Result<Report> {
    let trust = access::trust(request.config)?;
    let opened = configured::open_all(request.config, None, Patience::default()).await?;
    let (available, mut unavailable) = opened.into_parts();
    unavailable.retain(|(name, ..)| request.only.is_none_or(|only| only == name));
    let wanted = |repository: &&Repository| request.only.is_none_or(|only| *only == repository.name);
    let chosen: Vec<&Repository> = available.iter().filter(wanted).collect();
    if let Some(only) = request.only {
        request.config.repository(only)?;
    }
    if chosen.is_empty()
        && let Some((name, _, error)) = unavailable.pop()
    {
        return Err(error.while_doing(format!("no repository answers; {name}")));
    }
    let mut report = Report { repositories: Vec::new(), unavailable };
    let share = request.budget.map(|bytes| bytes / chosen.len().max(1) as u64);
    for repository in chosen {
        let others: Vec<Repository> =
            available.iter().filter(|other| other.name != repository.name).cloned().collect();
        let cx = run::Cx::new(request, repository, others, &trust);
        report.repositories.push(run::one(&cx, share).await);
        if request.cancel.is_cancelled() {
            break;
        }
    }
    known_ids(request, &report)?;
    Ok(report)
}

/// A backup that was asked for by name and is nowhere is no success.
fn known_ids(request: &Request<'_>, report: &Report) -> Result<()> {
    let Scope::Backups { ids, .. } = &request.scope else { return Ok(()) };
    let missing =
        |id: &&BackupId| report.repositories.iter().all(|r| r.interrupted.is_none() && r.absent.contains(id));
    match ids.iter().find(missing) {
        Some(id) if report.unavailable.is_empty() => {
            Err(Error::new(crate::error::Code::NoBackup, "there is no such backup")
                .at(id)
                .hint("`pgkeep list` shows them"))
        }
        _ => Ok(()),
    }
}
