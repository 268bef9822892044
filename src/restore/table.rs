//! `restore table`: single tables back, from any moment, while production goes on.
//!
//! Order: request → production and the plan of a side instance looked at → confirm → side instance (`execute`) → the
//! tables looked at there → one transaction in production → side instance removed. The rows go from server to server
//! through memory; the only plain bytes on disk are the side instance's own, in a directory of mode 0700.
//!
//! Promises: nothing in production changes before the commit, and the commit comes after everything was loaded, counted
//! and checked, so a failure at any step leaves production as it was. The side instance goes away whatever happens; what
//! `kill -9` leaves is removed by the next run or by `restore discard --leftovers` ([`place`]).
//!
//! Rights: the role of the connection owns the tables (or is a member of the role that does) and may create tables in
//! their schemas. No superuser is needed: triggers are switched off one by one by their owner, foreign keys are taken away
//! and checked again when they come back. Nothing is left behind: what was switched off is switched on again before the
//! commit, in the same transaction.
//!
//! Three ways, decided table by table ([`Way`]): *beside* makes a copy under a new name, for people to look at and to
//! take rows from, without foreign keys, triggers and rules, which would bind production to it; *rows* (`--replace`, the
//! table is there) keeps the table with all that hangs on it and exchanges its rows; *anew* (`--replace`, the table is
//! gone) makes it as it was.
//!
//! Cancellation: a signal ends the recovery, or the transaction in production up to its commit, which is never interrupted
//! ([`load`]); the caller then removes the place.

mod definitions;
mod foreign_keys;
mod load;
mod losses;
mod names;
pub mod plan;
pub mod report;
pub mod request;
mod rows;
mod shape;
mod side;
mod take_out;

use crate::codec::Identities;
use crate::config::{ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::model::{RepoName, Timestamp};
use crate::postgres::privilege::Owner;
use crate::repository::signature::PublicHostKey;
use crate::util::priority::Priority;
use crate::util::progress::Progress;

pub use super::scratch as place;

use super::prepare::Task;
use super::request::Request;
use super::settings::SideKind;
use plan::Prepared;
use report::TableReport;
use request::TableRequest;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What a restore of tables is given.
pub struct Job<'a> {
    pub config: &'a Config,
    pub cluster: &'a ClusterConfig,
    pub only: Option<&'a RepoName>,
    pub request: &'a TableRequest,
    pub trusted: Vec<PublicHostKey>,
    pub identities: Option<Identities>,
    pub fetch_command: String,
    pub owner: Owner,
    pub now: Timestamp,
    pub progress: Arc<dyn Progress>,
    pub cancel: CancellationToken,
}

impl<'a> Job<'a> {
    /// The restore of the side instance.
    fn task(&self, request: &'a Request, data_directory: PathBuf) -> Task<'a> {
        Task {
            config: self.config,
            cluster: self.cluster,
            only: self.only,
            request,
            trusted: self.trusted.clone(),
            identities: self.identities.clone(),
            fetch_command: self.fetch_command.clone(),
            owner: self.owner.clone(),
            data_directory,
            now: self.now,
            progress: Arc::clone(&self.progress),
            priority: Priority::Usual,
            side: SideKind::Scratch,
            parts: None,
        }
    }
}

/// How a table comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// As a copy under a new name.
    Beside,
    /// Its rows, into the table that is there.
    Rows,
    /// The whole table, which is not there any more.
    Anew,
}

/// What will be done; nothing is written.
pub async fn prepare(job: &Job<'_>) -> Result<Prepared> {
    tokio::select! {
        prepared = Box::pin(plan::prepare(job)) => prepared,
        () = job.cancel.cancelled() => Err(ended_by_signal()),
    }
}

/// Does it. The caller removes the place of the side instance afterwards, whatever this says.
pub async fn execute(job: &Job<'_>, prepared: Prepared, place: &place::Place) -> Result<TableReport> {
    let Prepared { plan, side, production } = prepared;
    let taking_out = async {
        let side = side::make(job, side, place).await?;
        // Hours may have passed: a firewall, a pooler or a restart may have ended the session.
        let production = production.anew().await?;
        let taken = take_out::look(job, &side, &production, &plan).await?;
        Ok::<_, Error>((side, production, taken))
    };
    let (side, production, taken) = tokio::select! {
        taken = Box::pin(taking_out) => taken?,
        () = job.cancel.cancelled() => return Err(ended_by_signal()),
    };
    load::run(job, &side, production, taken, plan).await
}

fn ended_by_signal() -> Error {
    Error::new(Code::Cancelled, "the restore was ended by a signal, and nothing in production has changed")
        .hint("run the same command again; it begins anew")
}
