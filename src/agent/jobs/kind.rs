//! What a kind of job is: a file beside this one and an arm in [`of`].

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::drill::Proof;
use super::full::Full;
use super::logical::Logical;
use super::verify::Verify;
use crate::agent::Board;
use crate::backup::StillWanted;
use crate::config::{ClusterConfig, Config, JobConfig, JobWork};
use crate::error::Result;
use crate::model::JobName;
use crate::util::clock::Clock;
use crate::util::progress::Progress;
use crate::verify::report::Kind;

/// What a run works with.
#[derive(Clone)]
pub struct JobContext {
    /// As it was when the run began.
    pub config: Arc<Config>,
    pub cluster: ClusterConfig,
    pub job: JobConfig,
    /// For the record of what is made: by it another host of the cluster sees that the job is done. See [`label`].
    pub label: String,
    pub clock: Clock,
    /// What is known of the server and its archive.
    pub board: Board,
    pub progress: Arc<dyn Progress>,
    /// Cancelled at the deadline and when the agent ends.
    pub cancel: CancellationToken,
    /// To be asked under the lock that the work takes, if it takes one: has another host done it meanwhile?
    pub still_wanted: Option<StillWanted>,
}

/// What a run that did not fail came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobReport {
    /// The work is done, and this is wrong.
    pub finding: Option<String>,
    /// One line.
    pub text: String,
    pub backup: Option<String>,
    pub bytes_raw: Option<u64>,
    pub bytes_stored: Option<u64>,
}

/// The work of a job. An error of code `busy` means that another host (or a person) is doing it.
#[async_trait]
pub trait JobKind: Send + Sync {
    async fn run(&self, cx: &JobContext) -> Result<JobReport>;
}

pub(super) fn of(work: &JobWork) -> Box<dyn JobKind> {
    match work {
        JobWork::Full => Box::new(Full),
        JobWork::Dump { databases, tables } => Box::new(Logical::dump(databases, tables)),
        JobWork::Schema { databases } => Box::new(Logical::schema(databases)),
        JobWork::Tables { databases, tables, filters } => {
            Box::new(Logical::tables(databases, tables, filters))
        }
        JobWork::Verify(work) => Box::new(Verify(work.clone())),
        JobWork::Drill { repository } => {
            Box::new(Proof { kind: Kind::Drill, repository: repository.clone() })
        }
        JobWork::RestoreTest { repository } => {
            Box::new(Proof { kind: Kind::RestoreTest, repository: repository.clone() })
        }
    }
}

/// What everything that a job makes is called in its record.
pub fn label(job: &JobName) -> String {
    format!("pgkeep job {job}")
}
