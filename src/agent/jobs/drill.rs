//! The kinds `drill` and `restore-test`, in this process, from one repository or all.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::kind::{JobContext, JobKind, JobReport};
use crate::agent::exposure::{self, Loss};
use crate::archive::source;
use crate::error::{Error, Result};
use crate::model::RepoName;
use crate::repository::configured::{self, Patience};
use crate::restore::{production, settings, survey};
use crate::verify::drill::{self, Drill, Moment};
use crate::verify::report::{Kind, Outcome, Report};
use crate::verify::{keep, restore_test};

#[derive(Clone)]
pub(super) struct Proof {
    pub(super) kind: Kind,
    pub(super) repository: Option<RepoName>,
}

#[async_trait]
impl JobKind for Proof {
    async fn run(&self, cx: &JobContext) -> Result<JobReport> {
        let (proof, cx) = (self.clone(), cx.clone());
        // A restore's future stays on its thread. Given up, it ends by its token, which is cancelled before.
        let work = move || Handle::current().block_on(proof.carry_out(&cx));
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|e| Error::internal("the run panicked").because(e))?
    }
}

impl Proof {
    async fn carry_out(&self, cx: &JobContext) -> Result<JobReport> {
        let scratch = production::scratch_directory(&cx.config, None);
        let only = self.repository.as_ref();
        let drill = Drill {
            config: &cx.config,
            cluster: &cx.cluster,
            only,
            kind: self.kind,
            moment: Moment::Random { seed: u64::from(rand::random::<u32>()) },
            trusted: Vec::new(),
            identities: source::identities(&cx.config)?,
            fetch_command: settings::fetch_command(&cx.config.path, &cx.cluster.name, only)?,
            owner: survey::owner(&scratch)?,
            scratch,
            clock: cx.clock.clone(),
            progress: Arc::clone(&cx.progress),
            cancel: cx.cancel.clone(),
            known_loss: known_loss(cx),
        };
        let mut report = match self.kind {
            Kind::Drill => Box::pin(drill::run(&drill)).await?,
            Kind::RestoreTest => Box::pin(restore_test::run(&drill)).await?,
        };
        if let Err(error) = keep_it(cx, only, &mut report).await {
            tracing::warn!(job = %cx.job.name, %error, "the report was not written");
        }
        Ok(told(&report))
    }
}

/// What this host's loss would cost, as the agent knows it at this moment.
fn known_loss(cx: &JobContext) -> Option<Duration> {
    let loss = cx
        .board
        .read(|all| all.clusters.get(&cx.cluster.name).map(|facts| exposure::loss(facts, cx.clock.now())));
    match loss? {
        Loss::Commits { seconds, .. } => Duration::try_from_secs_f64(seconds).ok(),
        Loss::Standby | Loss::Unknown | Loss::Everything => None,
    }
}

/// Into the repositories that were used, and on this host.
async fn keep_it(cx: &JobContext, only: Option<&RepoName>, report: &mut Report) -> Result<()> {
    let opened = configured::open_all(&cx.config, only, Patience::default()).await?;
    let (repositories, down) = opened.into_parts();
    for (name, _, error) in down {
        report.notes.push(format!("the report is not in repository {name}: {error}"));
    }
    let written = keep::write(&cx.config, &repositories, report, None).await?;
    tracing::info!(job = %cx.job.name, report = %written.markdown.display(), "the report is written");
    Ok(())
}

fn told(report: &Report) -> JobReport {
    let finding = match report.outcome {
        Outcome::Passed => None,
        Outcome::Unproved | Outcome::Failed => {
            let found = report.findings();
            let more = match found.len().saturating_sub(3) {
                0 => String::new(),
                n => format!("; and {n} more"),
            };
            let first: Vec<&str> = found.iter().take(3).filter_map(|f| f.lines().next()).collect();
            Some(format!(
                "{} {}: {}{more} (drill-failed.md)",
                report.kind.words(),
                report.outcome.as_str(),
                first.join("; ")
            ))
        }
    };
    JobReport { finding, text: report.summary(), backup: None, bytes_raw: None, bytes_stored: None }
}
